"""Pairs of trajectory segments and which of the two is better: judged by their returns, or read from a file.

A file of pairs is a Parquet table with a row for each: whole numbers ``first_episode``, ``first_step``,
``second_episode`` and ``second_step`` say where the segments begin (episodes of the data set counted from 0, steps
within one likewise), and ``preference`` how much the first is preferred, from 0 to 1. With pandas::

    columns = ["first_episode", "first_step", "second_episode", "second_step", "preference"]
    pandas.DataFrame([(0, 10, 3, 0, 1.0)], columns=columns).to_parquet("pairs.parquet")
"""

from __future__ import annotations

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.data.samplers import Sampler, take_windows, uniform, window_starts
from jaxrl_reg.errors import UserError, need
from jaxrl_reg.types import Array, Dataset, Key, Transition, pytree

COLUMNS = ("first_episode", "first_step", "second_episode", "second_step", "preference")


@pytree
class Pairs:
    """``P`` pairs of segments of one data set, by the rows where they begin; they stop with their episode."""

    first: Array  # [P] int32
    second: Array  # [P] int32
    preference: Array  # [P] float32 in [0, 1], 1 where the first is better


def best_worst(score: Array) -> tuple[Array, Array, Array]:
    """``(chosen [...], rejected [...], valid [...])`` of candidates with scores ``[..., G]``: the best and the worst.

    Indices are int32, the first of equals. ``valid`` float32 is 0 where all scores are the same: there is no pair.
    """
    chosen, rejected = jnp.argmax(score, axis=-1), jnp.argmin(score, axis=-1)
    return chosen.astype(jnp.int32), rejected.astype(jnp.int32), (chosen != rejected).astype(jnp.float32)


def all_pairs(score: Array) -> tuple[Array, Array, Array]:
    """``(chosen [..., K], rejected [..., K], valid [..., K])`` of all ``K = G (G - 1) / 2`` pairs of ``[..., G]``.

    ``valid`` float32 is 0 for ties, whose first index then counts as chosen.
    """
    left, right = np.triu_indices(score.shape[-1], 1)
    one, other = score[..., left], score[..., right]
    chosen, rejected = jnp.where(one >= other, left, right), jnp.where(one >= other, right, left)
    return chosen.astype(jnp.int32), rejected.astype(jnp.int32), (one != other).astype(jnp.float32)


def judged(data: Dataset, length: int, count: int, temperature: float = 0.25, seed: int = 0) -> Pairs:
    """``count`` pairs of segments of ``length`` steps, judged once by a Bradley-Terry judge on their returns.

    The judge prefers the first with probability ``sigma((G1 - G2) / (temperature std))``, where ``std`` is that of the
    returns of all segments that may be drawn: 0 is a judge who never errs. Segments lie whole within an episode; where
    none is as long as ``length``, they are as long as the longest. Runs on the host.

    Raises:
      UserError: rewards that are not known; numbers out of range; only one segment to choose.
    """
    if not data.rewarded:
        raise UserError(f"{data.name}: its rewards are not known, so nobody can judge by them; give --pairs FILE")
    if length < 1 or count < 1 or temperature < 0:
        raise UserError(
            f"pairs need length and number of at least 1 and a temperature of at least 0, got {length}, {count} and "
            f"{temperature:g}"
        )
    length = min(length, int(np.max(np.asarray(data.end) - np.asarray(data.start))))
    starts = window_starts(data, length)
    total = np.concatenate([[0.0], np.cumsum(np.asarray(data.reward, np.float64))])
    returns = total[starts + length] - total[starts]
    generator = np.random.default_rng(seed)
    if starts.size < 2:
        raise UserError(f"{data.name}: pairs need two segments of {length} steps, and there is one; try a shorter one")
    one = generator.integers(0, starts.size, size=count)
    drawn = np.stack([one, (one + generator.integers(1, starts.size, size=count)) % starts.size])
    lead, chance = returns[drawn[0]] - returns[drawn[1]], generator.uniform(size=count)
    scale = temperature * max(returns.std(), 1e-12)
    with np.errstate(over="ignore"):
        likely = 1.0 / (1.0 + np.exp(-lead / scale)) if temperature > 0 else 0.5 * (1.0 + np.sign(lead))
    first, second = starts[drawn]
    return distinct(data, Pairs(first, second, (chance < likely).astype(np.float32)), length, "drawn pairs")


def distinct(data: Dataset, pairs: Pairs, length: int, name: str) -> Pairs:
    """The pairs whose segments differ within ``length`` steps; how many do not is said in one line.

    Such a pair costs ln 2 for ever and teaches nothing. Segments are compared by what is seen and done in them.

    Raises:
      UserError: no pair is left.
    """
    first, second = np.asarray(pairs.first), np.asarray(pairs.second)
    end, rows = np.asarray(data.end), np.arange(length)
    lengths = [np.minimum(length, end[start] - start) for start in (first, second)]
    same = lengths[0] == lengths[1]
    real = rows < lengths[0][:, None]
    at = [np.minimum(start[:, None] + rows, data.size - 1) for start in (first, second)]
    for column in (np.asarray(data.observation), np.asarray(data.action)):
        same &= (~real | (column[at[0]] == column[at[1]]).all(-1)).all(-1)
    if same.all():
        raise UserError(f"{name}: in all {same.size} pairs the two segments are the same within {length} steps")
    if same.any():
        warnings.warn(
            f"{name}: {same.sum()} of {same.size} pairs left out, whose segments are the same within {length} steps",
            stacklevel=2,
        )
    kept = [np.asarray(part)[~same] for part in (first, second, pairs.preference)]
    return Pairs(jnp.asarray(kept[0], jnp.int32), jnp.asarray(kept[1], jnp.int32), jnp.asarray(kept[2], jnp.float32))


def batches(length: int, rows_per_pair: int = 0) -> Sampler:
    """Pairs at random from ``(data, pairs)``: ``batch_size`` of them, each of two segments of ``length`` steps.

    ``extras`` hold ``segment_observation [2, P, length, O]``, ``segment_action``, ``segment_mask [2, P, length]`` (0
    beyond the end of an episode) and ``preference [P]``. The batch's own rows are uniform ones of the data, as many
    as pairs; with ``rows_per_pair`` there are ``batch_size`` rows, and a pair for so many of them.
    """

    def sample(prepared: tuple[Dataset, Pairs], key: Key, batch_size: int) -> Transition:
        data, pairs = prepared
        row_key, pair_key = jax.random.split(key)
        batch = uniform(data, row_key, batch_size)
        count = max(1, batch_size // rows_per_pair) if rows_per_pair else batch_size
        which = jax.random.randint(pair_key, (count,), 0, pairs.first.shape[0])
        segments = take_windows(data, jnp.stack([pairs.first[which], pairs.second[which]]), length, "right")
        extras = {
            "segment_observation": segments.observation,
            "segment_action": segments.action,
            "segment_mask": segments.extras["mask"],
            "preference": pairs.preference[which],
        }
        return dataclasses.replace(batch, extras={**batch.extras, **extras})

    return sample


def load(path: str):
    """The table in a Parquet file of pairs, a pandas ``DataFrame`` with the columns above.

    Raises:
      UserError: a file that cannot be read, a column that is missing or not of numbers, and a table without rows.
    """
    need("pandas", "pyarrow")
    import pandas

    try:
        table = pandas.read_parquet(path)
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; a file of pairs is a Parquet table with {', '.join(COLUMNS)}"
        ) from None
    except Exception as error:  # Arrow's errors are of many kinds
        raise UserError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    for column in COLUMNS:
        if column not in table:
            raise UserError(f"{path} has no column {column!r}; it needs {', '.join(COLUMNS)}")
        if not pandas.api.types.is_numeric_dtype(table[column]):
            raise UserError(f"{path}: column {column!r} does not hold numbers, but {table[column].dtype}")
    if len(table) == 0:
        raise UserError(f"{path} holds no pairs")
    return table


def read(path: str, data: Dataset, length: int) -> Pairs:
    """The pairs in a Parquet file with the columns above, for segments of at most ``length`` steps.

    Raises:
      UserError: as ``load``, and for the first row that does not fit the data.
    """
    table = load(path)
    preference = table["preference"].to_numpy(np.float64, na_value=np.nan)
    _refuse(path, ~((preference >= 0) & (preference <= 1)), preference, "preference {} is not in [0, 1]")
    rows = [_rows(path, table, side, data) for side in ("first", "second")]
    return distinct(data, Pairs(rows[0], rows[1], preference), length, path)


def _rows(path: str, table, side: str, data: Dataset) -> np.ndarray:
    """The rows of the data where the segments of one side begin, int32 ``[P]``."""
    starts = np.flatnonzero(np.asarray(data.step) == 0)
    lengths = (np.asarray(data.end) - np.asarray(data.start))[starts]
    episode, step = (table[f"{side}_{what}"].to_numpy(np.float64, na_value=np.nan) for what in ("episode", "step"))
    for what, value in (("episode", episode), ("step", step)):
        _refuse(path, value != np.round(value), value, f"{side}_{what} {{}} is not a whole number")
    outside = ~((episode >= 0) & (episode < starts.size))
    last = starts.size - 1
    _refuse(path, outside, episode, f"{side}_episode {{}} is not in the data, whose episodes are 0 to {last}")
    number = episode.astype(np.int64)
    beyond = ~((step >= 0) & (step < lengths[number]))
    _refuse(path, beyond, step, f"{side}_step {{}} is not in its episode, which is shorter")
    return (starts[number] + step.astype(np.int64)).astype(np.int32)


def _refuse(path: str, wrong: np.ndarray, values, message: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        more = f" (and {wrong.sum() - 1} more rows)" if wrong.sum() > 1 else ""
        raise UserError(f"{path}, row {row}: {message.format(f'{values[row]:g}')}{more}")


def table_of(pairs: Pairs, data: Dataset):
    """The pairs as a table that ``read`` takes, a pandas ``DataFrame``."""
    need("pandas")
    import pandas

    number = np.cumsum(np.asarray(data.step) == 0) - 1
    step = np.asarray(data.step)
    first, second = np.asarray(pairs.first), np.asarray(pairs.second)
    values = (number[first], step[first], number[second], step[second], np.asarray(pairs.preference))
    return pandas.DataFrame(dict(zip(COLUMNS, values, strict=True)))

"""Building, checking, cutting and describing a :class:`~jaxrl_reg.types.Dataset`.

Everything here runs on the host in NumPy, once, before training; the result moves to the device in one transfer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Dataset, Transition

BOUND_TOLERANCE = 1e-6  # actions this far outside [-1, 1] are rounding, and are clipped


class Source(NamedTuple):
    """Where arrays came from, so that an error names the file, the key and the row as the user knows them."""

    path: str = "arrays"
    keys: Mapping[str, str] = MappingProxyType({})  # our name -> the file's
    row: Callable[[int], str] = "row {}".format

    def error(self, key: str, problem: str, row: int | None = None) -> UserError:
        place = "" if row is None else f" {self.row(int(row))}"
        return UserError(f"{self.path}: {self.keys.get(key, key)}{place} {problem}")


def from_arrays(
    observation: Any,
    action: Any,
    reward: Any,
    terminated: Any,
    truncated: Any,
    next_observation: Any = None,
    *,
    name: str,
    score_random: float = math.nan,
    score_expert: float = math.nan,
    extras: Mapping[str, Any] | None = None,
    action_low: Any = None,
    action_high: Any = None,
    source: Source | str = Source(),  # noqa: B008 (immutable)
) -> Dataset:
    """Rows in time order, episode after episode, to a data set on the device.

    Shapes: ``observation`` and ``next_observation`` ``[N, O]``, ``action`` ``[N, A]``, the others ``[N]``; ``extras``
    ``[N, ...]``. ``terminated`` and ``truncated`` hold 0 or 1; a row with both counts as terminated. Rows after the
    last flag are an unfinished episode and count as truncated.

    Without ``next_observation`` the observations are shifted by one row, as D4RL's ``qlearning_dataset`` does: the
    last row of a truncated or unfinished episode has no successor and is dropped, and the row before it then ends
    the episode. A terminated row stays; its successor is unknown and never bootstrapped from, so it repeats its own
    observation.

    ``action_low`` and ``action_high`` (``[A]`` or scalars) rescale actions to [-1, 1]. ``return_rank`` is the fraction
    of episodes whose return is at most the row's own: ties share the higher rank, and the best episode has 1.

    Raises UserError, naming source, key and row, for: NaN or infinity, unequal lengths, wrong rank, no rows, flags
    other than 0 and 1, actions out of bounds by more than 1e-6 (within that they are clipped), no episode end at all.
    """
    source = Source(source) if isinstance(source, str) else source
    observation = _floats(source, "observation", observation, 2)
    action = _floats(source, "action", action, 2)
    reward = _floats(source, "reward", reward, 1)
    terminated = _flags(source, "terminated", terminated)
    truncated = _flags(source, "truncated", truncated)
    columns = {"action": action, "reward": reward, "terminated": terminated, "truncated": truncated}
    if next_observation is not None:
        next_observation = _floats(source, "next_observation", next_observation, 2)
        if next_observation.shape[1] != observation.shape[1]:
            found, wanted = next_observation.shape[1], observation.shape[1]
            raise source.error("next_observation", f"has {found} columns, but observations have {wanted}")
        columns["next_observation"] = next_observation
    extras = {key: _extra(source, key, value) for key, value in (extras or {}).items()}
    rows = len(observation)
    for key, column in {**columns, **extras}.items():
        if len(column) != rows:
            found = source.keys.get("observation", "observation")
            raise source.error(key, f"has {len(column)} rows, but {found} has {rows}")
    if rows == 0:
        raise source.error("observation", "has no rows")
    action = bounded_actions(source, action, action_low, action_high)
    if not (terminated.any() or truncated.any()):
        both = [source.keys.get(key, key) for key in ("terminated", "truncated")]
        raise UserError(
            f"{source.path}: {' and '.join(dict.fromkeys(both))} mark no episode end; set the flag on each last row"
        )
    truncated = truncated & ~terminated
    truncated[-1] = not terminated[-1]
    if next_observation is None:
        next_observation = np.where(terminated[:, None], observation, np.roll(observation, -1, axis=0))
        keep = ~truncated
        if not keep.any():
            raise source.error("observation", "has no row with a successor: every episode is one truncated row")
        truncated = np.append(truncated[1:], False)
        observation, action, reward, terminated, truncated, next_observation = (
            column[keep] for column in (observation, action, reward, terminated, truncated, next_observation)
        )
        extras = {key: value[keep] for key, value in extras.items()}
    return _assemble(
        observation,
        action,
        reward,
        terminated,
        truncated,
        next_observation,
        extras=extras,
        name=name,
        score_random=score_random,
        score_expert=score_expert,
    )


def from_transitions(
    trajectory: Transition, *, name: str, score_random: float = math.nan, score_expert: float = math.nan
) -> Dataset:
    """A time-major trajectory ``[T, E, ...]``, such as a rollout of ``E`` environments, to a data set on the device.

    Environments are laid out one after the other. An episode that is still running at the last step is truncated
    there. Raises UserError if ``trajectory.last`` is missing or the rank is not ``[T, E]``.
    """
    if trajectory.last is None:
        raise UserError(f"{name}: a trajectory needs `last` to tell where its episodes end")
    if trajectory.reward.ndim != 2:
        raise UserError(f"{name}: reward has shape {trajectory.reward.shape}, expected time and environments [T, E]")
    host = jax.device_get(trajectory)
    last, going = host.last > 0, host.discount > 0
    last = np.array(last)
    last[-1] = True

    def rows(x):
        return np.swapaxes(np.asarray(x), 0, 1).reshape(-1, *x.shape[2:])

    return from_arrays(
        rows(host.observation),
        rows(host.action),
        rows(host.reward),
        rows(~going),
        rows(last & going),
        rows(host.next_observation),
        name=name,
        score_random=score_random,
        score_expert=score_expert,
        extras={key: rows(value) for key, value in host.extras.items()},
        source=name,
    )


def bounded_actions(source: Source, action: np.ndarray, low: Any = None, high: Any = None) -> np.ndarray:
    """Actions ``[N, A]`` rescaled from ``[low, high]``, if given, to [-1, 1], checked and clipped."""
    if (low is None) != (high is None):
        raise source.error("action", "needs both action_low and action_high, or neither")
    hint = "pass action_low and action_high to rescale"
    if low is not None:
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        for bound in (low, high):
            if bound.shape not in ((), (1,), (action.shape[1],)):
                raise source.error("action", f"has {action.shape[1]} columns, but a bound has shape {bound.shape}")
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise source.error("action", "needs finite bounds with action_low < action_high")
        action = (2.0 * (action - low) / (high - low) - 1.0).astype(np.float32)
        hint = "check action_low and action_high"
    outside = np.abs(action) > 1.0 + BOUND_TOLERANCE
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise source.error("action", f"column {column} is {action[row, column]:g}, outside [-1, 1]; {hint}", row)
    return np.clip(action, -1.0, 1.0)


def validate(dataset: Dataset) -> None:
    """Check every invariant of a data set that was edited by hand; raises UserError naming field and row."""
    host = jax.device_get(dataset)
    source = Source(f"data set {dataset.name!r}")
    for key in ("discount", "last"):
        _flags(source, key, getattr(host, key))
    terminated, last = host.discount == 0, host.last == 1
    if (terminated & ~last).any():
        row = np.flatnonzero(terminated & ~last)[0]
        raise source.error("discount", "is 0 although the episode goes on; an episode ends where it terminates", row)
    rebuilt = from_arrays(
        host.observation,
        host.action,
        host.reward,
        terminated,
        last & ~terminated,
        host.next_observation,
        name=dataset.name,
        extras=host.extras,
        source=source,
    )
    for field in dataclasses.fields(Dataset):
        if field.name in ("extras", "name", "score_random", "score_expert"):
            continue
        wanted, found = np.asarray(getattr(rebuilt, field.name)), np.asarray(getattr(host, field.name))
        if wanted.shape != found.shape:
            raise source.error(field.name, f"has shape {found.shape}, expected {wanted.shape}")
        wrong = (wanted != found).reshape(len(wanted), -1).any(axis=1)
        if wrong.any():
            row = np.flatnonzero(wrong)[0]
            raise source.error(
                field.name, f"is {found[row].tolist()}, but the episodes give {wanted[row].tolist()}", row
            )


def concatenate(datasets: Sequence[Dataset], name: str | None = None) -> Dataset:
    """One data set after the other; return ranks are taken over all of them.

    Reference scores survive where all data sets agree and become NaN (unknown) elsewhere. ``name`` defaults to the
    distinct names joined by ``+``. Raises UserError if there is none, or if dimensions or extras differ.
    """
    if not datasets:
        raise UserError("concatenate needs at least one data set")
    first = datasets[0]
    for other in datasets[1:]:
        if other.spec != first.spec:
            raise UserError(f"{other.name} has {other.spec}, but {first.name} has {first.spec}")
        if sorted(other.extras) != sorted(first.extras):
            raise UserError(f"{other.name} has extras {sorted(other.extras)}, but {first.name} {sorted(first.extras)}")
    hosts = [jax.device_get(dataset) for dataset in datasets]

    def join(pick):
        return np.concatenate([pick(host) for host in hosts])

    def shared(values):
        return values[0] if all(np.array_equal(value, values[0], equal_nan=True) for value in values) else math.nan

    return _assemble(
        join(lambda host: host.observation),
        join(lambda host: host.action),
        join(lambda host: host.reward),
        join(lambda host: host.discount == 0),
        join(lambda host: (host.last == 1) & (host.discount == 1)),
        join(lambda host: host.next_observation),
        extras={key: join(lambda host, key=key: host.extras[key]) for key in first.extras},
        name="+".join(dict.fromkeys(host.name for host in hosts)) if name is None else name,
        score_random=shared([host.score_random for host in hosts]),
        score_expert=shared([host.score_expert for host in hosts]),
    )


def subset(dataset: Dataset, rows: Any) -> Dataset:
    """The given rows only: a boolean mask ``[N]`` or strictly increasing row numbers.

    Where a kept row's successor is left out, the episode is truncated there: ``last`` becomes 1, ``discount`` and
    ``next_observation`` stay true. Episodes are renumbered and return ranks taken anew over the pieces.
    """
    rows = np.asarray(rows)
    if rows.dtype == bool:
        if rows.shape != (dataset.size,):
            raise UserError(f"{dataset.name}: a mask of shape {rows.shape} does not fit {dataset.size} rows")
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or rows.size == 0 or not np.issubdtype(rows.dtype, np.integer):
        raise UserError(f"{dataset.name}: a subset needs at least one row, as a mask or as increasing row numbers")
    if rows[0] < 0 or rows[-1] >= dataset.size or (np.diff(rows) <= 0).any():
        raise UserError(f"{dataset.name}: row numbers must increase within 0 and {dataset.size - 1}")
    host = jax.device_get(dataset)
    terminated = host.discount[rows] == 0
    gap = np.append(np.diff(rows) != 1, True)
    return _assemble(
        host.observation[rows],
        host.action[rows],
        host.reward[rows],
        terminated,
        ((host.last[rows] == 1) | gap) & ~terminated,
        host.next_observation[rows],
        extras={key: value[rows] for key, value in host.extras.items()},
        name=dataset.name,
        score_random=host.score_random,
        score_expert=host.score_expert,
    )


def head(dataset: Dataset, rows: int) -> Dataset:
    """The first ``rows`` rows; the episode that is cut is truncated there."""
    return subset(dataset, np.arange(min(rows, dataset.size)))


def first_episodes(dataset: Dataset, episodes: int) -> Dataset:
    """The first whole episodes."""
    return subset(dataset, np.asarray(dataset.episode) < episodes)


def top_fraction(dataset: Dataset, fraction: float) -> Dataset:
    """The best ``fraction`` of the episodes by undiscounted return, in their old order, for %BC.

    ``floor(fraction * episodes)`` episodes, at least one, as in CORL's ``any_percent_bc``; among equals the earlier.
    """
    if not 0.0 < fraction <= 1.0:
        raise UserError(f"fraction must lie in (0, 1], got {fraction:g}")
    returns = episode_returns(dataset)
    count = max(1, math.floor(fraction * len(returns) + 1e-9))
    best = np.argsort(-returns, kind="stable")[:count]
    return subset(dataset, np.isin(np.asarray(dataset.episode), best))


def episode_returns(dataset: Dataset) -> np.ndarray:
    """Undiscounted return of every episode, float64 ``[episodes]`` on the host."""
    starts = np.flatnonzero(np.asarray(dataset.step) == 0)
    return _returns(np.asarray(dataset.reward), starts)


def normalised(returns: Any, random: Any, expert: Any) -> Any:
    """``100 (return - random) / (expert - random)``, D4RL's score, elementwise for numbers and arrays of any kind."""
    return 100.0 * (returns - random) / (expert - random)


def normalised_score(dataset: Dataset, returns: Any) -> Array:
    """The score of ``returns`` (any shape) in ``normalised``; NaN where the data set knows no reference scores.

    They must be measured in the data set's own environment, with its unscaled rewards.
    """
    return normalised(jnp.asarray(returns), dataset.score_random, dataset.score_expert)


def add_returns_to_go(dataset: Dataset, gamma: float = 1.0) -> Dataset:
    """Adds ``extras["return_to_go"]`` ``[N]``: the (discounted) sum of rewards from each row to its episode's end.

    A truncated episode's unseen future counts as nothing, as in Decision Transformer (arXiv 2106.01345).
    """
    reward = np.asarray(dataset.reward, np.float64)
    starts = np.flatnonzero(np.asarray(dataset.step) == 0)
    ends = np.append(starts[1:], dataset.size)
    value, carry = np.zeros_like(reward), np.zeros(len(starts))
    # All episodes at once, walking back from their ends: as many steps as the longest episode has rows.
    for back in range(int((ends - starts).max())):
        alive = np.flatnonzero(ends - starts > back)
        rows = ends[alive] - 1 - back
        carry[alive] = reward[rows] + gamma * carry[alive]
        value[rows] = carry[alive]
    return dataclasses.replace(dataset, extras={**dataset.extras, "return_to_go": jnp.asarray(value, jnp.float32)})


def summary(dataset: Dataset) -> dict[str, Any]:
    """Plain numbers that describe a data set: sizes, episode ends, returns, lengths, rewards, normalised score."""
    returns = episode_returns(dataset)
    lengths = np.bincount(np.asarray(dataset.episode))
    reward = np.asarray(dataset.reward)
    last = np.asarray(dataset.last) == 1
    terminated = int((last & (np.asarray(dataset.discount) == 0)).sum())
    return {
        "name": dataset.name,
        "rows": dataset.size,
        "episodes": len(returns),
        "terminated": terminated,
        "truncated": len(returns) - terminated,
        "observation_dim": dataset.spec.observation_dim,
        "action_dim": dataset.spec.action_dim,
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_min": float(returns.min()),
        "return_max": float(returns.max()),
        "length_mean": float(lengths.mean()),
        "length_min": int(lengths.min()),
        "length_max": int(lengths.max()),
        "reward_min": float(reward.min()),
        "reward_max": float(reward.max()),
        "score_mean": float(normalised_score(dataset, returns.mean())),
    }


def _assemble(
    observation: np.ndarray,
    action: np.ndarray,
    reward: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    next_observation: np.ndarray,
    *,
    extras: Mapping[str, np.ndarray],
    name: str,
    score_random: Any,
    score_expert: Any,
) -> Dataset:
    """Derive the episode structure from checked columns; the last row must end an episode."""
    last = terminated | truncated
    ends = np.flatnonzero(last) + 1
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    episode = np.repeat(np.arange(len(ends)), lengths)
    returns = _returns(reward, starts)
    fields: dict[str, Any] = {
        "observation": observation,
        "action": action,
        "reward": reward,
        "discount": 1.0 - terminated.astype(np.float32),
        "next_observation": next_observation,
        "next_action": np.where(last[:, None], action, np.roll(action, -1, axis=0)),
        "last": last.astype(np.float32),
        "return_rank": return_rank(returns)[episode],
        "episode": episode.astype(np.int32),
        "step": (np.arange(len(reward)) - starts[episode]).astype(np.int32),
        "start": starts[episode].astype(np.int32),
        "end": ends[episode].astype(np.int32),
        "score_random": np.float32(score_random),
        "score_expert": np.float32(score_expert),
        "extras": dict(extras),
    }
    return jax.device_put(Dataset(**fields, name=name))


def return_rank(returns: np.ndarray) -> np.ndarray:
    """The fraction of episodes with a return at most as high, float32 ``[episodes]``: ties equal, the best 1."""
    return (np.searchsorted(np.sort(returns), returns, side="right") / len(returns)).astype(np.float32)


def _returns(reward: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(reward, starts, dtype=np.float64)


def _column(source: Source, key: str, value: Any) -> np.ndarray:
    try:
        value = np.asarray(value)
    except ValueError:  # rows of unequal length
        value = np.asarray(None)
    if value.dtype.kind not in "biuf":
        raise source.error(key, f"holds {value.dtype} values, expected a rectangular array of numbers")
    return value


def _floats(source: Source, key: str, value: Any, rank: int | None) -> np.ndarray:
    """A float32 copy: on the CPU a device array may share the memory that the caller gave us."""
    value = _column(source, key, value)
    if rank is not None and value.ndim != rank:
        expected = "[rows]" if rank == 1 else "[rows, size]"
        raise source.error(key, f"has shape {value.shape}, expected {expected}")
    with np.errstate(over="ignore"):
        value = np.array(value, np.float32, order="C")
    bad = ~np.isfinite(value)
    if bad.any():
        row = np.flatnonzero(bad.reshape(len(value), -1).any(axis=1))[0]
        what = "NaN" if np.isnan(value[row]).any() else "infinite in float32"
        raise source.error(key, f"is {what}; repair the value or leave out its episode", row)
    return value


def _flags(source: Source, key: str, value: Any) -> np.ndarray:
    value = _column(source, key, value)
    if value.ndim != 1:
        raise source.error(key, f"has shape {value.shape}, expected [rows]")
    wrong = (value != 0) & (value != 1)
    if wrong.any():
        row = np.flatnonzero(wrong)[0]
        raise source.error(key, f"is {value[row]:g}, expected 0 or 1", row)
    return value != 0


def _extra(source: Source, key: str, value: Any) -> np.ndarray:
    value = _column(source, key, value)
    if value.ndim == 0:
        raise source.error(key, "is a scalar, expected one entry per row")
    if value.dtype.kind == "f":
        return _floats(source, key, value, None)
    narrow = {np.dtype(np.int64): np.int32, np.dtype(np.uint64): np.uint32}.get(value.dtype, value.dtype)
    copy = value.astype(narrow)
    if (copy != value).any():
        row = np.flatnonzero((copy != value).reshape(len(value), -1).any(axis=1))[0]
        raise source.error(key, "does not fit into 32 bits", row)
    return copy

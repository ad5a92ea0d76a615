"""Drawing batches inside a jitted step: ``sampler(dataset, key, batch_size) -> Transition``, pure and vmappable.

The data set must be an argument of the jitted function, never closed over: XLA would write it into the program.
Every field of a batch is gathered here; those that nobody reads are removed by the compiler.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Dataset, Key, Transition

Sampler = Callable[[Dataset, Key, int], Transition]


def take(dataset: Dataset, rows: Array) -> Transition:
    """The given rows (any shape) as a batch; ``rows`` must lie within the data set."""

    def gather(column):
        return column.at[rows].get(mode="clip")

    return Transition(
        observation=gather(dataset.observation),
        action=gather(dataset.action),
        reward=gather(dataset.reward),
        discount=gather(dataset.discount),
        next_observation=gather(dataset.next_observation),
        last=gather(dataset.last),
        next_action=gather(dataset.next_action),
        return_rank=gather(dataset.return_rank),
        extras=jax.tree.map(gather, dataset.extras),
    )


def uniform(dataset: Dataset, key: Key, batch_size: int) -> Transition:
    """``batch_size`` rows drawn uniformly with replacement."""
    return take(dataset, _rows(dataset, key, batch_size))


def numbered(sample: Sampler = uniform) -> Sampler:
    """Batches of ``sample`` that say which rows they are: ``extras["row"]``, int32, windows and chunks included.

    For tables with a row for each of the data (``transforms.update_rows``).
    """

    def draw(dataset: Dataset, key: Key, batch_size: int) -> Transition:
        extras = {**dataset.extras, "row": jnp.arange(dataset.size, dtype=jnp.int32)}
        return sample(dataclasses.replace(dataset, extras=extras), key, batch_size)

    return draw


def n_step(n: int, gamma: float | Array) -> Sampler:
    """Uniform rows with ``n``-step returns: ``reward`` is ``r_0 + gamma r_1 + ... + gamma^(m-1) r_(m-1)``.

    ``m <= n`` is cut at the episode's end, so nothing crosses it; a truncated episode bootstraps from its true last
    ``next_observation``. ``discount`` is ``gamma^(m-1)`` times the last row's: the agent's own ``reward + gamma *
    discount * V(next_observation)`` then is the n-step target. ``next_observation``, ``next_action`` and ``last``
    belong to the last row used, the other fields to the first. ``gamma`` may be traced; for ``n = 1`` this is
    :func:`uniform`.
    """
    if n < 1:
        raise UserError(f"n_step needs n >= 1, got {n}")

    def sample(dataset: Dataset, key: Key, batch_size: int) -> Transition:
        rows = _rows(dataset, key, batch_size)
        first = take(dataset, rows)
        used = jnp.minimum(n, dataset.end[rows] - rows)  # m, [B]
        final = take(dataset, rows + used - 1)
        offset = jnp.arange(n)
        weight = jnp.where(offset < used[:, None], jnp.power(jnp.float32(gamma), offset), 0.0)  # [B, n]
        reward = dataset.reward.at[rows[:, None] + offset].get(mode="clip")
        return Transition(
            observation=first.observation,
            action=first.action,
            reward=jnp.sum(weight * reward, axis=-1),
            discount=final.discount * jnp.power(jnp.float32(gamma), used - 1),
            next_observation=final.next_observation,
            last=final.last,
            next_action=final.next_action,
            return_rank=first.return_rank,
            extras=first.extras,
        )

    return sample


def mixture(first: int, share: float = 0.5) -> Sampler:
    """Batches of which a fixed ``share`` comes from the ``first`` rows of the data set and the rest from the others.

    For ``data.concatenate([many, few])``: a handful of demonstrations then counts as much as the large set before
    them. Rows of the first kind stand first in the batch; their number is ``share`` of it, rounded.

    Raises UserError if ``share`` is outside [0, 1] or, at the first draw, one of the two sets is empty.
    """
    if not 0.0 <= share <= 1.0:
        raise UserError(f"mixture needs a share in [0, 1], got {share:g}")

    def sample(dataset: Dataset, key: Key, batch_size: int) -> Transition:
        if not 0 < first < dataset.size:
            raise UserError(f"{dataset.name}: a mixture of the first {first} rows and the others of {dataset.size}")
        count = round(share * batch_size)
        low = jnp.where(jnp.arange(batch_size) < count, 0, first)
        high = jnp.where(jnp.arange(batch_size) < count, first, dataset.size)
        return take(dataset, jax.random.randint(key, (batch_size,), low, high))

    return sample


def future(most: int) -> Sampler:
    """Uniform rows whose ``next_observation`` is the one ``k`` steps ahead, for objectives over videos.

    ``k`` is uniform in ``1 .. most``, or up to the episode's end where that is nearer; every pair is drawn anew, so the
    data set does not grow with ``most``. Adds ``extras["ahead"]`` int32 ``[B]``, ``k``, and ``extras["episode"]`` int32
    ``[B]``, by which a contrastive loss knows which rows not to hold against each other. Action, reward and discount
    remain those of the row itself: only for ``most = 1`` do they explain ``next_observation``.
    """
    if most < 1:
        raise UserError(f"future needs a reach of at least 1 step, got {most}")

    def sample(dataset: Dataset, key: Key, batch_size: int) -> Transition:
        row_key, ahead_key = jax.random.split(key)
        rows = _rows(dataset, row_key, batch_size)
        ahead = jax.random.randint(ahead_key, rows.shape, 1, jnp.minimum(most, dataset.end[rows] - rows) + 1)
        batch = take(dataset, rows)
        batch.extras["ahead"], batch.extras["episode"] = ahead, dataset.episode[rows]
        following = dataset.next_observation.at[rows + ahead - 1].get(mode="clip")
        return dataclasses.replace(batch, next_observation=following)

    return sample


def take_windows(dataset: Dataset, rows: Array, length: int, pad: str = "left") -> Transition:
    """Sub-trajectories ``[..., length, ...]`` that begin at ``rows`` ``[...]`` and stop at their episode's end.

    A window that meets the end early has its real rows last (``pad="left"``, Decision Transformer's layout) or first
    (``pad="right"``). Padding is zero in every field. ``extras["mask"]`` is float32, 1 on real rows, and
    ``extras["step"]`` int32, the step within the episode; both names are reserved.
    """
    if pad not in ("left", "right"):
        raise UserError(f"pad must be 'left' or 'right', got {pad!r}")
    if length < 1:
        raise UserError(f"a window needs a length of at least 1, got {length}")
    rows = jnp.asarray(rows)[..., None]
    real = jnp.minimum(length, dataset.end[rows] - rows)  # [..., 1]
    offset = jnp.arange(length) - (length - real if pad == "left" else 0)
    mask = (offset >= 0) & (offset < real)
    index = rows + jnp.clip(offset, 0, real - 1)
    batch = take(dataset, index)

    def blank(x):
        return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, jnp.zeros_like(x))

    batch = jax.tree.map(blank, batch)
    batch.extras["mask"] = mask.astype(jnp.float32)
    batch.extras["step"] = jnp.where(mask, dataset.step[index], 0)
    return batch


def windows(length: int, pad: str = "left") -> Sampler:
    """Sub-trajectories ``[B, length, ...]`` whose first row is drawn uniformly over all rows (see take_windows)."""

    def sample(dataset: Dataset, key: Key, batch_size: int) -> Transition:
        return take_windows(dataset, _rows(dataset, key, batch_size), length, pad)

    return sample


def windows_with_past(length: int, past: int) -> Sampler:
    """As ``windows(length, pad="right")``, with rows of the same episode from before the window.

    ``extras`` hold ``past_observation [B, past, O]``, ``past_action [B, past, A]`` and ``past_mask [B, past]``, 1 for
    real rows: all of them where there are at most ``past``, else one out of each of ``past`` equal stretches of them,
    drawn anew for every batch (where two stretches meet within a row, it may come twice).
    """

    def sample(dataset: Dataset, key: Key, batch_size: int) -> Transition:
        row_key, past_key = jax.random.split(key)
        rows = _rows(dataset, row_key, batch_size)
        batch = take_windows(dataset, rows, length, "right")
        step, number = dataset.step[rows][:, None], jnp.arange(past)
        drawn = (number + jax.random.uniform(past_key, (batch_size, past))) * step / past
        ago = jnp.where(step > past, step - jnp.minimum(drawn.astype(jnp.int32), step - 1), 1 + number)
        real = ago <= step
        before = take(dataset, rows[:, None] - jnp.where(real, ago, 0))
        batch.extras["past_observation"], batch.extras["past_action"] = before.observation, before.action
        batch.extras["past_mask"] = real.astype(jnp.float32)
        return batch

    return sample


def returns_to_go(sampler: Sampler) -> Sampler:
    """``sampler`` on rows that also carry ``extras["return_to_go"]``, the undiscounted reward from there to the
    episode's end.

    As ``add_returns_to_go``, but inside the graph: three passes over the rewards, which the compiler does once per
    segment. The batch also gets three scalars of the whole data set: ``extras["return_mean"]`` and
    ``extras["return_best"]`` of its episodes, and ``extras["return_scale"]``, the largest size of any return-to-go (1
    if all are 0).
    """

    def add(later, earlier):  # scanned from the end; what is kept of later rewards is 0 across an episode's end
        (kept, total), (keep, reward) = later, earlier
        return kept * keep, reward + keep * total

    def sample(dataset: Dataset, key: Key, batch_size: int) -> Transition:
        inside = 1.0 - dataset.last
        togo = jax.lax.associative_scan(add, (inside, dataset.reward), reverse=True)[1]
        first = dataset.step == 0
        scale = jnp.abs(togo).max()
        extras = {**dataset.extras, "return_to_go": togo}
        batch = sampler(dataclasses.replace(dataset, extras=extras), key, batch_size)
        batch.extras["return_mean"] = jnp.where(first, togo, 0.0).sum() / first.sum()
        batch.extras["return_best"] = jnp.where(first, togo, -jnp.inf).max()
        batch.extras["return_scale"] = jnp.where(scale > 0, scale, 1.0)
        return batch

    return sample


def ahead(length: int) -> Sampler:
    """Uniform rows with the rewards that follow each, so that a return with any discount can be made of them.

    ``extras["reward_ahead"]`` ``[B, length]`` are the rewards from the row to its episode's end, 0 beyond;
    ``extras["steps_ahead"]`` how many those are; ``extras["cut_reward"]`` the last of them where a time-out ended the
    episode, 0 where it terminated; ``extras["known"]`` is 1 where ``length`` steps reach the end, else 0. All float32.
    The discount stays the agent's, traced: a column of returns would hold for one only.
    """
    if length < 1:
        raise UserError(f"ahead needs a length of at least 1 step, got {length}")

    def sample(dataset: Dataset, key: Key, batch_size: int) -> Transition:
        rows = _rows(dataset, key, batch_size)
        batch = take(dataset, rows)
        left = dataset.end[rows] - rows
        offset = jnp.arange(length)
        reward = dataset.reward.at[rows[:, None] + offset].get(mode="clip")
        final = dataset.end[rows] - 1
        known = (left <= length).astype(jnp.float32)
        batch.extras["reward_ahead"] = jnp.where(offset < left[:, None], reward, 0.0)
        batch.extras["steps_ahead"] = jnp.minimum(left, length).astype(jnp.float32)
        batch.extras["cut_reward"] = known * (dataset.discount * dataset.reward).at[final].get(mode="clip")
        batch.extras["known"] = known
        return batch

    return sample


def take_around(dataset: Dataset, rows: Array, radius: int) -> tuple[Array, Array]:
    """Observations before and after the rows' actions, ``[..., 2 radius + 2, O]``, and which of them exist.

    For a row at step ``t``: the observations of steps ``t - radius`` to ``t + 1 + radius`` of its episode, the final
    one included. Beyond either end of the episode they are zero and the mask ``[..., 2 radius + 2]`` is 0, so nothing
    leaks from the episode before or after. ``radius`` = 0 gives what the action led from and to.
    """
    if radius < 0:
        raise UserError(f"a window around an action needs a radius of at least 0, got {radius}")
    rows = jnp.asarray(rows)[..., None]
    at = rows + jnp.arange(-radius, radius + 2)
    start, end = dataset.start[rows], dataset.end[rows]
    mask = (at >= start) & (at <= end)  # an episode of n rows has n + 1 observations
    within = dataset.observation.at[jnp.clip(at, start, end - 1)].get(mode="clip")
    window = jnp.where((at == end)[..., None], dataset.next_observation.at[end - 1].get(mode="clip"), within)
    return jnp.where(mask[..., None], window, 0.0), mask.astype(jnp.float32)


def around(radius: int) -> Sampler:
    """Uniform rows with ``extras["window"]`` and ``extras["window_mask"]`` of ``take_around``, to label actions by."""

    def sample(dataset: Dataset, key: Key, batch_size: int) -> Transition:
        rows = _rows(dataset, key, batch_size)
        batch = take(dataset, rows)
        batch.extras["window"], batch.extras["window_mask"] = take_around(dataset, rows, radius)
        return batch

    return sample


def window_starts(dataset: Dataset, length: int, stride: int = 1) -> np.ndarray:
    """Rows from which a window of ``length`` fits whole into its episode, int32 ``[M]`` on the host.

    Every ``stride``-th row of each episode, counted from its start, and always the last one that fits, so that the
    episode's end is covered too. Feed them to :func:`take_windows`, as an argument of the jitted function.
    """
    if length < 1 or stride < 1:
        raise UserError(f"window_starts needs length and stride of at least 1, got {length} and {stride}")
    step, left = np.asarray(dataset.step), np.asarray(dataset.end) - np.arange(dataset.size)
    rows = np.flatnonzero(((step % stride == 0) & (left >= length)) | (left == length))
    if rows.size == 0:
        raise UserError(f"{dataset.name}: no episode has {length} rows")
    return rows.astype(np.int32)


def take_chunks(dataset: Dataset, rows: Array, length: int, history: int = 1) -> Transition:
    """The next ``length`` steps from each of ``rows`` ``[...]`` and the ``history - 1`` before it, for policies that
    predict several actions at once.

    Leaves are ``[..., history - 1 + length, ...]``; the row itself is at index ``history - 1``. Past either end of its
    episode the first or last row is held, so that a plan which outlives its episode repeats the last action. ``mask``
    in ``extras`` (a reserved name) is float32, 1 on real rows.
    """
    if length < 1 or history < 1:
        raise UserError(f"a chunk needs length and history of at least 1, got {length} and {history}")
    rows = jnp.asarray(rows)[..., None]
    wanted = rows + jnp.arange(1 - history, length)
    index = jnp.clip(wanted, dataset.start[rows], dataset.end[rows] - 1)
    batch = take(dataset, index)
    batch.extras["mask"] = (index == wanted).astype(jnp.float32)
    return batch


def chunks(length: int, history: int = 1) -> Sampler:
    """Plans ``[B, history - 1 + length, ...]`` around rows drawn uniformly over all rows (see take_chunks)."""

    def sample(dataset: Dataset, key: Key, batch_size: int) -> Transition:
        return take_chunks(dataset, _rows(dataset, key, batch_size), length, history)

    return sample


def hindsight(
    gamma: float | Array = 0.99,
    *,
    geometric: float = 1.0,
    uniform: float = 0.0,
    current: float = 0.0,
    random: float = 0.0,
    ahead: int = 0,
    gather: Callable[[Dataset, Array], Transition] = take,
) -> Sampler:
    """Uniform rows, each with a goal: the ``next_observation`` of a row chosen by one of four rules.

    The four arguments are probabilities and sum to 1. With ``t`` the sampled row and ``end`` its episode's end:
    ``geometric`` takes row ``min(t + k, end - 1)`` with P(k) = (1 - gamma) gamma^k, k = 0, 1, ...; ``uniform`` any of
    ``t .. end - 1``; ``current`` row ``t`` itself; ``random`` any row of the data set. All but the last lie in the
    same episode's future, the final observation included. ``gamma`` may be traced.

    Adds ``extras["goal"]`` ``[B, O]``, ``extras["goal_row"]`` int32 ``[B]`` and ``extras["goal_reached"]`` float32
    ``[B]``, 1 where the sampled transition itself arrives at the goal (``goal_row == t``): a goal-conditioned agent
    takes ``reward = goal_reached - 1`` and ``discount = 1 - goal_reached``.

    ``ahead`` puts row ``min(t + ahead, end - 1)`` in the place of ``t`` in all of this, so that goals lie beyond a plan
    of ``ahead + 1`` steps; ``gather(dataset, rows [B])`` then takes the plan (see take_chunks).
    """
    shares = np.asarray([geometric, uniform, current, random], np.float64)
    if (shares < 0).any() or abs(shares.sum() - 1.0) > 1e-6:
        raise UserError(f"hindsight needs probabilities that sum to 1, got {', '.join(f'{s:g}' for s in shares)}")
    upto = np.cumsum(shares)[:3]

    def sample(dataset: Dataset, key: Key, batch_size: int) -> Transition:
        row_key, rule_key, geometric_key, uniform_key, random_key = jax.random.split(key, 5)
        rows = _rows(dataset, row_key, batch_size)
        last_row = dataset.end[rows] - 1
        first = jnp.minimum(rows + ahead, last_row)
        # 1 - u lies in (0, 1], so the logarithm is finite; a gamma of 1 would divide by zero.
        u = 1.0 - jax.random.uniform(geometric_key, (batch_size,))
        steps = jnp.floor(jnp.log(u) / jnp.log(jnp.minimum(gamma, 1.0 - 1e-7)))
        steps = jnp.minimum(steps, (last_row - first).astype(jnp.float32)).astype(jnp.int32)
        within = jax.random.randint(uniform_key, (batch_size,), first, last_row + 1)
        anywhere = _rows(dataset, random_key, batch_size)
        rule = jax.random.uniform(rule_key, (batch_size,))
        goal_row = jnp.select(
            [rule < upto[0], rule < upto[1], rule < upto[2]], [first + steps, within, first], anywhere
        ).astype(jnp.int32)
        batch = gather(dataset, rows)
        batch.extras["goal"] = dataset.next_observation.at[goal_row].get(mode="clip")
        batch.extras["goal_row"] = goal_row
        batch.extras["goal_reached"] = (goal_row == first).astype(jnp.float32)
        return batch

    return sample


def _rows(dataset: Dataset, key: Key, batch_size: int) -> Array:
    return jax.random.randint(key, (batch_size,), 0, dataset.size)

"""Population-based training inside one compiled program: the worst copy the best, and hyperparameters move.

In words. A population trains for a segment and is scored. The worst quarter, and every member whose score is not
finite, takes over the state and the hyperparameters of a random member of the best quarter (exploit, a gather over the
member axis), and its hyperparameters are then pushed up or down by a factor (explore). So a single run follows a
schedule of hyperparameters that nobody wrote down. Who copied whom is recorded.

Source: Jaderberg et al., 2017, Population Based Training of Neural Networks; truncation selection of its section 4.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.population import placement as placing
from jaxrl_reg.population.grid import setting_count
from jaxrl_reg.population.search import Range, parse_range
from jaxrl_reg.types import Array, Key, Metrics, PyTree, Run, as_float32

HyperT = TypeVar("HyperT")


class Evolution(NamedTuple):
    """What ``evolve`` returns; ``M`` members, ``T`` segments."""

    state: PyTree  # [M, ...], after the last segment
    hypers: Any  # leaves [T, M]: what each segment was trained with
    metrics: Metrics  # name -> [T, M]
    parents: Array  # int32 [T, M]: whose state a member has after segment t; itself, if it copied nobody


def exploit(key: Key, scores: Array, fraction: float = 0.25) -> Array:
    """Whom every member copies: losers a random winner, all others themselves.

    Args:
      key: typed key.
      scores: ``[M]``, higher is better. A member whose score is not finite loses, whatever ``fraction`` says.
      fraction: share of losers, and of winners, in (0, 0.5]; at least one of each.
    Returns:
      ``[M]`` int32 indices, for a gather. Without any finite score nobody copies.
    Raises:
      ValueError: ``scores`` is not a vector, or ``fraction`` outside (0, 0.5].
    """
    if jnp.ndim(scores) != 1 or not 0 < fraction <= 0.5:
        raise ValueError(f"exploit: scores {list(jnp.shape(scores))} must be [M] and fraction={fraction} in (0, 0.5]")
    count = scores.shape[0]
    share = max(1, int(fraction * count))
    itself, finite = jnp.arange(count, dtype=jnp.int32), jnp.isfinite(scores)
    best_first = jnp.argsort(jnp.where(finite, -scores, jnp.inf), stable=True)
    rank = jnp.argsort(best_first)
    winners = jnp.clip(finite.sum(), 1, share)  # no winner without a finite score
    chosen = best_first[jax.random.randint(key, (count,), 0, winners)].astype(jnp.int32)
    loses = ((rank >= count - share) | ~finite) & (rank >= winners) & finite.any()
    return jnp.where(loses, chosen, itself)


def explore(
    key: Key, hypers: HyperT, ranges: Mapping[str, Range], factor: Array | float = 1.25, resample: Array | float = 0.0
) -> HyperT:
    """Hyperparameters pushed up or down at random, each by itself, never out of its range.

    Args:
      key: typed key.
      hypers: leaves ``[M]``.
      ranges: name to range; others stay as they are. ``log`` ranges multiply or divide by ``factor``, ``lin`` ranges
        add or subtract ``factor - 1`` of their width.
      factor: scalar > 1, without unit, may be traced.
      resample: probability, in [0, 1], that a value is drawn anew from its range instead.
    Returns:
      like ``hypers``.
    """
    moved = {}
    for i, (name, one) in enumerate(ranges.items()):
        value = jnp.asarray(getattr(hypers, name))
        coin, fresh, point = jax.random.split(jax.random.fold_in(key, i), 3)
        up = jax.random.bernoulli(coin, shape=value.shape)
        u = jax.random.uniform(point, value.shape)
        low, high = one.values
        if one.kind == "log":
            pushed, drawn = jnp.where(up, value * factor, value / factor), low * (high / low) ** u
        else:
            step = (factor - 1.0) * (high - low)
            pushed, drawn = jnp.where(up, value + step, value - step), low + (high - low) * u
        new = jnp.where(jax.random.bernoulli(fresh, resample, value.shape), drawn, pushed)
        moved[name] = jnp.clip(new, low, high).astype(value.dtype)
    return dataclasses.replace(hypers, **moved)  # type: ignore[type-var]


def evolve(
    run: Run,
    ranges: Mapping[str, Range | str],
    *,
    score: str = "eval/return",
    fraction: float = 0.25,
    factor: float = 1.25,
    resample: float = 0.0,
    chunk: int | None = None,
    devices: Sequence[placing.Device] | None = None,
) -> Callable[[Key, Array, Any, PyTree], Evolution]:
    """Population-based training as a pure function ``(key, keys [M], hypers [M], data) -> Evolution``; jit it.

    Args:
      run: made by a loop; its segments are the times at which members copy each other, but for the last.
      ranges: hyperparameters to move, as in ``search.sample``; choices cannot be pushed up or down.
      score: the metric of a segment by which members are compared, higher is better.
      fraction, factor, resample: see ``exploit`` and ``explore``.
      chunk: members side by side on one device; by default one after the other on a CPU, else all.
      devices: split the members over these; one device without.

    Returns:
      The function. ``key`` decides who copies whom; ``keys`` are the members' own run keys, so that copies do not stay
      equal; ``hypers`` is where every member starts.

    Raises:
      UserError: for an unknown hyperparameter or metric, a choice, or members that do not divide over the devices.
    """
    found = {name: parse_range(name, one) if isinstance(one, str) else one for name, one in ranges.items()}
    for name, one in found.items():
        if one.kind == "choice":
            raise UserError(f"{name} is a choice; population-based training moves log:LOW:HIGH or lin:LOW:HIGH")

    def train(member: PyTree, shared: PyTree) -> tuple[PyTree, Metrics]:
        (state, key, hyper), (index, data) = member, shared
        return run.segment(state, index, key, hyper, data)

    def evolution(key: Key, keys: Array, hypers: Any, data: PyTree = None) -> Evolution:
        hypers, count = as_float32(hypers), keys.shape[0]
        known = [field.name for field in dataclasses.fields(hypers)]
        for name in found:
            if name not in known:
                raise unknown("hyperparameter", name, known)
        if setting_count(hypers) != count:
            raise UserError(f"{count} keys and {setting_count(hypers)} settings: give every member one of each")
        if devices is not None and count % len(devices):
            raise UserError(f"{count} members cannot be split over {len(devices)} devices")
        side_by_side = chunk or (1 if jax.default_backend() == "cpu" else count)
        population = placing.over_members(train, side_by_side, None if devices is None else list(devices))

        def segment(carry: PyTree, index: Array) -> tuple[PyTree, PyTree]:
            state, hypers = carry
            state, metrics = population((state, keys, hypers), (index, data))
            if score not in metrics:
                raise unknown("metric", score, metrics)
            choose, push = jax.random.split(jax.random.fold_in(key, index))
            itself = jnp.arange(count, dtype=jnp.int32)
            parents = jnp.where(index + 1 < run.segments, exploit(choose, metrics[score], fraction), itself)
            copied = parents != itself
            state, taken = jax.tree.map(lambda leaf: leaf[parents], (state, hypers))
            pushed = explore(push, taken, found, factor, resample)
            following = jax.tree.map(lambda new, old: jnp.where(copied, new, old), pushed, hypers)
            return (state, following), (hypers, metrics, parents)

        state = jax.vmap(run.init)(keys, hypers)
        (state, _), history = jax.lax.scan(segment, (state, hypers), jnp.arange(run.segments))
        return Evolution(state, *history)

    return evolution


def ancestry(parents: np.ndarray, member: int) -> np.ndarray:
    """The slots that held a final member's forebears: ``[T]`` int, one per segment, the last being ``member``.

    Args:
      parents: ``[T, M]``, from ``Evolution``.
      member: index into the members after the last segment.
    """
    parents = np.asarray(parents)
    slots = np.empty(len(parents), int)
    for t in reversed(range(len(parents))):
        member = int(parents[t, member])  # whose state the slot took over after segment t, hence who trained it
        slots[t] = member
    return slots

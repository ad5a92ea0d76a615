"""A buffer of levels with their scores, and who is drawn from it: pure functions over an explicit state.

``N`` slots, of which some may be pinned: the levels of a data set, never evicted. Support ``[N]`` is bool.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.losses.level_scores import grounded
from jaxrl_reg.types import Array, Key, PyTree, pytree


@pytree
class LevelBuffer:
    """``score``, ``best_return`` (the best ever seen, minus infinity before any) ``[N]``; ``age`` int32, iterations
    since the level was last scored; ``born`` int32, the iteration it came in; ``filled`` and ``pinned``, bool."""

    level: PyTree  # leaves [N, ...]
    score: Array
    best_return: Array
    age: Array
    born: Array
    filled: Array
    pinned: Array

    @property
    def capacity(self) -> int:
        return self.score.shape[0]

    @property
    def unseen(self) -> Array:
        """``[N]``: pinned levels that have no score yet."""
        return self.pinned & (self.best_return == -jnp.inf)


def init(example: PyTree, capacity: int, data: PyTree = None) -> LevelBuffer:
    """A buffer for levels like ``example`` (one level, arrays or shapes), the levels ``data`` ``[M, ...]`` pinned in
    its first slots.

    Raises:
      UserError: for a capacity below 1 or below ``M``.
    """
    count = 0 if data is None else jax.tree.leaves(data)[0].shape[0]
    if capacity < max(count, 1):
        raise UserError(
            f"a buffer of {count} pinned levels needs a capacity of at least {max(count, 1)}, got {capacity}"
        )
    level = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), example)
    if data is not None:
        level = jax.tree.map(lambda slots, given: slots.at[:count].set(given), level, data)
    pinned = jnp.arange(capacity) < count
    zeros = jnp.zeros(capacity, jnp.int32)
    return LevelBuffer(level, jnp.zeros(capacity), jnp.full(capacity, -jnp.inf), zeros, zeros, pinned, pinned)


def at(buffer: LevelBuffer, slot: Array) -> PyTree:
    """The levels in ``slot`` ``[E]``."""
    return jax.tree.map(lambda leaf: leaf[slot], buffer.level)


def _normalised(weights: Array) -> Array:
    total = weights.sum()
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), 0.0)


def rank_weights(score: Array, support: Array, temperature: Array | float) -> Array:
    """``rank^(-1/temperature)``, normalised over the support, rank 1 being the largest score there: ``[N]``.

    An infinite temperature is uniform; an empty support gives zeros.
    """
    order = jnp.argsort(-jnp.where(support, score, -jnp.inf), stable=True)
    rank = jnp.zeros(score.shape[0], jnp.int32).at[order].set(jnp.arange(1, score.shape[0] + 1))
    return _normalised(jnp.where(support, rank ** (-1.0 / jnp.asarray(temperature, jnp.float32)), 0.0))


def staleness_weights(age: Array, support: Array) -> Array:
    """In proportion to how long ago a level was scored; where none is stale, uniform over the support: ``[N]``."""
    stale = jnp.where(support, age, 0).astype(jnp.float32)
    return _normalised(jnp.where(stale.sum() > 0, stale, support.astype(jnp.float32)))


def replay_weights(buffer: LevelBuffer, staleness: Array | float, temperature: Array | float, ground: bool) -> Array:
    """``(1 - staleness) P_score + staleness P_age`` over the filled slots (prioritised level replay): ``[N]``."""
    score, support = buffer.score, buffer.filled
    if ground:
        score, support = grounded(score, buffer.best_return), support & (buffer.best_return > 0)
    by_score = rank_weights(score, support, temperature)
    return (1.0 - staleness) * by_score + staleness * staleness_weights(buffer.age, support)


def mixture(
    buffer: LevelBuffer,
    eta: Array | float,
    staleness: Array | float,
    temperature_data: Array | float,
    temperature_buffer: Array | float,
) -> Array:
    """DRED's: ``(1 - staleness) [(1 - eta) P_data + eta P_buffer] + staleness P_age``, ``[N]``.

    ``P_data`` ranks the pinned levels by score, ``P_buffer`` those ever solved, pinned ones included, by score, and
    ``P_age`` is over the pinned ones. Source: Garcin et al., 2024, as released.
    """
    solved = buffer.filled & (buffer.best_return > 0)
    of_data = rank_weights(buffer.score, buffer.pinned, temperature_data)
    of_buffer = rank_weights(grounded(buffer.score, buffer.best_return), solved, temperature_buffer)
    of_buffer = jnp.where(solved.any(), of_buffer, of_data)
    mixed = (1.0 - eta) * of_data + eta * of_buffer
    return (1.0 - staleness) * mixed + staleness * staleness_weights(buffer.age, buffer.pinned)


def draw(weights: Array, key: Key, count: int) -> Array:
    """``count`` slots int32 in proportion to ``weights`` ``[N]``, with replacement; never one of weight 0 but where all
    are, which gives slot 0."""
    total = jnp.cumsum(weights)
    slot = jnp.searchsorted(total, jax.random.uniform(key, (count,)) * total[-1], side="right")
    last = jnp.max(jnp.where(weights > 0, jnp.arange(weights.shape[0]), 0))  # rounding may land on the very end
    return jnp.minimum(slot, last).astype(jnp.int32)


def aged(buffer: LevelBuffer) -> LevelBuffer:
    """One iteration later."""
    return dataclasses.replace(buffer, age=buffer.age + buffer.filled.astype(jnp.int32))


def visited(buffer: LevelBuffer, slot: Array, score: Array, best_return: Array) -> LevelBuffer:
    """The buffer after its levels in ``slot`` ``[E]`` int32 (-1: none) were played: ``score`` and ``best_return``
    ``[E]``, of a slot that was played several times the mean and the largest.

    A rollout without a finished episode scores minus infinity: its level keeps score and age as they were.
    """
    size = buffer.capacity
    known = (slot >= 0) & (score > -jnp.inf)
    where = jnp.where(known, slot, size)  # what is not known goes past the end, and is dropped
    number = jnp.zeros(size).at[where].add(1.0, mode="drop")
    total = jnp.zeros(size).at[where].add(jnp.where(known, score, 0.0), mode="drop")
    played = number > 0
    return dataclasses.replace(
        buffer,
        score=jnp.where(played, total / jnp.maximum(number, 1.0), buffer.score),
        best_return=buffer.best_return.at[where].max(jnp.where(known, best_return, -jnp.inf), mode="drop"),
        age=jnp.where(played, 0, buffer.age),
    )


def insert(
    buffer: LevelBuffer,
    level: PyTree,
    score: Array,
    best_return: Array,
    iteration: Array,
    *,
    rule: str = "score",
    ground: bool = False,
) -> LevelBuffer:
    """The best ``N`` of the buffer's levels and ``K`` new ones (leaves ``[K, ...]``); pinned ones stay, in place.

    ``rule``: by ``score``, or ``recent``, the newest that were ever solved. New levels whose score is minus infinity
    never enter, and with ``ground`` (or ``recent``) none that was not solved. Slots may be renumbered.
    """
    new = score > -jnp.inf
    if ground or rule == "recent":
        new &= best_return > 0
    old_score, new_score = buffer.score, score
    if ground:
        old_score = grounded(old_score, buffer.best_return)
    born = jnp.broadcast_to(jnp.asarray(iteration, jnp.int32), score.shape)
    if rule == "recent":
        old_score, new_score = buffer.born.astype(jnp.float32), born.astype(jnp.float32)
    standing = jnp.where(buffer.pinned, jnp.inf, jnp.where(buffer.filled, old_score, -jnp.inf))
    standing = jnp.concatenate([standing, jnp.where(new, new_score, -jnp.inf)])
    keep = jnp.argsort(-standing, stable=True)[: buffer.capacity]
    none = jnp.zeros(score.shape, bool)
    fresh = LevelBuffer(level, score, best_return, jnp.zeros_like(born), born, new, none)
    return jax.tree.map(lambda old, more: jnp.concatenate([old, more])[keep], buffer, fresh)


def since(buffer: LevelBuffer, iteration: Array) -> LevelBuffer:
    """Without the levels that came in before ``iteration``, pinned ones excepted."""
    return dataclasses.replace(buffer, filled=buffer.filled & (buffer.pinned | (buffer.born >= iteration)))

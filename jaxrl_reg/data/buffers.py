"""A replay buffer for online agents: a ring of transitions, as three pure functions over an explicit state.

Give the buffer to ``jit(..., donate_argnums=...)`` or carry it through a ``scan``, and writes happen in place.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Key, Transition, pytree


@pytree
class Buffer:
    """``rows`` ``[capacity, ...]``, of which ``size`` (int32) are valid; ``position`` (int32) is written next.

    While the buffer fills, the valid rows are the first ``size``; once full, all are, and the oldest is at
    ``position``.
    """

    rows: Transition
    position: Array
    size: Array

    @property
    def capacity(self) -> int:
        return jax.tree.leaves(self.rows)[0].shape[0]


def init(capacity: int, example: Transition) -> Buffer:
    """An empty buffer for rows like ``example``: one transition, without leading axes (arrays or shapes)."""
    if capacity < 1:
        raise UserError(f"a replay buffer needs a capacity of at least 1, got {capacity}")
    shapes = jax.eval_shape(lambda tree: tree, example)
    rows = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), shapes)
    return Buffer(rows, jnp.int32(0), jnp.int32(0))


def add(buffer: Buffer, batch: Transition) -> Buffer:
    """Write a batch ``[E, ...]``, or a trajectory ``[T, E, ...]`` in order of time, over the oldest rows.

    Of a batch larger than the buffer the newest ``capacity`` rows stay. Raises UserError if the rows do not have the
    shapes or types that the buffer was made for.
    """
    capacity = buffer.capacity

    def flat(path, stored, new):
        extra = new.ndim - stored.ndim
        if extra not in (0, 1) or new.shape[1 + extra :] != stored.shape[1:] or new.dtype != stored.dtype:
            raise UserError(
                f"replay buffer: {jax.tree_util.keystr(path)} is {new.dtype}{list(new.shape)}, expected "
                f"{stored.dtype}[{', '.join(['batch', *map(str, stored.shape[1:])])}] or the same with time in front"
            )
        return new.reshape(-1, *stored.shape[1:])

    if jax.tree.structure(batch) != jax.tree.structure(buffer.rows):
        raise UserError("replay buffer: the batch has other fields than the example that the buffer was made from")
    batch = jax.tree_util.tree_map_with_path(flat, buffer.rows, batch)
    counts = {leaf.shape[0] for leaf in jax.tree.leaves(batch)}
    if len(counts) != 1:
        raise UserError(f"replay buffer: the fields of a batch have different numbers of rows, {sorted(counts)}")
    count = counts.pop()
    skip = max(0, count - capacity)  # writing a row twice in one scatter has no defined order
    index = (buffer.position + skip + jnp.arange(count - skip)) % capacity
    rows = jax.tree.map(
        lambda stored, new: stored.at[index].set(new[skip:], mode="promise_in_bounds", unique_indices=True),
        buffer.rows,
        batch,
    )
    position = ((buffer.position + count) % capacity).astype(jnp.int32)
    return Buffer(rows, position, jnp.minimum(buffer.size + count, capacity).astype(jnp.int32))


def sample(buffer: Buffer, key: Key, batch_size: int) -> Transition:
    """``batch_size`` valid rows drawn uniformly with replacement; all zeros while nothing has been added."""
    index = jax.random.randint(key, (batch_size,), 0, jnp.maximum(buffer.size, 1))
    return jax.tree.map(lambda column: column.at[index].get(mode="clip"), buffer.rows)


def following(buffer: Buffer, key: Key, batch_size: int, stride: int = 1) -> Transition:
    """``sample`` with ``next_action``, which a data set's batches have too: the action that was taken next.

    ``stride`` is the number of environments side by side, so that the row after a row stands ``stride`` later. At an
    episode's end ``next_action`` is the row's own, as in a data set. The newest ``stride`` rows, of which nothing has
    followed yet, are not drawn while there are others. Raises UserError if the buffer cannot hold others.
    """
    return _following(buffer, _ages(buffer, key, batch_size, stride), stride)


def ahead(buffer: Buffer, key: Key, batch_size: int, stride: int, length: int) -> Transition:
    """``following`` with what ``samplers.ahead`` says of a data set's rows, up to ``length`` steps.

    Where an episode is still under way, or ``length`` is too short for it, ``extras["known"]`` is 0.
    """
    ages = _ages(buffer, key, batch_size, stride)
    batch = _following(buffer, ages, stride)
    assert buffer.rows.last is not None
    steps = ages[:, None] + stride * jnp.arange(length)  # [B, length]
    there = steps < buffer.size
    rows = _rows(buffer, jnp.minimum(steps, buffer.size - 1))
    reward, last, discount = (
        column.at[rows].get(mode="clip") for column in (buffer.rows.reward, buffer.rows.last, buffer.rows.discount)
    )
    ends = (last > 0) & there
    within = (jnp.cumsum(ends, axis=1) - ends == 0) & there
    final = ends & within  # the end of the row's own episode, at most one
    extras = {
        "reward_ahead": jnp.where(within, reward, 0.0),
        "steps_ahead": within.sum(axis=1).astype(jnp.float32),
        "cut_reward": jnp.where(final, discount * reward, 0.0).sum(axis=1),
        "known": final.any(axis=1).astype(jnp.float32),
    }
    return dataclasses.replace(batch, extras={**batch.extras, **extras})


def _ages(buffer: Buffer, key: Key, batch_size: int, stride: int) -> Array:
    """Rows drawn uniformly, counted from the oldest; none of the newest ``stride`` where there are others."""
    if buffer.capacity <= stride:
        raise UserError(
            f"a replay of {buffer.capacity} rows holds no step of {stride} environments with the one after it; make it "
            "larger"
        )
    others = buffer.size - stride
    return jax.random.randint(key, (batch_size,), 0, jnp.where(others > 0, others, jnp.maximum(buffer.size, 1)))


def _rows(buffer: Buffer, ages: Array) -> Array:
    return (buffer.position - buffer.size + ages) % buffer.capacity


def _following(buffer: Buffer, ages: Array, stride: int) -> Transition:
    batch = jax.tree.map(lambda column: column.at[_rows(buffer, ages)].get(mode="clip"), buffer.rows)
    after = buffer.rows.action.at[_rows(buffer, ages + stride)].get(mode="clip")
    ends = (batch.last > 0) | (ages + stride >= buffer.size)
    return dataclasses.replace(batch, next_action=jnp.where(ends[:, None], batch.action, after))

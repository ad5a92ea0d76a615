"""A replay buffer for online agents: a ring of transitions, as three pure functions over an explicit state.

Give the buffer to ``jit(..., donate_argnums=...)`` or carry it through a ``scan``, and writes happen in place.
"""

from __future__ import annotations

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

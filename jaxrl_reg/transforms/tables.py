"""A row of memory for every row of the data: what a network has said of it on earlier visits."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def update_rows(table: jax.Array, rows: jax.Array, values: jax.Array, decay: jax.Array | float = 0.0) -> jax.Array:
    """Every visited row becomes ``decay old + (1 - decay) mean of its values in this batch``.

    Batches are drawn with replacement, so a row may come twice; setting it by index would then keep one of its values,
    in undefined order. Sums and counts of it are exact.

    Args:
      table: ``[N, K]``, one row for each row of the data (``data.samplers.numbered`` says which); part of a member's
        state, so a population holds ``members x N x K`` numbers.
      rows: int ``[B]``.
      values: ``[B, K]``.
      decay: scalar in [0, 1), may be traced; 0 keeps the last visit alone.
    Returns:
      ``[N, K]``; rows that were not visited are as they were.
    Raises:
      ValueError: shapes do not fit.
    Source: Liu et al., 2020, Early-Learning Regularization Prevents Memorization of Noisy Labels, algorithm 1; Kim et
      al., 2021, Self-Knowledge Distillation with Progressive Refinement of Targets, algorithm 1.
    """
    if values.shape != (*rows.shape, *table.shape[1:]) or rows.ndim != 1:
        found = f"table {list(table.shape)}, rows {list(rows.shape)}, values {list(values.shape)}"
        raise ValueError(f"update_rows: expected table [N, K], rows [B], values [B, K]; got {found}")
    count = jnp.zeros(table.shape[:1], table.dtype).at[rows].add(1.0)
    total = jnp.zeros_like(table).at[rows].add(values.astype(table.dtype))
    mean = total / jnp.maximum(count, 1.0)[:, None]
    return jnp.where(count[:, None] > 0, decay * table + (1.0 - decay) * mean, table)

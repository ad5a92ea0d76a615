"""Rows that are none: virtual outliers around the rows of a set of features that lie furthest from their neighbours.

For a classifier that should not claim what it has not seen (``losses.energy_margin_loss``), or a critic that should not
praise actions outside of its data. Sizes are static and rows may be padding, so that sets of different sizes can be
mapped over.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.data import retrieval
from jaxrl_reg.types import Array, Key

_APART = 10.0  # between real rows and padding, where two real ones are at most 2 apart


def boundary_rows(features: Array, valid: Array, neighbours: int = 50, count: int = 50) -> Array:
    """The rows that lie furthest from their ``neighbours``-th neighbour, furthest first; of equals the first.

    Features count by their direction. A row is the first of its own neighbours.

    Args:
      features: ``[N, D]``.
      valid: ``[N]``, 0 on padding.
      neighbours: at most as many as there are valid rows: the last of those otherwise.
      count: at most N. Where fewer rows are valid, padding follows.
    Returns:
      int32 ``[count]``.
    Source: Tao et al., 2023, Non-parametric Outlier Synthesis; Huang et al., 2024, OVOR.
    """
    distance = _reach(_unit(features), _unit(features), valid, neighbours)
    return jax.lax.top_k(jnp.where(valid > 0, distance, -jnp.inf), count)[1].astype(jnp.int32)


def virtual_outliers(
    key: Key,
    features: Array,
    valid: Array,
    *,
    neighbours: int = 50,
    boundary: int = 50,
    draws: int = 600,
    keep: int,
    scale: float | Array = 0.1,
) -> tuple[Array, Array]:
    """Gaussian draws around the ``boundary_rows``, of which those furthest from the real rows are kept.

    Args:
      key: of the draws.
      features: ``[N, D]``.
      valid: ``[N]``, 0 on padding.
      neighbours: to which of a real row's neighbours a distance is taken.
      boundary: rows to draw around, at most N.
      draws: for each of them.
      keep: how many, at most ``boundary * draws``.
      scale: standard deviation of the draws, where rows have length 1.
    Returns:
      ``(outliers [keep, D], weight [keep])``: about as long as 1, whatever the features' length, and 0 where there
      were too few valid rows to draw around; weigh a loss by it.
    Source: Huang et al., 2024, OVOR, which means this. Its released code draws around 0 instead, the same numbers for
      every boundary row.
    """
    unit = _unit(features)
    rows = boundary_rows(features, valid, neighbours, boundary)
    noise = jax.random.normal(key, (boundary, draws, features.shape[-1]), features.dtype)
    drawn = (unit[rows][:, None] + scale * noise).reshape(boundary * draws, -1)
    distance = _reach(drawn, unit, valid, neighbours)
    real = jnp.repeat(valid[rows] > 0, draws)
    furthest = jax.lax.top_k(jnp.where(real, distance, -jnp.inf), keep)[1]
    return drawn[furthest], real[furthest].astype(features.dtype)


def _unit(features: Array) -> Array:
    return features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def _reach(query: Array, unit: Array, valid: Array, neighbours: int) -> Array:
    """``[B]``: squared distance from each of ``query [B, D]`` to its ``neighbours``-th valid row of ``unit [N, D]``."""
    apart = _APART * (valid <= 0).astype(unit.dtype)[:, None]
    query = jnp.concatenate([query, jnp.zeros_like(query[:, :1])], axis=1)
    most = min(neighbours, unit.shape[0])
    distance, _ = retrieval.nearest(query, (unit, apart), k=most)
    last = jnp.clip((valid > 0).sum(), 1, most) - 1
    return jnp.take(distance, last, axis=1)

"""Model surgery: gates of a network pushed along the direction of a probe, so that a behaviour does not come up."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def mean_hidden(hidden: jax.Array, alive: jax.Array) -> jax.Array:
    """Mean of hidden states over the living steps of each episode: what the probe is fitted on.

    Args:
      hidden: ``[T, B, D]``.
      alive: ``[T, B]``, 1 (or True) on steps that were taken.
    Returns:
      ``[B, D]``; 0 for an episode without steps.
    Source: Wang et al., 2025, Model Surgery, section 3.1 (mean over the tokens of a text).
    """
    weight = alive.astype(hidden.dtype)[..., None]
    return (jnp.where(weight > 0, hidden, 0.0) * weight).sum(axis=0) / jnp.maximum(weight.sum(axis=0), 1.0)


def opposed_units(gates: jax.Array, direction: jax.Array) -> jax.Array:
    """Minus the cosine of each unit's weights and a direction: the units that shut when the state has it score most.

    Args:
      gates: ``[..., D, U]``: a unit is a column; leading axes are layers.
      direction: ``[D]``, the probe's weights for "has the behaviour".
    Returns:
      ``[..., U]`` in [-1, 1].
    Edges: 0 for a column of zeros or a direction of 0.
    Source: Wang et al., 2025, Model Surgery, section 3.2.
    """
    norms = jnp.linalg.norm(gates, axis=-2) * jnp.linalg.norm(direction)
    products = jnp.einsum("...du,d->...u", gates, direction)
    return jnp.where(norms > 0, -products / jnp.where(norms > 0, norms, 1.0), 0.0)


def edit_units(
    gates: jax.Array, direction: jax.Array, scores: jax.Array, count: int, strength: jax.Array | float
) -> jax.Array:
    """``gate + strength direction`` for the ``count`` units of largest score over all layers together.

    Opposed gates are shut while the behaviour is on; pushed towards the direction they open there and move the state
    away from it. Edit the layer that reads what was probed.

    Args:
      gates: ``[..., D, U]``.
      direction: ``[D]``, as it is, not normalised.
      scores: ``[..., U]``, of ``opposed_units``.
      count: int, static, number of units; at most all.
      strength: scalar, may be traced; negative values push the other way.
    Returns:
      ``[..., D, U]``; of equal scores the first are taken.
    Raises:
      ValueError: ``count`` is negative or larger than the number of units, or the shapes do not fit.
    Source: Wang et al., 2025, Model Surgery, section 3.2.
    """
    if scores.shape != (*gates.shape[:-2], gates.shape[-1]):
        raise ValueError(f"edit_units: scores have shape {list(scores.shape)}, gates {list(gates.shape)}")
    if not 0 <= count <= scores.size:
        raise ValueError(f"edit_units: count is {count}; there are {scores.size} units")
    chosen = jax.lax.top_k(scores.reshape(-1), count)[1]
    mask = jnp.zeros(scores.size, gates.dtype).at[chosen].set(1.0).reshape(scores.shape)
    return gates + strength * direction[:, None] * mask[..., None, :]

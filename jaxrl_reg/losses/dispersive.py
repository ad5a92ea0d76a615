"""Dispersive losses: contrastive learning without positive pairs, which spreads the features of a batch.

Each is a scalar of one batch of features ``[B, D]``, to be added to another loss with a weight; lower is more spread.
Gradients flow into every row.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(features="B D", temperature="")
def dispersive_l2_loss(features: Array, temperature: Array | float = 0.5) -> Array:
    """``log mean_ij exp(-|h_i - h_j|^2 / (D temperature))``: the negatives' half of InfoNCE, by squared distances.

    Near pairs carry the weight and repel each other. The mean includes ``i = j``, which only bounds it from below.

    Args:
      features: ``[B, D]``, in any unit.
      temperature: scalar > 0, in squared units of one feature; 0.5.
    Returns:
      scalar in ``[-log B, 0]``; 0 where all rows are one.
    Raises:
      ValueError: ``features`` is not a matrix.
    Edges: equal rows send no gradient; pairs that are far apart neither. Distances are right to about 1e-6 of the
      batch's squared spread, which matters where that is huge against the temperature.
    Source: Wang and He, 2025, Diffuse and Disperse. The released code of DM1 (Zou et al., 2025) instead rewards
      large distances of far pairs, bounded and beside a constant that outweighs them: nearly no gradient at unit scale,
      none beyond.
    """
    centred = features - features.mean(0)
    square = jnp.square(centred).sum(-1)
    with jax.default_matmul_precision("highest"):
        distance = square[:, None] + square - 2.0 * centred @ centred.T
    distance = jnp.where(jnp.eye(len(square), dtype=bool), 0.0, jnp.maximum(distance, 0.0))
    return _log_mean_exp(-distance / (features.shape[1] * temperature))


@shapes(features="B D", temperature="")
def dispersive_cosine_loss(features: Array, temperature: Array | float = 0.5) -> Array:
    """``log mean_ij exp(cos(h_i, h_j) / temperature)``: the same by angles; the length of a row does not matter.

    Args:
      features: ``[B, D]``, in any unit.
      temperature: scalar > 0; 0.5.
    Returns:
      scalar in ``[-1 / temperature, 1 / temperature]``, the upper end where all rows have one direction.
    Raises:
      ValueError: ``features`` is not a matrix.
    Edges: a row of zeros has the cosine 0 with every row and gets no gradient.
    Source: Wang and He, 2025, Diffuse and Disperse.
    """
    square = jnp.square(features).sum(-1, keepdims=True)
    unit = jnp.where(square > 0, features / jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    with jax.default_matmul_precision("highest"):
        return _log_mean_exp(unit @ unit.T / temperature)


@shapes(features="B D", margin="")
def dispersive_hinge_loss(features: Array, margin: Array | float = 1.0) -> Array:
    """``mean_{i != j} max(0, margin - |h_i - h_j|)^2``: pairs nearer than the margin repel, others are left alone.

    Args:
      features: ``[B, D]``, in any unit.
      margin: scalar > 0, in the unit of the features; 1.
    Returns:
      scalar in ``[0, margin^2]``, squared units of the features.
    Raises:
      ValueError: ``features`` is not a matrix, or has fewer than two rows.
    Edges: equal rows cost ``margin^2`` and send no gradient, as there is no direction to part in.
    Source: Wang and He, 2025, Diffuse and Disperse.
    """
    rows = _at_least_two("dispersive_hinge_loss", features)
    # Not by a Gram matrix: the root would blow up its rounding. XLA fuses this; [B, B, D] is never in memory.
    square = jnp.square(features[:, None] - features).sum(-1)
    distance = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)  # sqrt has no slope at 0
    short = jnp.where(jnp.eye(rows, dtype=bool), 0.0, jnp.maximum(margin - distance, 0.0))
    return jnp.square(short).sum() / (rows * (rows - 1))


@shapes(features="B D")
def dispersive_covariance_loss(features: Array) -> Array:
    """``mean_{k != l} C_kl^2 + mean_k max(0, 1 - C_kk)``: features uncorrelated, and of a variance of at least 1.

    Args:
      features: ``[B, D]``; the variance wanted, 1, is in their unit.
    Returns:
      scalar >= 0. ``C`` is the covariance over the batch, divided by ``B - 1``.
    Raises:
      ValueError: ``features`` is not a matrix, or has fewer than two rows.
    Edges: finite for finite input; with one feature only its variance counts. Equal rows send no gradient.
    Source: Wang and He, 2025, Diffuse and Disperse; Bardes et al., 2022, VICReg.
    """
    rows = _at_least_two("dispersive_covariance_loss", features)
    centred = features - features.mean(0)
    with jax.default_matmul_precision("highest"):
        covariance = centred.T @ centred / (rows - 1)
    size = features.shape[1]
    beside = jnp.where(jnp.eye(size, dtype=bool), 0.0, jnp.square(covariance)).sum() / max(size * (size - 1), 1)
    return beside + jnp.maximum(1.0 - jnp.diagonal(covariance), 0.0).mean()


def _log_mean_exp(logits: Array) -> Array:
    return jax.nn.logsumexp(logits) - math.log(logits.size)


def _at_least_two(name: str, features: Array) -> int:
    rows = features.shape[0]
    if rows < 2:
        raise ValueError(f"{name}: a batch of {rows} has no pairs; expected features [B, D] with at least 2 rows")
    return rows

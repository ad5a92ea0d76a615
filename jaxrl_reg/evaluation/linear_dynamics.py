"""Generalisation of linear networks under gradient flow, exactly: how long to train, what never moves.

A student learns a teacher's weights from noisy examples; ``eigenvalues`` are those of the inputs' covariance in data
(0 for directions that the data do not have), time counts in units of ``1 / learning rate``. Errors are in units of the
variance of the teacher's weights, noise included. Theory, to be read beside a measured curve.

Source: Advani, Saxe and Sompolinsky, 2020, High-Dimensional Dynamics of Generalization Error in Neural Networks.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl_reg.types import Array


def generalisation_error(
    time: Array, eigenvalues: Array, signal_to_noise: Array | float, start_variance: Array | float = 0.0
) -> Array:
    """Expected error on new rows after training for ``time``: paper, equation 8.

    ``mean_l [(1 + s) exp(-2 l t) + (1 - exp(-l t))^2 / (l snr)] + 1 / snr``.

    Args:
      time: ``[T]``, >= 0.
      eigenvalues: ``[N]``, >= 0.
      signal_to_noise: scalar > 0, variance of the teacher's weights over that of the noise.
      start_variance: scalar ``s`` >= 0, variance of the first weights over the teacher's.
    Returns:
      ``[T]``.
    Edges: a direction of eigenvalue 0 keeps ``1 + s`` for ever.
    """
    steps = time[:, None] * eigenvalues
    learnt = -jnp.expm1(-steps)
    noise = jnp.where(eigenvalues > 0, jnp.square(learnt) / jnp.where(eigenvalues > 0, eigenvalues, 1.0), 0.0)
    return ((1.0 + start_variance) * jnp.exp(-2.0 * steps) + noise / signal_to_noise).mean(1) + 1.0 / signal_to_noise


def stopping_time(eigenvalues: Array, signal_to_noise: Array | float) -> Array:
    """Time ``[N]`` at which each direction's own error is least, ``log(1 + l snr) / l``; ``snr`` at ``l = 0``."""
    safe = jnp.where(eigenvalues > 0, eigenvalues, 1.0)
    return jnp.where(eigenvalues > 0, jnp.log1p(signal_to_noise * safe) / safe, signal_to_noise)


def frozen_share(features: Array, tolerance: float = 1e-6) -> Array:
    """Share of the directions of ``features [n, d]`` that the rows do not reach, in which weights never move.

    Singular values below ``tolerance`` of the largest count as 0. Uses LAPACK: for evaluation.
    """
    sizes = jnp.linalg.svd(features, compute_uv=False)
    return 1.0 - (sizes > tolerance * sizes.max()).sum() / features.shape[1]


def marchenko_pastur(eigenvalue: Array, alpha: Array | float) -> Array:
    """Density ``[...]`` of the covariance's eigenvalues for ``alpha`` rows per direction, without the mass at 0.

    ``sqrt((l+ - l)(l - l-)) / (2 pi l)`` between ``l-+ = (1 -+ sqrt(alpha))^2``, in units in which a row's entries have
    variance 1 over the number of directions; for ``alpha < 1`` a mass of ``1 - alpha`` lies at 0.
    """
    root = jnp.sqrt(alpha)
    inside = ((1.0 + root) ** 2 - eigenvalue) * (eigenvalue - (1.0 - root) ** 2)
    return jnp.where(inside > 0, jnp.sqrt(jnp.maximum(inside, 0.0)) / (2.0 * jnp.pi * eigenvalue), 0.0)

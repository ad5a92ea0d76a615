"""Distances between two sets of samples, and rewards climbed by a generator that must not leave its data."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(samples="B D", data="N D")
def energy_distance_loss(samples: Array, data: Array) -> Array:
    """``2 E|x - y| - E|x - x'| - E|y - y'|``: 0 exactly where samples and data have one distribution.

    Gradients flow into both arguments. Pairs of a sample with itself are left out, so the estimate is unbiased and may
    be below 0. Unlike an anchor of single outputs it says nothing of which noise goes where, so mass may cross from one
    mode to another.

    Args:
      samples: ``[B, D]``, of the model.
      data: ``[N, D]``.
    Returns:
      scalar, in the unit of the samples.
    Raises:
      ValueError: shapes differ, or there are fewer than two samples or data.
    Edges: samples that coincide send each other no gradient.
    Source: Szekely and Rizzo, 2013, Energy statistics.
    """
    _pairs_exist("energy_distance_loss", samples, data)
    among_samples, among_data = _off_diagonal(_distances(samples, samples)), _off_diagonal(_distances(data, data))
    return 2.0 * _distances(samples, data).mean() - among_samples - among_data


@shapes(samples="B D", data="N D", bandwidth="")
def mmd_loss(samples: Array, data: Array, bandwidth: Array | float) -> Array:
    """``E k(x, x') + E k(y, y') - 2 E k(x, y)``, squared maximum mean discrepancy, ``k = exp(-|x - y|^2 / 2 b^2)``.

    Gradients flow into the samples and data. Unbiased, so it may be below 0. It does not see what is farther than a few
    bandwidths, where ``energy_distance_loss`` still pulls.

    Args:
      samples: ``[B, D]``, of the model.
      data: ``[N, D]``.
      bandwidth: scalar > 0, the ``b`` of the kernel, in the unit of the samples.
    Returns:
      scalar in ``[-2, 2]``, without unit.
    Raises:
      ValueError: shapes differ, or there are fewer than two samples or data.
    Edges: finite for finite input.
    Source: Gretton et al., 2012, A Kernel Two-Sample Test, the unbiased estimate.
    """
    _pairs_exist("mmd_loss", samples, data)

    def kernel(x: Array, y: Array) -> Array:
        return jnp.exp(-_squared_distances(x, y) / (2.0 * bandwidth**2))

    within = _off_diagonal(kernel(samples, samples)) + _off_diagonal(kernel(data, data))
    return within - 2.0 * kernel(samples, data).mean()


@shapes(rewards="K B", weights="K", anchor="B", coefficient="")
def reward_generator_loss(rewards: Array, weights: Array, anchor: Array, coefficient: Array | float) -> Array:
    """``-sum_k w_k R_k(g(z)) + c anchor``: a generator climbs rewards by their gradient, and pays for going astray.

    The anchor is any cost per sample: the squared distance of ``g(z)`` to what the pretrained or an averaged generator
    makes of the same ``z`` (``behaviour_cloning_loss``; a bound on Wasserstein-2, and with a critic for reward FQL's
    student), the generator's own training error on data, or, the same number for all rows, a distance between
    distributions (``energy_distance_loss``). Anchors of weights are ``transforms.anchored``.

    Args:
      rewards: ``[K, B]``, gradients flowing into the sample.
      weights: ``[K]``, one per unit of each reward; rewards of different scales need different ones.
      anchor: ``[B]``, >= 0.
      coefficient: scalar >= 0, in units of reward per unit of the anchor. 0: the reward alone, which is soon hacked.
    Returns:
      ``[B]``, in units of reward.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite input.
    Source: Luo et al., 2025, Rewards Are Enough for Fast Photo-Realistic Text-to-image Generation.
    """
    return coefficient * anchor - (weights[:, None] * rewards).sum(0)


def _squared_distances(x: Array, y: Array) -> Array:
    return jnp.square(x[:, None] - y).sum(-1)


def _distances(x: Array, y: Array) -> Array:
    square = _squared_distances(x, y)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)  # sqrt has no slope at 0


def _off_diagonal(pairs: Array) -> Array:
    """The mean of ``[B, B]`` beside the diagonal."""
    size = pairs.shape[0]
    return jnp.where(jnp.eye(size, dtype=bool), 0.0, pairs).sum() / (size * (size - 1))


def _pairs_exist(name: str, samples: Array, data: Array) -> None:
    if min(samples.shape[0], data.shape[0]) < 2:
        raise ValueError(
            f"{name}: samples {list(samples.shape)} and data {list(data.shape)}; expected at least 2 rows of each"
        )

"""Isotropic Gaussian mixtures: targets whose denoiser, velocity and density are closed form at every noise level.

They show what a solver, schedule or guidance does on its own, with no network and no training in the way.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl_reg.generative.shapes import expand


class Mixture(NamedTuple):
    """``sum_k weights[k] N(means[k], stds[k]^2 I)`` with ``weights [K]``, ``means [K, D]``, ``stds [K]``.

    Methods take ``x [B, D]`` and the ``alpha`` and ``sigma`` (scalars or ``[B]``) of ``x = alpha x0 + sigma eps``.
    """

    weights: Array
    means: Array
    stds: Array

    def _components(self, x: Array, alpha, sigma):
        """Shares ``[B, K]``, variances ``[.., K]``, offsets from the means ``[B, K, D]``, log density ``[B]``."""
        alpha, sigma = jnp.asarray(alpha)[..., None], jnp.asarray(sigma)[..., None]
        variance = alpha**2 * self.stds**2 + sigma**2
        offset = x[:, None] - alpha[..., None] * self.means
        dimensions = x.shape[-1]
        logits = (
            jnp.log(self.weights)
            - 0.5 * jnp.sum(offset**2, -1) / variance
            - 0.5 * dimensions * jnp.log(2 * math.pi * variance)
        )
        return jax.nn.softmax(logits, axis=-1), variance, offset, jax.nn.logsumexp(logits, axis=-1)

    def log_prob(self, x: Array, alpha: Array | float = 1.0, sigma: Array | float = 0.0) -> Array:
        """Log density ``[B]`` of the noised mixture."""
        return self._components(x, alpha, sigma)[3]

    def expectation(self, x: Array, alpha: Array | float, sigma: Array | float) -> tuple[Array, Array]:
        """``E[x0 | x]`` and ``E[eps | x]``, each ``[B, D]``; neither is singular at ``sigma = 0`` or ``alpha = 0``."""
        share, variance, offset, _ = self._components(x, alpha, sigma)
        scaled = (share / variance)[..., None] * offset
        alpha, sigma = jnp.asarray(alpha)[..., None], jnp.asarray(sigma)[..., None]
        x0 = jnp.sum(share[..., None] * self.means + alpha[..., None] * (self.stds**2)[:, None] * scaled, axis=-2)
        return x0, jnp.sum(sigma[..., None] * scaled, axis=-2)

    def denoise(self, x: Array, sigma: Array) -> Array:
        """The exact denoiser, ``E[x0 | x0 + sigma eps]``."""
        return self.expectation(x, 1.0, sigma)[0]

    def velocity(self, z: Array, t: Array) -> Array:
        """The exact flow velocity, ``E[eps - x0 | (1 - t) x0 + t eps]``."""
        x0, eps = self.expectation(z, 1 - t, t)
        return eps - x0

    def sample(self, key: Array, count: int) -> Array:
        """``[count, D]`` draws."""
        key_component, key_noise = jax.random.split(key)
        k = jax.random.categorical(key_component, jnp.log(self.weights), shape=(count,))
        return self.means[k] + expand(self.stds[k], self.means[k]) * jax.random.normal(
            key_noise, (count, self.means.shape[1])
        )

    def cdf(self, x: Array, alpha: Array | float = 1.0, sigma: Array | float = 0.0) -> Array:
        """Distribution function ``[B]`` of the noised mixture, ``D = 1`` only."""
        alpha, sigma = jnp.asarray(alpha)[..., None], jnp.asarray(sigma)[..., None]
        std = jnp.sqrt(alpha**2 * self.stds**2 + sigma**2)
        return jnp.sum(self.weights * jax.scipy.stats.norm.cdf((x - alpha * self.means[:, 0]) / std), axis=-1)

    def quantile(self, u: Array, alpha: Array | float = 1.0, sigma: Array | float = 0.0) -> Array:
        """Inverse of ``cdf`` by bisection, ``[B] -> [B, 1]``, ``D = 1`` only.

        In one dimension the probability flow maps quantile to quantile, so this is where an exact solver must arrive.
        """
        reach = jnp.max(jnp.abs(self.means)) + 10 * (jnp.max(self.stds) + jnp.max(jnp.asarray(sigma)))
        high = jnp.broadcast_to(reach, u.shape)[:, None]

        def halve(_, bounds):
            low, high = bounds
            middle = 0.5 * (low + high)
            below = (self.cdf(middle, alpha, sigma) < u)[:, None]
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        low, high = jax.lax.fori_loop(0, 90, halve, (-high, high))
        return 0.5 * (low + high)


def ring(modes: int = 8, radius: float = 1.0, std: float = 0.08) -> Mixture:
    """Equal Gaussians on a circle in two dimensions: the usual test of multi-modality."""
    angle = 2 * math.pi * jnp.arange(modes) / modes
    means = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return Mixture(jnp.full((modes,), 1 / modes), means, jnp.full((modes,), std))

"""The reference target of this folder: a two-mode mixture in one dimension, where everything is closed form.

In one dimension the probability flow carries quantile to quantile, so a solver's error is measured on a quantile grid
without Monte Carlo noise. Expected values are computed here in NumPy, independently of the package.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr, ndtri

from jaxrl_reg import generative

COUNT = 256  # one batch size, so that compiled programs are shared between tests
WEIGHTS, MEANS, STDS = np.array([0.3, 0.7]), np.array([-1.0, 0.6]), np.array([0.15, 0.3])


def bimodal() -> generative.Mixture:
    return generative.Mixture(jnp.asarray(WEIGHTS), jnp.asarray(MEANS)[:, None], jnp.asarray(STDS))


def normal_quantiles(count=COUNT):
    return ndtri((np.arange(count) + 0.5) / count)[:, None]


def quantiles(sigma=0.0, alpha=1.0, count=COUNT):
    """Evenly spaced quantiles ``[count, 1]`` of ``alpha x0 + sigma eps``."""
    u, spread = (np.arange(count) + 0.5) / count, np.sqrt(alpha**2 * STDS**2 + sigma**2)
    low, high = np.full(count, -3.0 - 9 * sigma), np.full(count, 3.0 + 9 * sigma)
    for _ in range(80):
        middle = 0.5 * (low + high)
        below = ndtr((middle[:, None] - alpha * MEANS) / spread) @ WEIGHTS < u
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (0.5 * (low + high))[:, None]


def posterior(x, sigma, alpha=1.0):
    """``E[x0 | x]`` and ``E[eps | x]`` for ``x [B, 1]``."""
    variance = alpha**2 * STDS**2 + sigma**2
    share = WEIGHTS * np.exp(-0.5 * (x - alpha * MEANS) ** 2 / variance) / np.sqrt(variance)
    share = share / share.sum(1, keepdims=True)
    x0 = (share * (MEANS + alpha * STDS**2 / variance * (x - alpha * MEANS))).sum(1, keepdims=True)
    return x0, (x - alpha * x0) / sigma


def log_density(x, sigma=0.0):
    variance = STDS**2 + sigma**2
    return np.log((WEIGHTS * np.exp(-0.5 * (x - MEANS) ** 2 / variance) / np.sqrt(2 * np.pi * variance)).sum(1))


def distance(x, y):
    """Mean distance of two samples sorted the same way: the Wasserstein-1 distance."""
    return float(np.mean(np.abs(np.asarray(x) - np.asarray(y))))


@functools.partial(jax.jit, static_argnames=("method", "to_zero"))
def solve(x, sigmas, method, to_zero=True):
    """Run a deterministic solver with the exact denoiser."""
    return generative.sample(None, bimodal().denoise, x, sigmas, method=method, to_zero=to_zero)


@functools.partial(jax.jit, static_argnames=("method", "last_euler"))
def carry(z, times, method, last_euler=False):
    """Integrate the exact velocity."""
    return generative.integrate(bimodal().velocity, z, times, method=method, last_euler=last_euler)


def exact_average_velocity(z, r, t, steps=1500):
    """``(z - z_r) / (t - r)`` along the exact flow, by a fine Runge-Kutta solution; needs ``r < t`` in every row."""
    velocity, dt = bimodal().velocity, (r - t) / steps

    def body(index, y):
        def field(y, s):
            return velocity(y, s)

        s, h = t + index * dt, dt[:, None]
        k1 = field(y, s)
        k2 = field(y + 0.5 * h * k1, s + 0.5 * dt)
        k3 = field(y + 0.5 * h * k2, s + 0.5 * dt)
        k4 = field(y + h * k3, s + dt)
        return y + h * (k1 + 2 * k2 + 2 * k3 + k4) / 6

    return (z - jax.lax.fori_loop(0, steps, body, z)) / (t - r)[:, None]

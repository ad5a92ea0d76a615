"""Noise schedules: where a sampler stops (grids) and where a loss looks (densities).

Coordinates, here and in the whole package:

* Diffusion uses the noise level ``sigma`` of ``x = x0 + sigma eps``. A variance-preserving sample
  ``alpha x0 + sigma_vp eps`` is the same thing divided by ``alpha``, at level ``sigma_vp / alpha``.
* Flows use ``t`` with ``z = (1 - t) x0 + t eps``: noise at ``t = 1``, data at ``t = 0``, velocity ``eps - x0``.
  Sampling runs ``t`` downwards. Code that counts upwards (``tau = 1 - t``) has the opposite sign of velocity.

A grid has ``steps + 1`` entries, ends at zero, and is never built in half precision. Limits may be traced.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

Scalar = Array | float

# ---------------------------------------------------------------------------------------------------------------------
# Grids of sampling levels, [steps + 1], strictly decreasing to 0.


def _ramp(steps: int) -> Array:
    if steps < 1:
        raise ValueError(f"a sampling grid needs at least one step, got {steps}")
    return jnp.linspace(0.0, 1.0, steps)


def _wide(*limits: Scalar) -> list[Array]:
    """Limits in the default precision: a half-precision scalar would otherwise make a half-precision grid."""
    return [jnp.asarray(limit, jnp.result_type(float)) for limit in limits]


def _end_at_zero(levels: Array) -> Array:
    return jnp.append(levels, 0.0)


def karras(steps: int, sigma_min: Scalar = 0.002, sigma_max: Scalar = 80.0, rho: Scalar = 7.0) -> Array:
    """Levels evenly spaced in ``sigma ** (1 / rho)`` (Karras et al. 2022, equation 5)."""
    sigma_min, sigma_max, rho = _wide(sigma_min, sigma_max, rho)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return _end_at_zero((high + _ramp(steps) * (low - high)) ** rho)


def exponential(steps: int, sigma_min: Scalar = 0.002, sigma_max: Scalar = 80.0) -> Array:
    """Levels evenly spaced in ``log sigma``."""
    return polyexponential(steps, sigma_min, sigma_max, 1.0)


def polyexponential(steps: int, sigma_min: Scalar = 0.002, sigma_max: Scalar = 80.0, rho: Scalar = 1.0) -> Array:
    """Levels whose ``log sigma`` falls as ``(1 - u) ** rho``; ``rho = 1`` is the exponential grid."""
    sigma_min, sigma_max, rho = _wide(sigma_min, sigma_max, rho)
    ramp = (1.0 - _ramp(steps)) ** rho
    return _end_at_zero(jnp.exp(ramp * jnp.log(sigma_max / sigma_min) + jnp.log(sigma_min)))


def linear(steps: int, sigma_min: Scalar = 0.002, sigma_max: Scalar = 80.0) -> Array:
    """Levels evenly spaced in ``sigma``."""
    sigma_min, sigma_max = _wide(sigma_min, sigma_max)
    return _end_at_zero(sigma_max + _ramp(steps) * (sigma_min - sigma_max))


def variance_exploding(steps: int, sigma_min: Scalar = 0.02, sigma_max: Scalar = 100.0) -> Array:
    """Levels of the variance-exploding diffusion: ``sigma ** 2`` geometric (Song et al. 2021; the exponential grid).

    The exponent runs over [0, 1], so that the last level is exactly ``sigma_min``.
    """
    sigma_min, sigma_max = _wide(sigma_min, sigma_max)
    return _end_at_zero(jnp.sqrt(sigma_max**2 * (sigma_min**2 / sigma_max**2) ** _ramp(steps)))


def variance_preserving(
    steps: int, beta_range: Scalar = 19.9, beta_min: Scalar = 0.1, time_min: Scalar = 1e-3
) -> Array:
    """Levels ``sqrt(exp(beta_range t^2 / 2 + beta_min t) - 1)`` of the continuous variance-preserving diffusion."""
    beta_range, beta_min, time_min = _wide(beta_range, beta_min, time_min)
    t = 1.0 + _ramp(steps) * (time_min - 1.0)
    return _end_at_zero(jnp.sqrt(jnp.expm1(0.5 * beta_range * t**2 + beta_min * t)))


def improved_ddpm(steps: int, sigma_min: Scalar = 0.0064, sigma_max: Scalar = 81.0, train_steps: int = 1000) -> Array:
    """Levels of the improved-DDPM cosine schedule, evenly picked by index (Karras et al. 2022, table 1).

    The recursion ``u_{j-1}^2 + 1 = (u_j^2 + 1) / max(abar_{j-1} / abar_j, 1e-3)`` is a cumulative sum of logarithms.
    """
    j = jnp.arange(train_steps + 1)
    alpha_bar = jnp.sin(0.5 * math.pi * j / (train_steps * 1.008)) ** 2
    ratio = jnp.maximum(alpha_bar[:-1] / alpha_bar[1:], 1e-3)
    logs = jnp.append(jnp.cumsum(-jnp.log(ratio)[::-1])[::-1], 0.0)
    levels = jnp.sqrt(jnp.expm1(logs))  # decreasing in j, u_M = 0
    first = jnp.sum(levels > sigma_max)
    last = jnp.sum(levels >= sigma_min) - 1
    index = first + jnp.round(_ramp(steps) * (last - first)).astype(jnp.int32)
    return _end_at_zero(levels[index])


def flow_times(steps: int) -> Array:
    """Evenly spaced flow times from 1 (noise) to 0 (data), ``[steps + 1]``."""
    if steps < 1:
        raise ValueError(f"a sampling grid needs at least one step, got {steps}")
    return jnp.linspace(1.0, 0.0, steps + 1)


# ---------------------------------------------------------------------------------------------------------------------
# Discrete variance-preserving schedules: betas [T], index 0 is the least noise.


def linear_betas(steps: int, first: float = 1e-4, last: float = 0.02) -> Array:
    """Linear betas, both ends scaled by ``1000 / steps``: the published ends belong to 1000 steps (Ho et al. 2020).

    Unscaled, a chain of 100 steps would end at a signal-to-noise ratio of about 0.6 instead of nearly 0.
    Raises ``ValueError`` where the scaled last beta reaches 1; use ``vp_betas`` for so few steps.
    """
    scale = 1000.0 / steps
    if scale * last >= 1.0:
        raise ValueError(f"linear betas need more than {1000 * last:.0f} steps, got {steps}; use vp_betas instead")
    return jnp.linspace(scale * first, scale * last, steps)


def cosine_betas(steps: int, offset: float = 0.008, max_beta: float = 0.999) -> Array:
    """Betas whose ``alpha_bar`` is a squared cosine (Nichol and Dhariwal 2021, equation 17)."""
    u = jnp.arange(steps + 1) / steps
    alpha_bar = jnp.cos((u + offset) / (1 + offset) * 0.5 * math.pi) ** 2
    return jnp.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], max_beta)


def vp_betas(steps: int, beta_min: float = 0.1, beta_max: float = 10.0) -> Array:
    """Betas of the variance-preserving diffusion in few steps, 5 to 20 (Xiao et al. 2022; Diffusion-QL, IDQL)."""
    t = jnp.arange(1, steps + 1)
    log_alpha = -beta_min / steps - 0.5 * (beta_max - beta_min) * (2 * t - 1) / steps**2
    return -jnp.expm1(log_alpha)


def vp_coefficients(betas: Array) -> tuple[Array, Array]:
    """``alpha [T], sigma [T]`` of ``x_t = alpha_t x0 + sigma_t eps``; ``alpha^2 + sigma^2 = 1``."""
    log_alpha_bar = jnp.cumsum(jnp.log1p(-betas))
    return jnp.exp(0.5 * log_alpha_bar), jnp.sqrt(-jnp.expm1(log_alpha_bar))


def vp_sigmas(betas: Array) -> Array:
    """The sampling grid, ``[T + 1]`` decreasing to 0, that visits every level of a discrete schedule."""
    alpha, sigma = vp_coefficients(betas)
    return _end_at_zero((sigma / alpha)[::-1])


# ---------------------------------------------------------------------------------------------------------------------
# Training densities: functions of (key, shape). Bind other settings with functools.partial.


def log_normal(key: Array, shape: tuple[int, ...], mean: float = -1.2, std: float = 1.2) -> Array:
    """``log sigma ~ N(mean, std^2)`` (Karras et al. 2022)."""
    return jnp.exp(mean + std * jax.random.normal(key, shape))


def log_logistic(
    key: Array,
    shape: tuple[int, ...],
    sigma_data: float = 0.5,
    scale: float = 0.5,
    sigma_min: Scalar = 0.002,
    sigma_max: Scalar = 80.0,
) -> Array:
    """``log sigma`` logistic around ``log sigma_data``, truncated to ``[sigma_min, sigma_max]`` (BESO)."""
    center = jnp.log(sigma_data)
    low = jax.nn.sigmoid((jnp.log(sigma_min) - center) / scale)
    high = jax.nn.sigmoid((jnp.log(sigma_max) - center) / scale)
    u = low + (high - low) * jax.random.uniform(key, shape)
    # u can round to 1 in float32 when sigma_max is far out; the level itself is clipped, the logarithm kept finite.
    u = jnp.clip(u, 1e-7, 1 - 1e-7)
    return jnp.clip(jnp.exp(center + scale * (jnp.log(u) - jnp.log1p(-u))), sigma_min, sigma_max)


def log_uniform(key: Array, shape: tuple[int, ...], sigma_min: Scalar = 0.002, sigma_max: Scalar = 80.0) -> Array:
    """``log sigma`` uniform between the logarithms of the limits."""
    low, high = jnp.log(sigma_min), jnp.log(sigma_max)
    return jnp.exp(low + (high - low) * jax.random.uniform(key, shape))


def tangent(
    key: Array,
    shape: tuple[int, ...],
    sigma_data: float = 0.5,
    sigma_min: Scalar = 0.002,
    sigma_max: Scalar = 80.0,
) -> Array:
    """``sigma = sigma_data tan(u pi / 2)`` with ``u`` uniform, truncated to the limits ("v-diffusion")."""
    low, high = jnp.arctan(sigma_min / sigma_data), jnp.arctan(sigma_max / sigma_data)
    return sigma_data * jnp.tan(low + (high - low) * jax.random.uniform(key, shape))


def uniform_time(key: Array, shape: tuple[int, ...]) -> Array:
    """Flow time ``t ~ U(0, 1)``."""
    return jax.random.uniform(key, shape)


def logit_normal_time(key: Array, shape: tuple[int, ...], mean: float = -0.4, std: float = 1.0) -> Array:
    """Flow time ``t = sigmoid(N(mean, std^2))`` (MeanFlow)."""
    return jax.nn.sigmoid(mean + std * jax.random.normal(key, shape))

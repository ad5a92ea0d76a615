"""Solvers for diffusion models.

A solver is ``solver(key, denoise, x, sigmas, **options) -> x`` with ``denoise(x [B, ...], sigma [B]) -> [B, ...]``, the
start ``x = sigmas[0] eps`` and a decreasing grid ``sigmas [steps + 1]`` that ends at 0. Deterministic solvers ignore
the key (None will do). All are one ``lax.scan``, can be vmapped over members and differentiated.

The step to level zero stays outside the scan: inside, behind a ``where``, the infinite ``log(a / 0)`` of the dead
branch makes every gradient NaN. That step is always first order, ``x <- (b / a) x + (1 - b / a) D(x, a)``, which at
``b = 0`` is the denoised ``D`` itself. ``to_zero=False`` is for grids that stop above zero: all steps are then of the
solver's own order.

``guide(x, sigma [B], index) -> dx`` is added before each step but the last (Policy-Guided Diffusion); guidance that
acts on the denoiser instead is in ``guidance``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl_reg.generative.parameterisations import Denoiser
from jaxrl_reg.generative.schedules import vp_coefficients
from jaxrl_reg.generative.shapes import expand

Guide = Callable[[Array, Array, Array], Array]
# Above this many steps the scan body is rematerialised in the backward pass: memory of one step, one more forward. Else
# what its matrix products gave is kept and the rest made again: for every array that is kept, a loop on a GPU begins
# with a copy of zeros, and one activation alone would keep six.
REMATERIALISE_ABOVE = 5


def scan_steps(body: Callable, carry: Any, inputs: Any, steps: int) -> Any:
    """The final carry of ``lax.scan``, rematerialised when long; a scan of no steps costs no compilation."""
    if steps == 0:
        return carry
    kept = None if steps > REMATERIALISE_ABOVE else jax.checkpoint_policies.dots_saveable
    body = jax.checkpoint(body, prevent_cse=False, policy=kept)
    return jax.lax.scan(body, carry, inputs)[0]


def _first_order(denoised: Array, x: Array, a: Array, b: Array) -> Array:
    return (b / a) * x + ((a - b) / a) * denoised


def _solve(step, memory, denoise, x, sigmas, guide, to_zero):
    """Scan ``step(denoise, x, a, b, index, memory) -> (x, memory)`` over the grid."""
    sigmas = jnp.asarray(sigmas)
    if sigmas.ndim != 1 or sigmas.shape[0] < 2:
        raise ValueError(f"sigmas must be [steps + 1] with at least one step, got shape {sigmas.shape}")
    x = x.astype(jnp.result_type(x, sigmas))  # half-precision samples must not make half-precision levels

    def at(x, sigma):
        return denoise(x, jnp.broadcast_to(sigma, x.shape[:1])).astype(x.dtype)

    def body(carry, inputs):
        x, memory = carry
        a, b, index = inputs
        if guide is not None:
            x = x + guide(x, jnp.broadcast_to(a, x.shape[:1]), index)
        return step(at, x, a, b, index, memory), None

    steps = sigmas.shape[0] - 1 - int(to_zero)
    inputs = (sigmas[:steps], sigmas[1 : steps + 1], jnp.arange(steps))
    x, _ = scan_steps(body, (x, memory(x)), inputs, steps)
    if to_zero:
        x = _first_order(at(x, sigmas[-2]), x, sigmas[-2], sigmas[-1])
    return x


def _no_memory(x: Array) -> tuple:
    return ()


def ddim(
    key: Array | None, denoise: Denoiser, x: Array, sigmas: Array, *, guide: Guide | None = None, to_zero: bool = True
) -> Array:
    """First order, one evaluation a step: DDIM (Song et al. 2021), Euler and DPM-Solver++(1) are this one update."""

    def step(at, x, a, b, index, memory):
        return _first_order(at(x, a), x, a, b), memory

    return _solve(step, _no_memory, denoise, x, sigmas, guide, to_zero)


def heun(
    key: Array | None,
    denoise: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    churn: Array | float | None = None,
    churn_min: Array | float = 0.0,
    churn_max: Array | float = math.inf,
    noise_scale: Array | float = 1.0,
    guide: Guide | None = None,
    to_zero: bool = True,
) -> Array:
    """Second order, two evaluations a step (Karras et al. 2022, algorithms 1 and 2).

    With ``churn`` not None (``S_churn``; needs a key) each step first raises a level between ``churn_min`` and
    ``churn_max`` by the factor ``1 + min(churn / steps, sqrt(2) - 1)`` with noise of standard deviation
    ``noise_scale``. Both the Euler step and its correction start from that churned sample.
    """
    if churn is not None and key is None:
        raise ValueError("heun with churn is random and needs a key")
    steps = sigmas.shape[0] - 1

    def step(at, x, a, b, index, memory):
        if churn is not None and key is not None:
            inside = (a >= churn_min) & (a <= churn_max)
            gamma = jnp.where(inside, jnp.minimum(churn / steps, math.sqrt(2) - 1), 0.0)
            # sqrt has an infinite slope at 0, so its argument is kept away from it where nothing is added.
            added = jnp.where(gamma > 0, jnp.sqrt(jnp.where(gamma > 0, gamma * (2 + gamma), 1.0)), 0.0)
            noise = jax.random.normal(jax.random.fold_in(key, index), x.shape, x.dtype)
            x = x + a * added * noise_scale * noise
            a = a * (1 + gamma)
        slope = (x - at(x, a)) / a
        y = x + (b - a) * slope
        return x + (b - a) * 0.5 * (slope + (y - at(y, b)) / b), memory

    return _solve(step, _no_memory, denoise, x, sigmas, guide, to_zero)


def dpm_2(
    key: Array | None, denoise: Denoiser, x: Array, sigmas: Array, *, guide: Guide | None = None, to_zero: bool = True
) -> Array:
    """Second order, two evaluations a step: the midpoint rule with the midpoint in ``log sigma`` (DPM-Solver-2)."""

    def step(at, x, a, b, index, memory):
        middle = jnp.sqrt(a * b)
        y = x + (middle - a) * (x - at(x, a)) / a
        return x + (b - a) * (y - at(y, middle)) / middle, memory

    return _solve(step, _no_memory, denoise, x, sigmas, guide, to_zero)


def dpmpp_2s(
    key: Array | None, denoise: Denoiser, x: Array, sigmas: Array, *, guide: Guide | None = None, to_zero: bool = True
) -> Array:
    """Second order, two evaluations a step: DPM-Solver++(2S) (Lu et al. 2022)."""

    def step(at, x, a, b, index, memory):
        middle = jnp.sqrt(a * b)
        y = _first_order(at(x, a), x, a, middle)
        return _first_order(at(y, middle), x, a, b), memory

    return _solve(step, _no_memory, denoise, x, sigmas, guide, to_zero)


def dpmpp_2m(
    key: Array | None, denoise: Denoiser, x: Array, sigmas: Array, *, guide: Guide | None = None, to_zero: bool = True
) -> Array:
    """Second order from one evaluation a step and the previous one: DPM-Solver++(2M) (Lu et al. 2022)."""

    def step(at, x, a, b, index, memory):
        previous, previous_h = memory
        denoised = at(x, a)
        h = jnp.log(a / b)
        weight = jnp.where(index > 0, 0.5 * h / previous_h, 0.0)
        extrapolated = (1 + weight) * denoised - weight * previous
        return _first_order(extrapolated, x, a, b), (denoised, h)

    def memory(x):
        return jnp.zeros_like(x), jnp.ones((), jnp.result_type(sigmas))

    return _solve(step, memory, denoise, x, sigmas, guide, to_zero)


def euler_ancestral(
    key: Array | None,
    denoise: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    eta: Array | float = 1.0,
    temperature: Array | float = 1.0,
    guide: Guide | None = None,
    to_zero: bool = True,
) -> Array:
    """A step below the level and fresh noise up to it; ``eta = 1`` is exactly DDPM with the posterior variance.

    ``eta = 0`` is ``ddim``. ``temperature`` scales the fresh noise only.
    """
    if key is None:
        raise ValueError("euler_ancestral is random and needs a key")

    def step(at, x, a, b, index, memory):
        up = jnp.minimum(b, eta * b * jnp.sqrt((a - b) * (a + b)) / a)
        down = jnp.sqrt(jnp.maximum(b**2 - up**2, 1e-30))
        noise = jax.random.normal(jax.random.fold_in(key, index), x.shape, x.dtype)
        return _first_order(at(x, a), x, a, down) + temperature * up * noise, memory

    return _solve(step, _no_memory, denoise, x, sigmas, guide, to_zero)


SAMPLERS: dict[str, Callable[..., Array]] = {
    "ddim": ddim,
    "euler": ddim,
    "dpmpp_1": ddim,
    "heun": heun,
    "dpm_2": dpm_2,
    "dpmpp_2s": dpmpp_2s,
    "dpmpp_2m": dpmpp_2m,
    "euler_ancestral": euler_ancestral,
}


def sample(
    key: Array | None, denoise: Denoiser, x: Array, sigmas: Array, *, method: str = "ddim", **options: Any
) -> Array:
    """Run the solver called ``method`` (see ``SAMPLERS``). Raises ``ValueError`` for an unknown name."""
    if method not in SAMPLERS:
        raise ValueError(f"unknown sampler {method!r}; known: {', '.join(SAMPLERS)}")
    return SAMPLERS[method](key, denoise, x, sigmas, **options)


# ---------------------------------------------------------------------------------------------------------------------
# The discrete chain in variance-preserving coordinates.


def ddpm_posterior(x0: Array, x: Array, t: Array, betas: Array, variance: str = "small") -> tuple[Array, Array]:
    """Mean ``[B, ...]`` and variance ``[B]`` of ``x_{t-1}`` given ``x_t`` and ``x0`` (Ho et al. 2020, equations 6 and
    7).

    ``t [B]`` (or a scalar) counts from 0, the least noise, where the mean is ``x0``. ``variance`` is "small" (the
    posterior's, ``beta (1 - abar_{t-1}) / (1 - abar_t)``, 0 at ``t = 0``) or "large" (``beta``, which Diffusion-QL's
    and IDQL's JAX code add). Raises ``ValueError`` for another name.
    """
    if variance not in ("small", "large"):
        raise ValueError(f"unknown variance {variance!r}; known: small, large")
    betas = jnp.asarray(betas)
    alpha, sigma = vp_coefficients(betas)
    alpha_before = jnp.append(1.0, alpha[:-1])[t]
    sigma_before = jnp.append(0.0, sigma[:-1])[t]
    beta, sigma_now = betas[t], sigma[t]
    mean = (
        expand(alpha_before * beta / sigma_now**2, x) * x0
        + expand(jnp.sqrt(1 - beta) * sigma_before**2 / sigma_now**2, x) * x
    )
    return mean, beta * (sigma_before / sigma_now) ** 2 if variance == "small" else beta


def ddpm(
    key: Array,
    predict: Denoiser,
    x: Array,
    betas: Array,
    *,
    variance: str = "small",
    temperature: Array | float = 1.0,
    clip_denoised: float | None = None,
    clip_sample: float | None = None,
    guide: Guide | None = None,
) -> Array:
    """The ancestral chain of a discrete schedule ``betas [T]``, from ``x ~ N(0, I)``; no noise at the last step.

    ``predict(x_t [B, ...], t [B] int32) -> x0`` comes from ``vp_predictor``. ``temperature`` scales the noise.
    ``clip_denoised`` bounds every ``x0`` estimate (Diffusion-QL), ``clip_sample`` every ``x_t`` after its step (IDQL);
    neither suits data outside those bounds, such as standardised actions. ``guide(x, t [B], index)`` acts as elsewhere.
    """
    steps = betas.shape[0]
    x = x.astype(jnp.result_type(x, betas))

    def estimate(x, t):
        x0 = predict(x, jnp.broadcast_to(t, x.shape[:1])).astype(x.dtype)
        return x0 if clip_denoised is None else jnp.clip(x0, -clip_denoised, clip_denoised)

    def clipped(x):
        return x if clip_sample is None else jnp.clip(x, -clip_sample, clip_sample)

    def body(x, inputs):
        t, index = inputs
        if guide is not None:
            x = x + guide(x, jnp.broadcast_to(t, x.shape[:1]), index)
        mean, var = ddpm_posterior(estimate(x, t), x, t, betas, variance)
        noise = jax.random.normal(jax.random.fold_in(key, index), x.shape, x.dtype)
        return clipped(mean + temperature * jnp.sqrt(var) * noise), None

    # At t = 0 the mean is x0 itself and the posterior variance 0, where sqrt has no slope: outside the scan.
    x = scan_steps(body, x, (jnp.arange(steps - 1, 0, -1), jnp.arange(steps - 1)), steps - 1)
    return clipped(estimate(x, jnp.zeros((), jnp.int32)))

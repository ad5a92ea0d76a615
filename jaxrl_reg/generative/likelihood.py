"""Log densities, where they are exact.

A deterministic flow has the density of its output up to the error of the integrator. A stochastic chain has the density
of its whole path, which is a valid ratio for PPO but not the density of the last sample. One-step maps (MeanFlow,
shortcut, consistency, distilled students) have none: regularise those by distillation, moments or the training loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl_reg.generative.flows import runge_kutta_step
from jaxrl_reg.generative.parameterisations import Denoiser, Velocity
from jaxrl_reg.generative.samplers import ddpm_posterior, scan_steps
from jaxrl_reg.generative.shapes import example_sum, expand

# The exact trace costs one tangent per dimension; above this many the Hutchinson estimate is the sensible choice.
EXACT_DIVERGENCE_LIMIT = 32


def normal_log_prob(x: Array, mean: Array | float, std: Array | float) -> Array:
    """``log N(x; mean, std^2)`` summed over all but the batch, ``[B]``; ``std`` is a scalar, ``[B]`` or like ``x``."""
    std = jnp.broadcast_to(expand(std, x) if jnp.ndim(std) <= 1 else std, x.shape)
    return example_sum(-0.5 * jnp.square((x - mean) / std) - jnp.log(std) - 0.5 * math.log(2 * math.pi))


def divergence(field: Callable[[Array], Array], x: Array, key: Array | None = None) -> tuple[Array, Array]:
    """``field(x) [B, D]`` and its divergence ``[B]``, for fields that treat rows independently.

    Exact (``D`` tangents) without a key; with one, Hutchinson's unbiased estimate from one random sign vector.
    Raises ``ValueError`` for exact divergences in more than 32 dimensions.
    """
    if x.ndim != 2:
        raise ValueError(f"divergence needs samples [B, D], got shape {x.shape}")
    if key is not None:
        probe = jax.random.rademacher(key, x.shape, x.dtype)
        value, tangent = jax.jvp(field, (x,), (probe,))
        return value, jnp.sum(probe * tangent, axis=1)
    dimensions = x.shape[1]
    if dimensions > EXACT_DIVERGENCE_LIMIT:
        raise ValueError(f"the exact divergence of {dimensions} dimensions is dear; give a key for an estimate")
    value, push = jax.linearize(field, x)
    directions = jnp.broadcast_to(jnp.eye(dimensions, dtype=x.dtype)[:, None], (dimensions, *x.shape))
    return value, jnp.einsum("ibi->b", jax.vmap(push)(directions))


def _integrate_density(field, x, grid, method, key):
    """Carry ``(x, integral of the divergence)`` through ``grid``; one probe per path, so that the field is smooth."""

    def augmented(state, t):
        return divergence(lambda x: field(x, jnp.broadcast_to(t, x.shape[:1])), state[0], key)

    def body(state, inputs):
        t, following = inputs
        return runge_kutta_step(method, augmented, state, t, following - t), None

    x = x.astype(jnp.result_type(x, grid))
    start = (x, jnp.zeros(x.shape[0], x.dtype))
    return scan_steps(body, start, (grid[:-1], grid[1:]), grid.shape[0] - 1)


def flow_log_prob(
    velocity: Velocity, x0: Array, times: Array, *, method: str = "rk4", key: Array | None = None
) -> Array:
    """``log p(x0) [B] = log N(z_1) + integral of div v`` over ``times [steps + 1]``, the sampler's grid from 1 to 0.

    Exact up to the integrator; with a key the divergence is estimated. On a two-mode mixture, RK4 errs by 1e-4 at 50
    steps and by 1e-1 at 10.
    """
    z, integral = _integrate_density(velocity, x0, jnp.asarray(times)[::-1], method, key)
    return normal_log_prob(z, 0.0, 1.0) + integral


def diffusion_log_prob(
    denoise: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    prior_std: Array | float | None = None,
    method: str = "rk4",
    key: Array | None = None,
) -> Array:
    """Log density ``[B]`` that the probability-flow ODE gives to ``x`` at the lowest positive level of ``sigmas``.

    ``sigmas [steps + 1]`` is a sampling grid ending at 0. The prior is ``N(0, prior_std^2)``, by default ``sigmas[0]``,
    which is what sampling starts from. Integrated in ``log sigma``, where ``dx = (x - D) dlog sigma``.
    """
    levels = jnp.log(sigmas[:-1][::-1])

    def field(x, log_sigma):
        return x - denoise(x, jnp.exp(log_sigma))

    x, integral = _integrate_density(field, x, levels, method, key)
    return normal_log_prob(x, 0.0, sigmas[0] if prior_std is None else prior_std) + integral


# ---------------------------------------------------------------------------------------------------------------------
# Stochastic chains: one description of a step serves sampling and density, so the two cannot use different grids.

Transition = Callable[[Array, Array], tuple[Array, Array]]


def flow_transition(velocity: Velocity, std: Callable[[Array, Array], Array], times: Array) -> Transition:
    """``transition(z, index) -> (mean, std)`` of Euler's step with injected noise ``std(z, t)`` (ReinFlow)."""
    times = jnp.asarray(times)

    def transition(z: Array, index: Array) -> tuple[Array, Array]:
        t, following = times[index], times[index + 1]
        now = jnp.broadcast_to(t, z.shape[:1])
        return z + (following - t) * velocity(z, now), jnp.broadcast_to(std(z, now), z.shape)

    return transition


def ddpm_transition(
    predict: Denoiser, betas: Array, *, variance: str = "small", min_std: Array | float = 0.0
) -> Transition:
    """``transition(x, index) -> (mean, std)`` of the discrete chain; ``index`` counts steps taken, from 0.

    With "small" variance the last step has no noise and no density: give ``min_std`` (DPPO), or leave that step out.
    """
    steps = betas.shape[0]

    def transition(x: Array, index: Array) -> tuple[Array, Array]:
        t = steps - 1 - index
        mean, var = ddpm_posterior(predict(x, jnp.broadcast_to(t, x.shape[:1])), x, t, betas, variance)
        # sqrt has no slope at 0, where the last step of the small variance is.
        std = jnp.where(var > 0, jnp.sqrt(jnp.where(var > 0, var, 1.0)), 0.0)
        return mean, jnp.broadcast_to(jnp.maximum(std, min_std), x.shape)

    return transition


def sample_chain(key: Array, transition: Transition, x: Array, steps: int) -> Array:
    """The whole path ``[steps + 1, B, ...]`` from ``x``; its last entry is the sample."""

    def body(x, index):
        mean, std = transition(x, index)
        following = mean + std * jax.random.normal(jax.random.fold_in(key, index), x.shape, x.dtype)
        return following, following

    _, path = jax.lax.scan(body, x, jnp.arange(steps))
    return jnp.concatenate([x[None], path])


def chain_log_prob(transition: Transition, path: Array, *, prior: bool = True) -> Array:
    """Joint log density ``[B]`` of a path from ``sample_chain``, the ``N(0, I)`` start included unless ``prior=False``.

    Holds for the unclipped path only: noise or actions clipped afterwards are not in it. Divide by steps and dimensions
    before clamping if an algorithm asks for that.
    """

    def step(index, x, following):
        mean, std = transition(x, index)
        return normal_log_prob(following, mean, std)

    steps = path.shape[0] - 1
    total = jax.vmap(step)(jnp.arange(steps), path[:-1], path[1:]).sum(axis=0)
    return total + normal_log_prob(path[0], 0.0, 1.0) if prior else total

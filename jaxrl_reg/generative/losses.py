"""Training losses of diffusion and flow models.

Each takes a key, a field with its parameters and conditions closed over, and clean samples ``x0 [B, ...]``; each
returns ``(loss [B], aux)``. The loss of an example is the mean over its dimensions (the sum for MeanFlow, whose
adaptive weight is scaled for sums); the caller weights and averages. ``aux["x0"]`` is the clean sample the prediction
stands for, which is what one-step methods such as EDP feed to a critic, and ``aux["level"]`` the sigma, step or time
drawn.

Wrong shapes raise ``ValueError``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl_reg.generative import schedules
from jaxrl_reg.generative.flows import interpolate
from jaxrl_reg.generative.parameterisations import (
    AverageVelocity,
    Denoiser,
    Velocity,
    edm_preconditioning,
    to_x0,
    training_target,
)
from jaxrl_reg.generative.shapes import example_mean, example_sum, expand, same_shape

Density = Callable[[Array, tuple[int, ...]], Array]
Aux = dict[str, Array]


def ddpm_loss(
    key: Array, network: Callable[[Array, Array], Array], x0: Array, betas: Array, *, target: str = "eps"
) -> tuple[Array, Aux]:
    """Unweighted denoising loss of a discrete schedule (Ho et al. 2020, equation 14).

    ``network(x_t [B, ...], t [B] int32)`` with ``t`` uniform in ``0 .. T - 1`` predicts ``target``: "eps", "x0", "v",
    "velocity" or "score".
    """
    key_t, key_eps = jax.random.split(key)
    t = jax.random.randint(key_t, x0.shape[:1], 0, betas.shape[0])
    eps = jax.random.normal(key_eps, x0.shape, x0.dtype)
    alpha, sigma = (c[t] for c in schedules.vp_coefficients(betas))
    x = expand(alpha, x0) * x0 + expand(sigma, x0) * eps
    prediction = network(x, t)
    wanted = training_target(target, x0, eps, alpha, sigma)
    same_shape("prediction", prediction, wanted)
    aux = {"x0": to_x0(target, prediction, x, alpha, sigma), "level": t}
    return example_mean(jnp.square(prediction - wanted)), aux


def edm_loss(
    key: Array,
    network: Callable[[Array, Array], Array],
    x0: Array,
    *,
    density: Density = schedules.log_normal,
    sigma_data: Array | float = 0.5,
    level_axes: int = 1,
    mask: Array | None = None,
) -> tuple[Array, Aux]:
    """Squared error of the raw network under EDM preconditioning (Karras et al. 2022, equation 8).

    ``network(scaled x [B, ...], log(sigma) / 4 [B])`` is what ``edm_denoiser`` takes. ``level_axes = 2`` draws one
    level per token ``[B, W]``, which a model needs that will be in-painted.
    """
    key_sigma, key_eps = jax.random.split(key)
    sigma = density(key_sigma, x0.shape[:level_axes])
    c = edm_preconditioning(sigma, sigma_data)
    eps = jax.random.normal(key_eps, x0.shape, x0.dtype)
    x = x0 + expand(sigma, x0) * eps
    prediction = network(expand(c.scale, x) * x, c.noise)
    same_shape("prediction", prediction, x0)
    # (x0 - skip x) / out, rearranged: at small sigma the difference of nearly equal numbers would lose its digits.
    total = expand(c.scale, x)
    wanted = total * (expand(sigma / sigma_data, x) * x0 - sigma_data * eps)
    aux = {"x0": expand(c.skip, x) * x + expand(c.out, x) * prediction, "level": sigma}
    error = jnp.square(prediction - wanted)
    if mask is None:
        return example_mean(error), aux
    counted = jnp.broadcast_to(expand(mask, error), error.shape)
    return example_sum(counted * error) / jnp.maximum(example_sum(counted), 1.0), aux


def flow_matching_loss(
    key: Array,
    velocity: Velocity,
    x0: Array,
    *,
    eps: Array | None = None,
    density: Density = schedules.uniform_time,
) -> tuple[Array, Aux]:
    """Regression on ``eps - x0`` along straight paths (Lipman et al. 2023; Liu et al. 2023).

    Reflow: give the ``eps [B, ...]`` that the current flow carries to ``x0``.
    """
    key_t, key_eps = jax.random.split(key)
    t = density(key_t, x0.shape[:1])
    if eps is None:
        eps = jax.random.normal(key_eps, x0.shape, x0.dtype)
    same_shape("eps", eps, x0)
    z = interpolate(x0, eps, t)
    prediction = velocity(z, t)
    same_shape("velocity", prediction, x0)
    aux = {"x0": z - expand(t, z) * prediction, "level": t}
    return example_mean(jnp.square(prediction - (eps - x0))), aux


def meanflow_residual(
    average_velocity: AverageVelocity, z: Array, r: Array, t: Array, velocity: Array
) -> tuple[Array, Array]:
    """Prediction and target of the MeanFlow identity ``u = v - (t - r) du/dt`` (Geng et al. 2025, equation 6).

    ``du/dt`` is the total derivative along the path, tangent ``(v, 0, 1)`` in ``(z, r, t)``: the tangent of ``r`` is 0
    even when the network is fed ``t - r``. The target carries no gradient.
    """
    return _meanflow_residual(lambda *inputs: (average_velocity(*inputs), ()), z, r, t, velocity)[:2]


def _meanflow_residual(field: Callable[..., tuple[Array, Any]], z: Array, r: Array, t: Array, velocity: Array):
    """Prediction, target and features, of a field that gives ``(u, features)``."""
    same_shape("velocity", velocity, z)
    tangents = velocity, jnp.zeros_like(r), jnp.ones_like(t)
    u, slope, features = jax.jvp(field, (z, r, t), tangents, has_aux=True)
    same_shape("average velocity", u, z)
    target = velocity - expand(jnp.clip(t - r, 0.0, 1.0), z) * slope
    return u, jax.lax.stop_gradient(target), features


def meanflow_loss(
    key: Array,
    average_velocity: AverageVelocity,
    x0: Array,
    *,
    equal_fraction: Array | float = 0.75,
    power: Array | float = 1.0,
    offset: Array | float = 0.01,
    density: Density = schedules.logit_normal_time,
    guided: Callable[[Array, Array, Array], Array] | None = None,
    features: bool = False,
) -> tuple[Array, Aux]:
    """MeanFlow: learn the average velocity, sample in one step (Geng et al. 2025).

    A row has ``r = t`` (plain flow matching) with probability ``equal_fraction``. With ``e`` the summed squared error,
    the loss is ``e / sg(e + offset) ** power``; ``power = 0`` is plain squared error, which learns one-step sampling
    far more slowly. ``guided(z, t, v) -> v`` replaces the velocity of the path (see ``guided_velocity``).
    ``aux["squared_error"] [B]`` is ``e``. With ``features`` the field gives ``(u, features)``, and ``aux["features"]``
    are those of the same pass, for losses on what the network computes on its way. Give the network low frequencies of
    ``t`` and ``r``: the loss differentiates through its time embedding.
    """
    key_a, key_b, key_equal, key_eps = jax.random.split(key, 4)
    rows = x0.shape[:1]
    a, b = density(key_a, rows), density(key_b, rows)
    t, r = jnp.maximum(a, b), jnp.minimum(a, b)
    r = jnp.where(jax.random.uniform(key_equal, rows) < equal_fraction, t, r)
    eps = jax.random.normal(key_eps, x0.shape, x0.dtype)
    z, v = interpolate(x0, eps, t), eps - x0
    if guided is not None:
        v = jax.lax.stop_gradient(guided(z, t, v))
    field: Any = average_velocity if features else lambda *inputs: (average_velocity(*inputs), ())
    u, target, seen = _meanflow_residual(field, z, r, t, v)
    error = example_sum(jnp.square(u - target))
    loss = error / jax.lax.stop_gradient((error + offset) ** power)
    aux = {"x0": z - expand(t, z) * u, "level": t, "squared_error": error}
    return loss, aux | {"features": seen} if features else aux


def guided_velocity(
    conditional: Velocity,
    unconditional: Velocity,
    *,
    omega: Array | float = 1.0,
    kappa: Array | float = 0.5,
    dropped: Array | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Callable[[Array, Array, Array], Array]:
    """The guided target of MeanFlow: ``omega v + (1 - omega - kappa) u_null + kappa u_cond`` (Geng et al. 2025,
    section 4.2).

    Both velocities are the average velocity at ``r = t``. Rows whose condition was ``dropped [B]`` and times outside
    ``interval`` keep the plain ``v``.
    """

    def guided(z: Array, t: Array, v: Array) -> Array:
        mixed = omega * v + (1 - omega - kappa) * unconditional(z, t) + kappa * conditional(z, t)
        keep = (t < interval[0]) | (t > interval[1])
        if dropped is not None:
            keep = keep | dropped.astype(bool)
        return jnp.where(expand(keep, v), v, mixed)

    return guided


def shortcut_loss(
    key: Array,
    average_velocity: AverageVelocity,
    x0: Array,
    *,
    max_level: int = 7,
    bootstrap_fraction: float = 0.125,
    flow_step: float = 0.0,
    target: AverageVelocity | None = None,
    clip: float | None = None,
) -> tuple[Array, Aux]:
    """Shortcut models: two half steps teach one whole step (Frans et al. 2025, equation 5).

    The first ``round(bootstrap_fraction B)`` rows draw a level ``k`` in ``0 .. max_level - 1``, ``d = 2 ** -k``, a
    time on the grid ``{d, 2 d, .., 1}``, and regress ``u(z, t - d, t)`` on the mean of two steps of ``d / 2`` by
    ``target`` (an averaged copy as in the original, the model itself by default; no gradient). The others do flow
    matching at step ``flow_step``: 0 as in ReinFlow, ``2 ** -max_level`` as in the original. ``clip`` bounds the
    sample between the half steps. Rows are in no particular order, so that the split is not a bias.
    """
    if max_level < 1:
        raise ValueError(f"shortcut_loss needs max_level >= 1, got {max_level}")
    target = average_velocity if target is None else target
    key_level, key_grid, key_t, key_eps = jax.random.split(key, 4)
    batch = x0.shape[0]
    rows = round(bootstrap_fraction * batch)
    eps = jax.random.normal(key_eps, x0.shape, x0.dtype)

    d = 2.0 ** -jax.random.randint(key_level, (rows,), 0, max_level).astype(x0.dtype)
    t_grid = d * (1 + jnp.floor(jax.random.uniform(key_grid, (rows,), x0.dtype) / d))
    z_grid = interpolate(x0[:rows], eps[:rows], t_grid)
    half = 0.5 * d
    first = target(z_grid, t_grid - half, t_grid)
    same_shape("average velocity", first, z_grid)
    middle = z_grid - expand(half, z_grid) * first
    if clip is not None:
        middle = jnp.clip(middle, -clip, clip)
    second = target(middle, t_grid - d, t_grid - half)
    bootstrap = jax.lax.stop_gradient(0.5 * (first + second))

    t_flow = jax.random.uniform(key_t, (batch - rows,), x0.dtype)
    if flow_step:  # times on the finest grid, so that t - flow_step stays a time
        t_flow = flow_step * (1 + jnp.floor(t_flow / flow_step))
    t = jnp.concatenate([t_grid, t_flow])
    r = jnp.concatenate([t_grid - d, t_flow - flow_step])
    wanted = jnp.concatenate([bootstrap, (eps - x0)[rows:]])
    z = interpolate(x0, eps, t)
    prediction = average_velocity(z, r, t)
    same_shape("average velocity", prediction, x0)
    return example_mean(jnp.square(prediction - wanted)), {"x0": z - expand(t, z) * prediction, "level": t}


def consistency_loss(
    key: Array,
    student: Denoiser,
    x0: Array,
    levels: Array,
    *,
    target: Denoiser | None = None,
    teacher: Denoiser | None = None,
    distance: str = "squared",
    weight: Callable[[Array, Array], Array] | None = None,
) -> tuple[Array, Aux]:
    """Consistency training, or distillation when a ``teacher`` denoiser is given (Song et al. 2023, equations 7 and
    10).

    ``levels [N]`` are positive and decreasing (``karras(N)[:-1]``); a row compares ``student`` at level ``n`` with
    ``target`` (an averaged copy; the student by default; no gradient) at level ``n + 1``, reached by one Heun step of
    the teacher, or with the true ``x0`` and the same noise. ``distance`` is "squared" (mean over dimensions) or
    "pseudo_huber" (``sqrt(|d|^2 + c^2) - c`` with ``c = 0.00054 sqrt(dimensions)``). ``weight(sigma, next sigma) ->
    [B]``.
    """
    if distance not in ("squared", "pseudo_huber"):
        raise ValueError(f"unknown distance {distance!r}; known: squared, pseudo_huber")
    key_n, key_eps = jax.random.split(key)
    target = student if target is None else target
    levels = jnp.asarray(levels)
    n = jax.random.randint(key_n, x0.shape[:1], 0, levels.shape[0] - 1)
    high, low = levels[n], levels[n + 1]
    eps = jax.random.normal(key_eps, x0.shape, x0.dtype)
    x = x0 + expand(high, x0) * eps
    if teacher is None:
        below = x0 + expand(low, x0) * eps
    else:

        def slope(x: Array, sigma: Array) -> Array:
            return (x - teacher(x, sigma)) / expand(sigma, x)

        first = slope(x, high)
        gap = expand(low - high, x)
        below = x + gap * 0.5 * (first + slope(x + gap * first, low))
    below = jax.lax.stop_gradient(below)
    prediction = student(x, high)
    same_shape("prediction", prediction, x0)
    error = prediction - jax.lax.stop_gradient(target(below, low))
    if distance == "squared":
        loss = example_mean(jnp.square(error))
    else:
        c = 0.00054 * math.sqrt(math.prod(x0.shape[1:]))
        loss = jnp.sqrt(example_sum(jnp.square(error)) + c**2) - c
    return loss if weight is None else weight(high, low) * loss, {"x0": prediction, "level": high}


def consistency_curriculum(
    step: int, total_steps: int, *, first: int = 2, last: int = 150, decay: float = 0.9
) -> tuple[int, float]:
    """Number of levels and target decay at a training step (Song et al. 2023, appendix C), on the host.

    The number of levels is a shape, so each new value compiles once more.
    """
    grown = step / total_steps * ((last + 1) ** 2 - first**2) + first**2
    levels = math.ceil(math.sqrt(grown) - 1) + 1
    return levels, math.exp(first * math.log(decay) / levels)

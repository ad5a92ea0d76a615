"""Flows: ``z = (1 - t) x0 + t eps``, noise at ``t = 1``, data at ``t = 0``, velocity ``eps - x0``, integrated
downwards.

A velocity is ``velocity(z [B, ...], t [B])``; an average velocity ``u(z, r [B], t [B])`` with ``r <= t`` jumps from
``t`` to ``r`` by ``z - (t - r) u``. A shortcut model ``s(z, t, d)`` is the average velocity ``u(z, t - d, t)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl_reg.generative.parameterisations import AverageVelocity, Velocity
from jaxrl_reg.generative.samplers import Guide, scan_steps
from jaxrl_reg.generative.shapes import expand

METHODS = ("euler", "midpoint", "heun", "rk4")


def interpolate(x0: Array, eps: Array, t: Array) -> Array:
    """``(1 - t) x0 + t eps`` for ``t [B]``."""
    t = expand(t, x0)
    return (1 - t) * x0 + t * eps


def runge_kutta_step(method: str, field: Callable[[Any, Array], Any], y: Any, t: Array, dt: Array) -> Any:
    """One explicit step of ``dy/dt = field(y, t)`` on a pytree; raises ``ValueError`` for an unknown method."""

    def ahead(fraction, slope):
        return jax.tree.map(lambda leaf, s: leaf + fraction * dt * s, y, slope)

    if method not in METHODS:
        raise ValueError(f"unknown integrator {method!r}; known: {', '.join(METHODS)}")
    k1 = field(y, t)
    if method == "euler":
        return ahead(1.0, k1)
    if method == "midpoint":
        return ahead(1.0, field(ahead(0.5, k1), t + 0.5 * dt))
    if method == "heun":
        k2 = field(ahead(1.0, k1), t + dt)
        return ahead(1.0, jax.tree.map(lambda a, b: 0.5 * (a + b), k1, k2))
    k2 = field(ahead(0.5, k1), t + 0.5 * dt)
    k3 = field(ahead(0.5, k2), t + 0.5 * dt)
    k4 = field(ahead(1.0, k3), t + dt)
    return ahead(1.0, jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4))


def integrate(
    velocity: Velocity,
    z: Array,
    times: Array,
    *,
    method: str = "euler",
    guide: Guide | None = None,
    last_euler: bool = False,
) -> Array:
    """Carry ``z [B, ...]`` along the flow through ``times [steps + 1]`` (``flow_times(steps)`` for noise to data).

    ``method`` is "euler", "midpoint", "heun" or "rk4". ``last_euler`` makes the last step first order, for velocities
    that are singular at ``t = 0`` such as those of a denoiser. ``guide(z, t [B], index) -> dz`` is added before a step.
    """
    times = jnp.asarray(times)
    z = z.astype(jnp.result_type(z, times))

    def field(z, t):
        return velocity(z, jnp.broadcast_to(t, z.shape[:1])).astype(z.dtype)

    def body(z, inputs):
        (t, dt), index = inputs
        if guide is not None:
            z = z + guide(z, jnp.broadcast_to(t, z.shape[:1]), index)
        return runge_kutta_step(method, field, z, t, dt), None

    steps = times.shape[0] - 1 - int(last_euler)
    grid = jnp.stack([times[:steps], jnp.diff(times)[:steps]], axis=1)  # one array: read by one launch of a GPU
    z = scan_steps(body, z, (grid, jnp.arange(steps)), steps)
    if last_euler:
        z = runge_kutta_step("euler", field, z, times[-2], times[-1] - times[-2])
    return z


def jump(average_velocity: AverageVelocity, z: Array, times: Array, *, guide: Guide | None = None) -> Array:
    """Sample by average velocities, ``z <- z - (t - r) u(z, r, t)``: MeanFlow in one step, shortcut models in a few."""
    times = jnp.asarray(times)
    z = z.astype(jnp.result_type(z, times))

    def body(z, inputs):
        t, r, index = inputs
        now, then = jnp.broadcast_to(t, z.shape[:1]), jnp.broadcast_to(r, z.shape[:1])
        if guide is not None:
            z = z + guide(z, now, index)
        return z - (t - r) * average_velocity(z, then, now).astype(z.dtype), None

    steps = times.shape[0] - 1
    return scan_steps(body, z, (times[:-1], times[1:], jnp.arange(steps)), steps)


def clip_each_step(low: float, high: float) -> Guide:
    """A guide that keeps every intermediate sample in a box, the starting noise excepted.

    This is what ReinFlow and DM1 do; the result no longer solves the differential equation. Clipping the denoiser
    (``guidance.clip``) or the output alone does not have that flaw.
    """

    def guide(z: Array, t: Array, index: Array) -> Array:
        return jnp.where(index > 0, jnp.clip(z, low, high) - z, 0.0)

    return guide

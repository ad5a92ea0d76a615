"""Walks through a latent space that follow the gradient of a potential, and what they need: its derivatives.

A potential is ``u(z [B, D], t [B]) -> [B]`` with its parameters closed over, each row by itself. It must be smooth: a
ReLU network has no second derivatives, so every equation in them holds and says nothing. Source: Song et al., 2023,
Latent Traversals in Generative Models as Potential Flows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl_reg.generative.likelihood import divergence
from jaxrl_reg.generative.shapes import example_sum

Potential = Callable[[Array, Array], Array]


class Derivatives(NamedTuple):
    """Of a potential at ``B`` points: ``gradient`` is ``[B, D]``, the rest ``[B]``."""

    gradient: Array
    laplacian: Array
    time_slope: Array
    time_curvature: Array


def potential_gradient(potential: Potential, z: Array, t: Array) -> Array:
    """``grad_z u``, ``[B, D]``, at ``z [B, D]`` and ``t [B]``: the velocity of the flow."""
    return jax.grad(lambda z: potential(z, t).sum())(z)


def derivatives(potential: Potential, z: Array, t: Array, key: Array | None = None) -> Derivatives:
    """All that the wave and Hamilton-Jacobi equations ask of a potential at ``z [B, D]`` and ``t [B]``.

    The Laplacian is exact without a key and Hutchinson's unbiased estimate with one, for more than 32 dimensions (see
    ``divergence``). Time derivatives are exact. Raises ``ValueError`` where ``z`` is not ``[B, D]``.
    """
    gradient, laplacian = divergence(lambda z: potential_gradient(potential, z, t), z, key)

    def slope(t):
        return jax.jvp(lambda t: potential(z, t), (t,), (jnp.ones_like(t),))[1]

    time_slope, time_curvature = jax.jvp(slope, (t,), (jnp.ones_like(t),))
    return Derivatives(gradient, laplacian, time_slope, time_curvature)


def traverse(potential: Potential, z: Array, times: Array, sign: Array | float = 1.0) -> Array:
    """The walk ``z <- z + sign grad u(z, t)`` through ``times [T]``, from ``z [B, D]``: ``[T + 1, B, D]``.

    One step per time, as long as the gradient: the potential's own scale sets the pace. ``sign`` is 1, or -1 to walk
    back, a scalar or ``[B]``.
    """
    sign = jnp.broadcast_to(jnp.asarray(sign, z.dtype), z.shape[:1])[:, None]

    def body(z, t):
        following = z + sign * potential_gradient(potential, z, jnp.broadcast_to(t, z.shape[:1]))
        return following, following

    _, path = jax.lax.scan(body, z, jnp.asarray(times, z.dtype))
    return jnp.concatenate([z[None], path])


def jvp_energy(generator: Callable[[Array], Array], z: Array, direction: Array) -> Array:
    """``|J direction|^2``, ``[B]``: how much the output of ``generator`` changes along ``direction [B, D]`` at ``z``.

    One forward-mode product; the Jacobian is never formed. Maximising it is unbounded: whoever does must bound the
    direction.
    """
    return example_sum(jnp.square(jax.jvp(generator, (z,), (direction,))[1]))

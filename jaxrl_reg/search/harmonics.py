"""Places in the plane as phases of waves of several lengths: displacements that are both unambiguous and exact.

A code is ``[S, 3, 2]``: cosine and sine of ``2 pi u_j . x / wavelength`` for ``S`` wavelengths and three directions at
0, 60 and 120 degrees, as grid cells have them. Long waves say roughly where, short ones exactly; together noise of the
code is divided by the shortest. Not for differentiation: phases have no derivative at the origin of a wave.

Source: Baranski, Tani, 2024, Life, uh, Finds a Way: Systematic Neural Search (a harmonic code for vertices).
Deviations: built from the abstract; the equations are ours.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxrl_reg.types import Array

WAVELENGTHS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)  # from coarse to fine

_einsum = functools.partial(jnp.einsum, precision="highest")


def _directions() -> Array:
    angle = jnp.arange(3.0) * jnp.pi / 3.0
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def encode(place: Array, wavelengths: Array | tuple[float, ...] = WAVELENGTHS) -> Array:
    """The code ``[..., S, 3, 2]`` of places ``[..., 2]``, for ``S`` wavelengths in units of the place."""
    lengths = jnp.asarray(wavelengths, jnp.float32)
    phase = 2.0 * jnp.pi * _einsum("...d,jd->...j", place, _directions())[..., None, :] / lengths[:, None]
    return jnp.stack([jnp.cos(phase), jnp.sin(phase)], axis=-1)


def similarity(first: Array, second: Array) -> Array:
    """``[...]`` in [-1, 1], the mean over waves of the cosine between two codes ``[..., S, 3, 2]``; 1 for a place with
    itself."""
    return (first * second).sum(-1).mean((-2, -1))


def shift(code: Array, by: Array) -> Array:
    """The code of the sum of two places, both ``[..., S, 3, 2]``: phases add."""
    real = code[..., 0] * by[..., 0] - code[..., 1] * by[..., 1]
    imaginary = code[..., 0] * by[..., 1] + code[..., 1] * by[..., 0]
    return jnp.stack([real, imaginary], axis=-1)


def displacement(start: Array, end: Array, wavelengths: Array | tuple[float, ...] = WAVELENGTHS) -> Array:
    """``[..., 2]``, the way from one place to another by their codes ``[..., S, 3, 2]``.

    From the longest wave, which must be the first, to the shortest: each says how many whole waves the next one holds.
    Right while the way is less than half the longest wave in each of the three directions.
    """
    difference = shift(end, start * jnp.array([1.0, -1.0]))
    turns = jnp.arctan2(difference[..., 1], difference[..., 0]) / (2.0 * jnp.pi)  # [..., S, 3]
    axes = _directions()

    def finer(way: Array, scale: tuple[Array, Array]) -> tuple[Array, None]:
        length, turn = scale
        whole = jnp.round(_einsum("...d,jd->...j", way, axes) / length - turn)
        return 2.0 / 3.0 * _einsum("...j,jd->...d", (turn + whole) * length, axes), None

    scales = (jnp.asarray(wavelengths, jnp.float32), jnp.moveaxis(turns, -2, 0))
    return jax.lax.scan(finer, jnp.zeros((*turns.shape[:-2], 2), turns.dtype), scales)[0]

"""Per-example scalars against batched arrays: one helper to align them and one to refuse what does not fit."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def expand(values: Array | float, x: Array) -> Array:
    """Append axes to ``values`` (a scalar, ``[B]``, or ``[B, W]`` for one level per token) until it broadcasts over
    ``x``.

    Raises ``ValueError`` unless the shape of ``values`` is a leading part of the shape of ``x``: silent broadcasting of
    noise levels along a wrong axis is the commonest bug of diffusion code.
    """
    values = jnp.asarray(values)
    if values.shape != x.shape[: values.ndim]:
        raise ValueError(f"levels of shape {values.shape} do not lead the shape {x.shape} of what they scale")
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim))


def same_shape(name: str, actual: Array, expected: Array) -> None:
    """Raise ``ValueError`` if a prediction does not have the shape of its target."""
    if actual.shape != expected.shape:
        raise ValueError(f"{name} has shape {actual.shape}, expected {expected.shape}")


def example_mean(x: Array) -> Array:
    """``[B, ...] -> [B]``: mean over everything but the batch."""
    return x.reshape(x.shape[0], -1).mean(axis=1)


def example_sum(x: Array) -> Array:
    """``[B, ...] -> [B]``: sum over everything but the batch."""
    return x.reshape(x.shape[0], -1).sum(axis=1)

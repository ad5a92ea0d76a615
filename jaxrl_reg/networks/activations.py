"""Elementwise nonlinearities by name. A name keeps a ``Config`` hashable and printable."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import Array


def mish(x: Array) -> Array:
    """``x tanh(softplus(x))`` with a single exponential: a quarter of the cost of the textbook form on a CPU."""
    # Beyond 12 the quotient is 1 in float32; much beyond, the cube of n in its second derivative would overflow.
    e = jnp.exp(jnp.minimum(x, 12.0))
    n = e * (e + 2.0)
    return x * n / (n + 2.0)


def identity(x: Array) -> Array:
    """``x`` itself, any shape."""
    return x


def simplex(x: Array, group: int = 8, temperature: Array | float = 1.0) -> Array:
    """Softmax within groups of ``group`` neighbours of the last axis: each lies on a simplex of its own (SimNorm).

    Not elementwise, so it is none of ``ACTIVATIONS``. Where one entry of a group has taken all, gradients vanish.

    Args:
      x: ``[..., D]``.
      group: static; must divide ``D``.
      temperature: scalar > 0, may be traced.
    Returns:
      ``[..., D]``, at least 0; every group sums to 1.
    Raises:
      UserError: ``group`` does not divide ``D``.
    Source: Hansen et al., 2024, TD-MPC2: Scalable, Robust World Models for Continuous Control, section 3.1.
    """
    if x.shape[-1] % group:
        raise UserError(f"simplex takes groups of {group} units, and a layer has {x.shape[-1]}; give it a multiple")
    groups = x.reshape(*x.shape[:-1], -1, group)
    return jax.nn.softmax(groups / temperature, axis=-1).reshape(x.shape)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,  # tanh approximation
    "identity": identity,
    "mish": mish,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}


def activation(name: str | Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The function of that name (functions pass through). Raises ``UserError`` for an unknown name."""
    if callable(name):
        return name
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]

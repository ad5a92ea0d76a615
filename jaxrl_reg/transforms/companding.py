"""Kernels seen through a bounded curve: the optimiser holds ``v``, the network uses ``scale arctan(v / knee)``.

The function is reconstructed from memory of the paper and not checked against its text or code. What is certain, and
all that is promised, is the bound: no weight used is above ``scale pi / 2``. On small value networks no gain of it
showed. Whatever averages, decays or resets weights acts on ``v``; checkpoints hold ``v``.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reg.transforms.low_rank import is_kernel

PyTree = Any


def compand(v: jax.Array, scale: jax.Array | float = 2.0, knee: jax.Array | float = 2.0) -> jax.Array:
    """``scale arctan(v / knee)``: slope ``scale / knee`` at 0, less for large weights, never above ``scale pi / 2``.

    Args:
      v: ``[...]``; ``scale`` and ``knee`` are scalars > 0 in the unit of the weights, may be traced.
    Source: Cakaj, Mehnert and Yang, 2023, Weight Compander: A Simple Weight Reparameterization for Regularization
      (reconstructed).
    """
    return scale * jnp.arctan(v / knee)


def expand(w: jax.Array, scale: jax.Array | float = 2.0, knee: jax.Array | float = 2.0) -> jax.Array:
    """``knee tan(w / scale)``, the inverse of ``compand`` for ``|w| < scale pi / 2``, and beyond of another branch."""
    return knee * jnp.tan(w / scale)


def companded(network: Any, scale: float = 2.0, knee: float = 2.0) -> Any:
    """A ``Network`` that uses its kernels through ``compand``, and begins with the weights that it would have had.

    ``scale`` and ``knee`` count in standard deviations of each kernel's first weights, ``fan_in^-1/2 / sqrt 3``, so one
    setting suits all layers. Biases and scales of norms are used as they are. ``init`` of it gives ``v``.

    Raises ``ValueError`` if ``scale`` is too small for uniform first weights, which reach ``sqrt 3`` deviations.
    """
    if scale * math.pi / 2 <= math.sqrt(3.0):
        raise ValueError(f"companded: scale {scale} bounds weights below their first values; give one above 1.103")

    def through(curve: Any, params: PyTree) -> PyTree:
        def leaf(path, value):
            if not is_kernel(path, value):
                return value
            unit = value.shape[-2] ** -0.5 / math.sqrt(3.0)
            return curve(value, scale * unit, knee * unit)

        return jax.tree_util.tree_map_with_path(leaf, params)

    def apply(params, *args, **kwargs):
        return network.apply(through(compand, params), *args, **kwargs)

    return network._replace(init=lambda *args: through(expand, network.init(*args)), apply=apply)

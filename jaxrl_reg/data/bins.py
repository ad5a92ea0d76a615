"""Numbers as tokens: bins with as many values in each, and back."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array


def quantile_edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Edges ``[K]``, ascending, between ``bins`` parts of ``values [N]`` with about as many values each; on the host.

    Edges that coincide, where one value fills more than a part, are one, so K may be below ``bins - 1``.

    Raises ``UserError`` if ``bins`` is below 2, a value is not finite, or fewer than 2 parts are left.
    """
    values = np.asarray(values, np.float64).ravel()
    if bins < 2:
        raise UserError(f"quantile_edges: {bins} bins; give at least 2")
    if not values.size or not np.isfinite(values).all():
        raise UserError("quantile_edges: the values must be finite numbers, at least one")
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    edges = edges[(edges > values.min()) & (edges <= values.max())]
    if not edges.size:
        raise UserError("quantile_edges: the values are all alike, so they make one bin; leave the column out")
    return edges


def to_bins(values: Array, edges: Array) -> Array:
    """The bin of each of ``values [...]``, int32 from 0 to K; a value on one of ``edges [K]`` goes up."""
    return jnp.searchsorted(jnp.asarray(edges), values, side="right").astype(jnp.int32)


def from_bins(bins: Array, centres: Array) -> Array:
    """``centres [K + 1]`` of the ``bins [...]``: a number for each."""
    return jnp.asarray(centres)[bins]

"""Two gradients that pull against each other: keep from the second only what does not touch the first."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any


class Projection(NamedTuple):
    """What :func:`orthogonal_combine` returns; ``cosine`` and ``coefficient`` are float32 scalars."""

    gradient: PyTree  # forward + backward - coefficient forward
    cosine: jax.Array  # between the two gradients; below 0 they conflict, 0 if either vanishes
    coefficient: jax.Array  # <forward, backward> / <forward, forward>


def orthogonal_combine(forward: PyTree, backward: PyTree, eps: float = 1e-10) -> Projection:
    """``forward`` plus the part of ``backward`` that is orthogonal to it, over all leaves taken as one vector.

    To first order the result decreases the loss of ``forward`` exactly as ``forward`` alone does, whatever ``backward``
    wants: ``<gradient, forward> = |forward|^2``. It suits any loss of two terms of which one must not be undone.

    Args:
      forward: pytree of floating-point arrays, the gradient that is kept whole.
      backward: pytree of the same structure and shapes, the gradient that is projected.
      eps: the least value that ``|forward|^2`` counts as, so that a vanishing ``forward`` leaves ``backward`` as it is.
    Returns:
      A ``Projection``; its gradient has the dtypes of ``forward``. Under ``vmap`` every member has its own projection.
    Raises:
      ValueError: structures or shapes differ.
    Source: Mao et al., 2024, ODICE: Revealing the Mystery of Distribution Correction Estimation via Orthogonal-gradient
      Update.
    """

    def check(path, a, b):
        if jnp.shape(a) != jnp.shape(b):
            where = jax.tree_util.keystr(path)
            raise ValueError(
                f"orthogonal_combine: forward{where} has shape {list(jnp.shape(a))}, backward{where} "
                f"{list(jnp.shape(b))}"
            )

    jax.tree_util.tree_map_with_path(check, forward, backward)
    along, square = _inner(forward, backward), _inner(forward, forward)
    coefficient = along / jnp.maximum(square, eps)
    length = jnp.sqrt(jnp.maximum(square * _inner(backward, backward), 0.0))
    cosine = jnp.where(length > 0, along / jnp.where(length > 0, length, 1.0), 0.0)

    def combine(f, b):
        wide = jnp.promote_types(f.dtype, jnp.float32)
        return (f.astype(wide) + (b.astype(wide) - coefficient.astype(wide) * f.astype(wide))).astype(f.dtype)

    return Projection(jax.tree.map(combine, forward, backward), cosine, coefficient)


def add_orthogonal() -> optax.GradientTransformationExtraArgs:
    """:func:`orthogonal_combine` as a link of an optax chain: ``update(forward, state, params, backward=gradient)``.

    ``optax.chain(add_orthogonal(), optax.adam(1e-3))`` passes ``backward`` on to it. Stateless. Raises
    ``ValueError`` without ``backward``.
    """

    def init(params: PyTree) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: PyTree, state: PyTree, params: PyTree = None, **extra: PyTree) -> tuple[PyTree, PyTree]:
        if "backward" not in extra:
            raise ValueError("add_orthogonal: call update(forward, state, params, backward=gradient)")
        return orthogonal_combine(updates, extra["backward"]).gradient, state

    return optax.GradientTransformationExtraArgs(init, update)


def _inner(a: PyTree, b: PyTree) -> jax.Array:
    """Sum over all leaves of the products, in float32 at least and without the matrix unit's rounding."""

    def products(x, y):
        wide = jnp.promote_types(jnp.result_type(x, y), jnp.float32)
        return jnp.sum(jnp.asarray(x, wide) * jnp.asarray(y, wide))

    return functools.reduce(jnp.add, jax.tree.leaves(jax.tree.map(products, a, b)), jnp.float32(0.0))

"""Several copies of one network as one: parameters stacked on axis 0, one batched matrix product per layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.types import Array, Key, Network, PyTree


def ensemble(network: Network, n: int) -> Network:
    """``n`` independently initialised copies; outputs gain a leading axis of ``n``.

    ``init(key)`` stacks ``network.init`` of ``n`` split keys. ``apply(params, *inputs, key=None, **options)`` shares
    the inputs and gives every copy its own dropout key; the number of copies is read from ``params``, so slices work.
    """
    if n < 1:
        raise ValueError(f"an ensemble needs at least one member, got {n}")

    def init(key: Key) -> PyTree:
        return jax.vmap(network.init)(jax.random.split(key, n))

    def apply(params: PyTree, *inputs: Array, key: Key | None = None, **options):
        size = jax.tree.leaves(params)[0].shape[0]
        # Repeating the narrow inputs spares the first layer a transposed copy of its wide output.
        inputs = tuple(jnp.broadcast_to(x, (size, *x.shape)) for x in inputs)
        if key is None:
            return jax.vmap(lambda p, *x: network.apply(p, *x, **options))(params, *inputs)
        keys = jax.random.split(key, size)
        return jax.vmap(lambda p, k, *x: network.apply(p, *x, key=k, **options))(params, keys, *inputs)

    return Network(init, apply)


def members(params: PyTree, stop: int, start: int = 0) -> PyTree:
    """The stacked parameters of members ``start`` to ``stop - 1``, still stacked."""
    return jax.tree.map(lambda leaf: leaf[start:stop], params)


def parameter_count(params: PyTree) -> int:
    """Number of scalars in a parameter tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))

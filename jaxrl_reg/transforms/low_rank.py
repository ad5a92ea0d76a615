"""Low-rank adapters (LoRA) for the kernels of any parameter tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any
Path = tuple[Any, ...]


def is_kernel(path: Path, leaf: jax.Array) -> bool:
    """Whether a leaf is a Flax kernel: at least two axes and "kernel" as its last key. Leading axes are ensembles'."""
    return leaf.ndim >= 2 and getattr(path[-1], "key", None) == "kernel" if path else False


def kernel_norm(params: PyTree) -> jax.Array:
    """Root of the sum of squares of all kernels, a scalar; biases, norms and vectors do not count."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return jnp.sqrt(sum((jnp.square(leaf).sum() for path, leaf in leaves if is_kernel(path, leaf)), jnp.float32(0.0)))


def low_rank(
    key: jax.Array, params: PyTree, rank: int, select: Callable[[Path, jax.Array], bool] = is_kernel
) -> PyTree:
    """A pair of factors for every selected kernel ``[..., in, out]``, whose product is 0 at first.

    ``jax.grad`` with respect to the result sees the factors only; ``merged(params, adapters, alpha / rank)`` are the
    weights to use. With a penalty of the adapters' product (``low_rank_change``) the whole family of regularisers by
    Fisher information applies to them.

    Args:
      key: a typed key.
      params: pytree of arrays.
      rank: int >= 1, static; at most ``min(in, out)`` of each kernel is used.
      select: ``(path, leaf) -> bool``; leaves that are not selected have no adapter.
    Returns:
      pytree like ``params`` in which a selected leaf is ``{"a": [..., in, r], "b": [..., r, out]}``, ``a`` normal with
      variance ``1 / in`` and ``b`` zero, and every other leaf is None.
    Raises:
      ValueError: ``rank`` < 1; nothing is selected; a selected leaf has less than two axes.
    Source: Hu et al., 2022, LoRA: Low-Rank Adaptation of Large Language Models, section 4.1.
    """
    if rank < 1:
        raise ValueError(f"low_rank: rank is {rank}; it must be at least 1")
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    chosen = [select(path, leaf) for path, leaf in leaves]
    if not any(chosen):
        raise ValueError("low_rank: no leaf is selected; give select=lambda path, leaf: ...")
    keys = jax.random.split(key, len(leaves))

    def pair(key: jax.Array, path: Path, leaf: jax.Array) -> dict[str, jax.Array]:
        if leaf.ndim < 2:
            raise ValueError(
                f"low_rank: {jax.tree_util.keystr(path)} has shape {list(leaf.shape)}; expected [..., i, o]"
            )
        *lead, rows, columns = leaf.shape
        width = min(rank, rows, columns)
        a = jax.random.normal(key, (*lead, rows, width), leaf.dtype) / jnp.sqrt(rows).astype(leaf.dtype)
        return {"a": a, "b": jnp.zeros((*lead, width, columns), leaf.dtype)}

    adapters = [
        pair(one, path, leaf) if yes else None for one, (path, leaf), yes in zip(keys, leaves, chosen, strict=True)
    ]
    return jax.tree.unflatten(structure, adapters)


def _is_pair(node: Any) -> bool:
    return isinstance(node, dict) and set(node) == {"a", "b"}


def low_rank_change(adapters: PyTree, scale: jax.Array | float) -> PyTree:
    """``scale a b`` for every pair: the change of the kernels, None where there is no adapter.

    Args:
      adapters: of ``low_rank``.
      scale: scalar, ``alpha / rank``, may be traced.
    Returns:
      pytree in which every pair is one array ``[..., in, out]``.
    Source: Hu et al., 2022, equation 3.
    """
    return jax.tree.map(lambda pair: scale * (pair["a"] @ pair["b"]), adapters, is_leaf=_is_pair)


def merged(params: PyTree, adapters: PyTree, scale: jax.Array | float) -> PyTree:
    """The parameters with the adapters' change added; where there is none, exactly the parameter.

    Args:
      params: pytree of arrays.
      adapters: of ``low_rank(key, params, ...)``.
      scale: scalar, ``alpha / rank``, may be traced.
    Returns:
      pytree like ``params``, in its dtypes.
    Source: Hu et al., 2022, section 4.1 (no latency: the merged kernels are used as they are).
    """
    changes = low_rank_change(adapters, scale)
    return jax.tree.map(
        lambda change, leaf: leaf if change is None else (leaf + change).astype(leaf.dtype),
        changes,
        params,
        is_leaf=lambda node: node is None,
    )


class AdaptedState(NamedTuple):
    """The adapters that are trained, and the state of the optimiser that trains them."""

    adapters: PyTree
    inner: PyTree


def adapted(
    inner: optax.GradientTransformation,
    base: PyTree,
    key: jax.Array,
    rank: int,
    scale: jax.Array | float = 2.0,
    select: Callable[[Path, jax.Array], bool] = is_kernel,
) -> optax.GradientTransformation:
    """``inner`` training low-rank adapters instead of weights, for agents that know nothing of adapters.

    A gradient ``G`` of a kernel becomes ``scale G b^T`` and ``scale a^T G`` of its factors, ``inner`` steps on those,
    and the update puts the weights at ``merged(base, adapters, scale)``: exactly what training the adapters on the same
    loss does. Leaves without adapters stay as they are in ``base``.

    Args:
      inner: optimiser of the factors, such as ``adam(rate)``.
      base: pytree of the weights before, may be traced; the parameters must be these when the state is made.
      key: a typed key, used by ``init`` alone.
      rank: int >= 1, static.
      scale: ``alpha / rank``, may be traced.
      select: which leaves have adapters, see ``low_rank``.
    Returns:
      transformation with an ``AdaptedState``.
    Raises:
      ValueError: as ``low_rank``; (by ``update``) without ``params``.
    Source: Hu et al., 2022, LoRA, section 4.1.
    """

    def init(params: PyTree) -> AdaptedState:
        adapters = low_rank(key, params, rank, select)
        return AdaptedState(adapters, inner.init(adapters))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, AdaptedState]:
        if params is None:
            raise ValueError("adapted: call update(gradients, state, params)")

        def pulled_back(pair: Any, gradient: jax.Array) -> Any:
            if pair is None:
                return None
            a, b = (jnp.swapaxes(pair[name], -1, -2) for name in ("a", "b"))
            return {"a": scale * (gradient @ b), "b": scale * (a @ gradient)}

        def is_slot(node: Any) -> bool:
            return node is None or _is_pair(node)

        gradients = jax.tree.map(pulled_back, state.adapters, updates, is_leaf=is_slot)
        steps, within = inner.update(gradients, state.inner, state.adapters)
        adapters = optax.apply_updates(state.adapters, steps)
        moved = jax.tree.map(jnp.subtract, merged(base, adapters, scale), params)
        return moved, AdaptedState(adapters, within)

    return optax.GradientTransformation(init, update)


def orthogonality(adapters: PyTree, earlier: PyTree) -> jax.Array:
    """``sum over kernels |a_old^T a|_F^2``: how far the new adapters read what earlier ones read already.

    Args:
      adapters: of ``low_rank``, being trained.
      earlier: those of an earlier task, of the same kernels; DETACHED; their rank may differ.
    Returns:
      scalar >= 0, squared weights; 0 for orthogonal subspaces.
    Source: Wang et al., 2023, Orthogonal Subspace Learning for Language Model Continual Learning, equation 7. The sum
      is over kernels; code in circulation takes the mean over pairs.
    """

    def overlap(new: dict[str, jax.Array], old: dict[str, jax.Array]) -> jax.Array:
        return jnp.square(jnp.swapaxes(jax.lax.stop_gradient(old["a"]), -1, -2) @ new["a"]).sum()

    found = jax.tree.leaves(jax.tree.map(overlap, adapters, earlier, is_leaf=_is_pair))
    return jnp.stack(found).sum()

"""Spectral normalisation: a layer's kernel divided by its largest singular value, which power iteration follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
FIELD = "spectral"  # of the parameters: where a network keeps its vectors


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.square(x).sum(axis=-1, keepdims=True) + 1e-12)


def _sides(kernel: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Unit vectors ``v [..., in]`` and ``u [..., out]``; no gradient goes into them."""
    kernel, u = jax.lax.stop_gradient((kernel, _unit(u)))
    return _unit(jnp.einsum("...io,...o->...i", kernel, u)), u


def power_start(key: jax.Array, params: PyTree, layers: Sequence[str]) -> dict[str, jax.Array]:
    """Random unit vectors ``{layer: [..., out]}`` for the kernels ``[..., in, out]`` of ``layers`` in ``params``.

    Raises ``ValueError`` for a layer that is not there.
    """
    missing = [name for name in layers if name not in params]
    if missing:
        raise ValueError(f"power_start: there is no layer {missing[0]}; the tree has {', '.join(sorted(params))}")
    kernels = {name: params[name]["kernel"] for name in layers}
    keys = jax.random.split(key, len(layers))
    return {
        name: _unit(jax.random.normal(one, (*kernel.shape[:-2], kernel.shape[-1])))
        for one, (name, kernel) in zip(keys, kernels.items(), strict=True)
    }


def power_step(params: PyTree, u: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """One power iteration: ``v = W u / |W u|``, then ``u = W^T v / |W^T v|``. Once per optimiser step is enough."""

    def step(name: str, vector: jax.Array) -> jax.Array:
        kernel = params[name]["kernel"]
        return _unit(jnp.einsum("...io,...i->...o", kernel, _sides(kernel, vector)[0]))

    return {name: step(name, vector) for name, vector in u.items()}


def normalised(
    params: PyTree, u: dict[str, jax.Array], bound: jax.Array | float = 1.0, shrink_only: bool = False
) -> PyTree:
    """``params`` with the kernels ``W`` of the layers in ``u`` replaced by ``bound W / sigma``, ``sigma = v^T W u``.

    The gradient goes through ``sigma`` as well, not through ``u`` and ``v``. Biases stay as they are.

    Args:
      params: tree with ``Dense_i/kernel`` of ``[..., in, out]``.
      u: from ``power_start`` and ``power_step``; of any length above 0, so averages of them serve too.
      bound: scalar > 0, the largest singular value afterwards, may be traced.
      shrink_only: static; leave kernels whose ``sigma`` is below ``bound``.
    Source: Miyato et al., 2018, Spectral Normalization for Generative Adversarial Networks, algorithm 1; Gogianu et
      al., 2021, Spectral Normalisation for Deep Reinforcement Learning: an Optimisation Perspective, for critics.
    """

    def layer(name: str, vector: jax.Array) -> PyTree:
        kernel = params[name]["kernel"]
        v, vector = _sides(kernel, vector)
        size = jnp.einsum("...i,...io,...o->...", v, kernel, vector)[..., None, None] / bound
        return {**params[name], "kernel": kernel / (jnp.maximum(size, 1.0) if shrink_only else size)}

    return {**params, **{name: layer(name, vector) for name, vector in u.items()}}


def spectrally_normalised(network: Any, bound: float = 1.0) -> Any:
    """A ``Network`` of ``Dense_i`` layers, or an ensemble, whose last hidden layer is used ``normalised``.

    Only that one: all of them would lose too much. Its parameters gain ``spectral``, the vectors of power iteration:
    they get no gradient, ``stepped`` moves them after each optimiser step, and a slow average of parameters has its
    own. ``init`` begins with ten iterations.

    Raises ``ValueError`` (by ``init``) for a network without a hidden layer.
    """

    def init(key: jax.Array) -> PyTree:
        params = network.init(key)
        last = sum(name.startswith("Dense") for name in params) - 2
        u = power_start(jax.random.fold_in(key, 1001), params, (f"Dense_{last}",))
        return {**params, FIELD: jax.lax.fori_loop(0, 10, lambda _, u: power_step(params, u), u)}

    def apply(params: PyTree, *args: Any, **options: Any) -> Any:
        rest = {name: part for name, part in params.items() if name != FIELD}
        return network.apply(normalised(rest, params[FIELD], bound), *args, **options)

    return network._replace(init=init, apply=apply)


def stepped(params: PyTree) -> PyTree:
    """Parameters of a ``spectrally_normalised`` network after one ``power_step``; others as they are."""
    return {**params, FIELD: power_step(params, params[FIELD])} if FIELD in params else params

"""Multi-layer perceptrons and their first weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reg.errors import unknown
from jaxrl_reg.networks.activations import activation as resolve
from jaxrl_reg.networks.activations import simplex
from jaxrl_reg.types import Array, Key, Network, PyTree

LAYER_NORMS = ("none", "first_tanh", "every", "before")
FEATURE_NORMS = ("none", "simplex")
INITIALISATIONS = ("torch", "orthogonal")


def _torch_uniform(key: Key, params: Any, final_scale: float | None) -> dict:
    """Kernels and biases of every ``Dense`` layer, uniform in +-1/sqrt(fan in), or +-``final_scale`` in the last.

    All layers are cut from one vector of random numbers: a generator for each triples the compile time of ``init``.
    """
    layers = [name for name in params if name.startswith("Dense")]
    numbers = jax.random.uniform(key, (sum(leaf.size for name in layers for leaf in params[name].values()),))
    numbers, start, filled = 2.0 * numbers - 1.0, 0, dict(params)
    for i in range(len(layers)):
        layer = params[f"Dense_{i}"]
        limit = layer["kernel"].shape[0] ** -0.5
        if final_scale is not None and i == len(layers) - 1:
            limit = final_scale
        filled[f"Dense_{i}"] = {}
        for name, leaf in layer.items():
            filled[f"Dense_{i}"][name] = limit * numbers[start : start + leaf.size].reshape(leaf.shape)
            start += leaf.size
    return filled


def orthogonal(key: Key, params: PyTree, gain: float = 1.0) -> PyTree:
    """``params`` with every leaf named ``kernel``, ``[in, out]``, drawn anew with orthogonal rows or columns.

    Those are of length ``gain``. As for ``_torch_uniform`` all come from one vector of random numbers; kernels of one
    shape are made together.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, (path, leaf) in enumerate(leaves):
        if jax.tree_util.keystr(path).endswith("['kernel']"):
            by_shape.setdefault(leaf.shape, []).append(i)
    numbers = jax.random.normal(key, (sum(len(found) * math.prod(shape) for shape, found in by_shape.items()),))
    filled, start = [leaf for _, leaf in leaves], 0
    for (rows, columns), found in by_shape.items():
        tall = (len(found), max(rows, columns), min(rows, columns))
        q = gain * _orthonormal(numbers[start : start + math.prod(tall)].reshape(tall))
        for i, kernel in zip(found, q if rows >= columns else q.mT, strict=True):
            filled[i] = kernel
        start += math.prod(tall)
    return jax.tree.unflatten(tree, filled)


def _orthonormal(normal: Array) -> Array:
    """Matrices with orthonormal columns made of ``normal [K, n, m]``, ``n >= m``, standard normal, one after another.

    They are uniform over such matrices, like those of a QR decomposition, but made of products alone: on a CPU
    LAPACK's threads, called from several devices at once, may wait for one another for ever. Wide ones are made in
    blocks of columns, each in the complement of those before it, where a normal block is as uniform as the first. A
    block is far from singular, so that its few turns are cheap; a square as a whole takes ten times the operations.
    """
    kernels, n, m = normal.shape
    blocks = 8 if m >= 512 and m % 8 == 0 else 1
    width = m // blocks
    scale = 1.0 / (math.sqrt(n) + math.sqrt(width) + 4.0)  # singular values below 1; they must be below sqrt(3)
    if blocks == 1:
        return _polar(normal * scale)

    def block(i: Array, done: Array) -> Array:
        columns = scale * jax.lax.dynamic_slice_in_dim(normal, i * width, width, 2)
        for _ in range(2):  # what the first leaves of rounding, a nearly singular block magnifies
            columns = _polar(columns - _product(done, _product(done.mT, columns)))
        return jax.lax.dynamic_update_slice_in_dim(done, columns, i * width, 2)

    return jax.lax.fori_loop(0, blocks, block, jnp.zeros((kernels, n, m), normal.dtype))


def _polar(x: Array) -> Array:
    """The nearest matrices with orthonormal columns to ``x [K, n, m]``, ``n >= m``, by Newton and Schulz's iteration.

    Singular values must be below ``sqrt(3)``.
    """

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, gram, count = carry
        x = 1.5 * x - 0.5 * _product(x, gram)
        return x, _product(x.mT, x), count + 1

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        _, gram, count = carry
        return (jnp.abs(gram - jnp.eye(x.shape[-1])).max() > 1e-5) & (count < 60)

    return jax.lax.while_loop(unfinished, step, (x, _product(x.mT, x), jnp.int32(0)))[0]


def _product(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y, precision="highest")


class _MLP(nn.Module):
    widths: tuple[int, ...]
    activation: Callable[[Array], Array]
    final_activation: Callable[[Array], Array]
    layer_norm: str
    dropout: float
    feature_norm: str = "none"

    @nn.compact
    def __call__(self, x: Array, deterministic: bool, features: bool | str):
        hidden = []
        for layer, width in enumerate(self.widths[:-1]):
            x = nn.Dense(width, kernel_init=nn.initializers.zeros)(x)  # filled by mlp
            if self.layer_norm == "before":
                x = self.activation(nn.LayerNorm(epsilon=1e-5)(x))
            elif self.layer_norm == "first_tanh" and layer == 0:
                x = jnp.tanh(nn.LayerNorm(epsilon=1e-5)(x))
            else:
                x = self.activation(x)
            if self.layer_norm == "every":
                x = nn.LayerNorm(epsilon=1e-5)(x)
            if self.feature_norm == "simplex" and layer == len(self.widths) - 2:
                x = simplex(x)
            if self.dropout > 0.0:
                x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
            hidden.append(x)
        y = self.final_activation(nn.Dense(self.widths[-1], kernel_init=nn.initializers.zeros)(x))
        if features == "all":
            return y, tuple(hidden)
        return (y, x) if features else y


def mlp(
    sizes: Sequence[int],
    activation: str | Callable[[Array], Array] = "relu",
    *,
    layer_norm: str = "none",
    feature_norm: str = "none",
    dropout: float = 0.0,
    final_activation: str | Callable[[Array], Array] = "identity",
    init: str = "torch",
    final_scale: float | None = None,
    gain: float = 2.0**0.5,
) -> Network:
    """A multi-layer perceptron ``[..., sizes[0]] -> [..., sizes[-1]]``.

    Args:
        sizes: input width, hidden widths, output width.
        activation: after every hidden layer; a name in ``ACTIVATIONS`` or a function.
        layer_norm: ``none``; ``every``: LayerNorm after each hidden activation (ReBRAC); ``before``: before each of
            them (XQL); ``first_tanh``: the first hidden layer is ``tanh(LayerNorm(.))`` instead of the activation (the
            forward-backward family). Epsilon is 1e-5.
        feature_norm: ``simplex``: softmax within groups of 8 units after the last hidden layer (SimNorm).
        dropout: rate after each hidden layer, active only where ``apply`` is given a key.
        final_activation: on the output.
        init: ``torch``: kernels and biases uniform in +-1/sqrt(fan in), PyTorch's default, which the published numbers
            of the TD3 family rest on; ``orthogonal``: zero biases.
        final_scale: of the last layer: half-width of its uniform distribution, or its orthogonal gain (1).
        gain: of the orthogonal kernels of the hidden layers.

    Returns:
        ``init(key) -> params`` and ``apply(params, x, *, key=None, features=False) -> y``; with ``features`` the pair
        ``(y, h)``, ``h [..., sizes[-2]]`` being the last hidden layer, and with ``features="all"`` the pair of ``y``
        and a tuple of all hidden layers, each as it enters the next one.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes needs an input and an output width, got {tuple(sizes)}")
    if layer_norm not in LAYER_NORMS:
        raise unknown("layer_norm", layer_norm, LAYER_NORMS)
    if init not in INITIALISATIONS:
        raise unknown("init", init, INITIALISATIONS)
    if feature_norm not in FEATURE_NORMS:
        raise unknown("feature_norm", feature_norm, FEATURE_NORMS)
    module = _MLP(tuple(sizes[1:]), resolve(activation), resolve(final_activation), layer_norm, dropout, feature_norm)

    def init_params(key: Key):
        params = module.init(key, jnp.zeros((1, sizes[0])), deterministic=True, features=False)["params"]
        if init == "torch":
            return _torch_uniform(key, params, final_scale)
        params, last = orthogonal(key, params, gain), f"Dense_{len(sizes) - 2}"
        kernel = params[last]["kernel"] * ((1.0 if final_scale is None else final_scale) / gain)
        return {**params, last: {**params[last], "kernel": kernel}}

    def apply(params, x: Array, *, key: Key | None = None, features: bool | str = False):
        if x.shape[-1] != sizes[0]:
            raise ValueError(f"expected inputs of width {sizes[0]}, got shape {x.shape}")
        rngs = None if key is None else {"dropout": key}
        return module.apply({"params": params}, x, deterministic=key is None, features=features, rngs=rngs)

    return Network(init_params, apply)


def output_layer(params) -> tuple[Array, Array]:
    """Kernel ``[..., hidden[-1], outputs]`` and bias ``[..., outputs]`` of the last layer of :func:`mlp` and others."""
    layer = params[f"Dense_{sum(name.startswith('Dense') for name in params) - 1}"]
    return layer["kernel"], layer["bias"]

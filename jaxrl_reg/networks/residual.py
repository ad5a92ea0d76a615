"""Residual streams: with gated blocks, to be probed, and with the blocks of SimBa and BRO, for large critics."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.networks.feedforward import orthogonal
from jaxrl_reg.types import Array, Key, Network, PyTree

STYLES = ("simba", "bro")


def gated_residual(sizes: Sequence[int], blocks: int, units: int | None = None, final_scale: float = 1.0) -> Network:
    """``[..., sizes[0]] -> [..., sizes[2]]`` through a stream of width ``sizes[1]`` and gated blocks (SwiGLU).

    ``h <- h + down(silu(gate n) * up n)`` with ``n = h / rms(h)``, without a gain; the output is read from the
    normalised stream. Kernels are normal with variance ``1 / in``, without biases but in the first and the last layer.

    Args:
      sizes: widths of input, stream and output.
      blocks: number of blocks, at least 1.
      units: gates of each block; twice the stream by default.
      final_scale: factor of the last kernel.
    Returns:
      ``init(key) -> params``, whose ``blocks`` has ``gate`` and ``up`` ``[blocks, stream, units]`` and ``down``
      ``[blocks, units, stream]``, each under ``kernel``; and ``apply(params, x, *, features=False) -> y``, with
      ``features`` the pair ``(y, [blocks, ..., stream])``: the stream after every block.
    Raises:
      UserError: for another number of widths, or a width or number of blocks below 1.
    Source: Shazeer, 2020, GLU Variants Improve Transformer; Zhang and Sennrich, 2019, Root Mean Square Layer
      Normalization.
    """
    if len(sizes) != 3 or min(*sizes, blocks, 1 if units is None else units) < 1:
        raise UserError(
            f"gated_residual needs widths of input, stream and output and blocks >= 1, got {sizes}, {blocks}"
        )
    inputs, stream, outputs = sizes
    width = 2 * stream if units is None else units

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, 5)

        def kernel(key: Key, *shape: int) -> Array:
            return jax.random.normal(key, shape) / jnp.sqrt(shape[-2])

        return {
            "first": {"kernel": kernel(keys[0], inputs, stream), "bias": jnp.zeros(stream)},
            "blocks": {
                "gate": {"kernel": kernel(keys[1], blocks, stream, width)},
                "up": {"kernel": kernel(keys[2], blocks, stream, width)},
                "down": {"kernel": kernel(keys[3], blocks, width, stream)},
            },
            "last": {"kernel": final_scale * kernel(keys[4], stream, outputs), "bias": jnp.zeros(outputs)},
        }

    def normalised(h: Array) -> Array:
        return h * jax.lax.rsqrt(jnp.square(h).mean(axis=-1, keepdims=True) + 1e-6)

    def apply(params: PyTree, x: Array, *, features: bool = False):
        h = x @ params["first"]["kernel"] + params["first"]["bias"]
        written = []
        kernels = [params["blocks"][name]["kernel"] for name in ("gate", "up", "down")]
        for number in range(blocks):
            gate, up, down = (kernel[number] for kernel in kernels)
            n = normalised(h)
            h = h + (jax.nn.silu(n @ gate) * (n @ up)) @ down
            written.append(h)
        y = normalised(h) @ params["last"]["kernel"] + params["last"]["bias"]
        return (y, jnp.stack(written)) if features else y

    return Network(init, apply)


def residual_mlp(sizes: Sequence[int], blocks: int, *, style: str = "simba") -> Network:
    """``[..., sizes[0]] -> [..., sizes[2]]`` through a stream of width ``sizes[1]`` and layer-normalised blocks.

    ``simba``: a linear stem, blocks ``h + W relu(V LN h)`` of four times the width, LN, a linear head; orthogonal stem
    and head, blocks normal with variance ``2 / in``. ``bro``: ``relu(LN W x)`` as a stem, blocks
    ``h + LN(W relu(LN V h))``, a linear head; all orthogonal times ``sqrt 2``. Biases begin at 0. LN's epsilon is 1e-6.

    Args:
      sizes: widths of input, stream and output.
      blocks: number of blocks, at least 1.
      style: ``simba`` or ``bro``.
    Returns:
      ``init(key) -> params``: ``Dense_0`` the stem, ``Dense_1`` the head, ``Block_i``; and ``apply(params, x, *,
      key=None, features=False) -> y``, with ``features`` the pair ``(y, h)``, ``h [..., sizes[1]]`` being what the head
      reads, and with ``features="all"`` ``y`` and a tuple of each block's ReLU units and last ``h``. ``key`` is not
      used.
    Raises:
      UserError: for another style or number of widths, or a width or number of blocks below 1.
    Source: Lee et al., 2025, SimBa: Simplicity Bias for Scaling Up Parameters in Deep Reinforcement Learning, whose
      standardised observations are not part of it; Nauman et al., 2024, Bigger, Regularized, Optimistic (BRO).
    """
    if style not in STYLES:
        raise unknown("style", style, STYLES)
    if len(sizes) != 3 or min(*sizes, blocks) < 1:
        raise UserError(f"residual_mlp needs widths of input, stream and output and blocks >= 1, got {sizes}, {blocks}")
    inputs, width, outputs = sizes
    simba = style == "simba"

    def dense(rows: int, columns: int) -> PyTree:
        return {"kernel": jnp.zeros((rows, columns)), "bias": jnp.zeros(columns)}

    def norm() -> PyTree:
        return {"scale": jnp.ones(width), "bias": jnp.zeros(width)}

    def block(key: Key) -> PyTree:
        if not simba:
            return {
                "Dense_0": dense(width, width),
                "LayerNorm_0": norm(),
                "Dense_1": dense(width, width),
                "LayerNorm_1": norm(),
            }
        wide = {"LayerNorm_0": norm(), "Dense_0": dense(width, 4 * width), "Dense_1": dense(4 * width, width)}
        for name, part in zip(("Dense_0", "Dense_1"), jax.random.split(key), strict=True):
            rows, columns = wide[name]["kernel"].shape
            wide[name]["kernel"] = jnp.sqrt(2.0 / rows) * jax.random.normal(part, (rows, columns))
        return wide

    def init(key: Key) -> PyTree:
        key, *keys = jax.random.split(key, blocks + 1)
        inside = {f"Block_{i}": block(one) for i, one in enumerate(keys)}
        outside = {"Dense_0": dense(inputs, width), "LayerNorm_0": norm(), "Dense_1": dense(width, outputs)}
        if simba:
            return {**orthogonal(key, outside), **inside}
        return orthogonal(key, {**outside, **inside}, 2.0**0.5)

    def apply(params: PyTree, x: Array, *, key: Key | None = None, features: bool | str = False):
        if x.shape[-1] != inputs:
            raise ValueError(f"expected inputs of width {inputs}, got shape {x.shape}")
        h, units = _affine(params["Dense_0"], x), []
        h = h if simba else jax.nn.relu(_layer_norm(params["LayerNorm_0"], h))
        for i in range(blocks):
            part = params[f"Block_{i}"]
            read = _layer_norm(part["LayerNorm_0"], h) if simba else h
            inner = _affine(part["Dense_0"], read)
            units.append(jax.nn.relu(inner if simba else _layer_norm(part["LayerNorm_0"], inner)))
            written = _affine(part["Dense_1"], units[-1])
            h = h + (written if simba else _layer_norm(part["LayerNorm_1"], written))
        h = _layer_norm(params["LayerNorm_0"], h) if simba else h
        y = _affine(params["Dense_1"], h)
        if features == "all":
            return y, (*units, h)
        return (y, h) if features else y

    return Network(init, apply)


def _affine(layer: PyTree, x: Array) -> Array:
    return x @ layer["kernel"] + layer["bias"]


def _layer_norm(norm: PyTree, x: Array) -> Array:
    x = x - x.mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + 1e-6) * norm["scale"] + norm["bias"]

"""A residual stream with gated blocks: what every block reads and writes is one space, so that it can be probed."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Key, Network, PyTree


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

"""A token for every entry of a state vector, read by a transformer that sees only those that a mask shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.networks.sequence import AttentionBlock, width_of
from jaxrl_reg.types import Array, Key, PyTree


class FeatureTokens(NamedTuple):
    """``init(key) -> params`` and ``apply(params, x [..., n], visible [..., n]) -> tokens [..., registers + n, D]``.

    Entries that are not visible are attended to by nobody; what comes out at their place says nothing. ``visible=None``
    shows all. With ``inputs`` above 1, entries are vectors: ``x [..., n, inputs]``.
    """

    init: Callable[[Key], PyTree]
    apply: Callable[..., Array]


class _FeatureTransformer(nn.Module):
    count: int
    registers: int
    inputs: int
    outputs: int
    width: int
    blocks: int
    heads: int

    @nn.compact
    def __call__(self, x: Array, visible: Array) -> Array:
        scale = self.param("scale", nn.initializers.normal(0.5), (self.count, self.inputs, self.width))
        place = self.param("place", nn.initializers.normal(0.5), (self.registers + self.count, self.width))
        tokens = jnp.einsum("...ni,nid->...nd", x, scale)
        free = jnp.zeros((*tokens.shape[:-2], self.registers, self.width))
        tokens = jnp.concatenate([free, tokens], axis=-2) + place
        # The registers are always there, so that a row without a visible entry attends to something.
        shown = jnp.concatenate([jnp.ones((*visible.shape[:-1], self.registers), bool), visible > 0], axis=-1)
        mask = shown[..., None, :] | jnp.eye(shown.shape[-1], dtype=bool)
        for _ in range(self.blocks):
            tokens = AttentionBlock(self.width, self.heads)(tokens, mask=mask)
        return nn.Dense(self.outputs, name="head")(nn.LayerNorm(epsilon=1e-5)(tokens))


def feature_tokens(
    count: int,
    hidden: Sequence[int] = (32, 32),
    heads: int = 4,
    *,
    registers: int = 1,
    inputs: int = 1,
    outputs: int | None = None,
) -> FeatureTokens:
    """A transformer over the ``count`` entries of a vector, one block per entry of ``hidden``.

    Args:
      count: n, entries; each has a map and a place of its own.
      hidden: widths of the blocks, all alike.
      heads: of attention, must divide the width.
      registers: tokens of no entry, always visible, that come first.
      inputs: numbers per entry.
      outputs: width of the tokens that come out; None: that of the blocks.
    Raises:
      UserError: blocks of several widths, heads that do not divide them, or no register and so nothing to see in a row
        without visible entries.
    Source: Thimonier et al., 2025, T-JEPA: Augmentation-Free Self-Supervised Learning for Tabular Data, section 3
      (register tokens); pre-normalised blocks instead of its post-normalised ones.
    """
    width = width_of(hidden)
    if width % heads:
        raise UserError(f"heads={heads} must divide the width {width} of the blocks")
    if registers < 1:
        raise UserError("registers=0: a row without a visible entry would have nothing to attend to; give at least 1")
    module = _FeatureTransformer(count, registers, inputs, outputs or width, width, len(hidden), heads)

    def read(x: Array) -> Array:
        return x[..., None] if inputs == 1 else x

    def init(key: Key) -> PyTree:
        rows = jnp.zeros((1, count, inputs)), jnp.ones((1, count), bool)
        return module.init(key, *rows)["params"]

    def apply(params: PyTree, x: Array, visible: Array | None = None) -> Array:
        x = read(x)
        seen = jnp.ones(x.shape[:-1], bool) if visible is None else visible
        return module.apply({"params": params}, x, seen)

    return FeatureTokens(init, apply)

"""A transformer over steps of which each has two tokens' worth: what was done, and what came back."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.networks.sequence import AttentionBlock
from jaxrl_reg.types import Array, Key, PyTree


class TwoStreams(NamedTuple):
    """``init(key) -> params`` and ``apply(params, content [B, T], behaviour [B, T], who [B], hide_content [B, T],
    hide_behaviour [B, T], real [B, T]) -> (logits [B, T, contents], logits [B, T, behaviours])``.

    Numbers are whole; hidden ones are read as a token of their own, and steps that are not ``real`` by nobody.
    """

    init: Callable[[Key], PyTree]
    apply: Callable[..., tuple[Array, Array]]


class _TwoStreams(nn.Module):
    contents: int
    behaviours: int
    receivers: int
    length: int
    width: int
    blocks: int
    heads: int

    @nn.compact
    def __call__(
        self, content: Array, behaviour: Array, who: Array, hide_content: Array, hide_behaviour: Array, real: Array
    ) -> tuple[Array, Array]:
        content = jnp.where(hide_content, self.contents, content)
        behaviour = jnp.where(hide_behaviour, self.behaviours, behaviour)
        place = self.param("place", nn.initializers.normal(0.1), (self.length, self.width))
        x = nn.Embed(self.contents + 1, self.width)(content) + nn.Embed(self.behaviours + 1, self.width)(behaviour)
        x = x + place + nn.Embed(self.receivers, self.width)(who)[..., None, :]
        # A step always sees itself, so that a window without real steps attends to something.
        seen = (real > 0)[..., None, :] | jnp.eye(self.length, dtype=bool)
        for _ in range(self.blocks):
            x = AttentionBlock(self.width, self.heads)(x, mask=seen)
        x = nn.LayerNorm(epsilon=1e-5)(x)
        return nn.Dense(self.contents)(x), nn.Dense(self.behaviours)(x)


def two_streams(
    contents: int, behaviours: int, receivers: int, length: int, width: int = 32, blocks: int = 2, heads: int = 2
) -> TwoStreams:
    """Attention in both directions over ``length`` steps.

    Raises ``UserError`` for heads that do not divide the width, or fewer than one of anything.
    """
    if min(contents, behaviours, receivers, length, blocks) < 1:
        raise UserError("contents, behaviours, receivers, length and blocks must be at least 1")
    if width % heads:
        raise UserError(f"heads={heads} must divide the width {width} of the blocks")
    module = _TwoStreams(contents, behaviours, receivers, length, width, blocks, heads)

    def init(key: Key) -> PyTree:
        blank = jnp.zeros((1, length), jnp.int32)
        return module.init(key, blank, blank, jnp.zeros(1, jnp.int32), blank > 0, blank > 0, blank)["params"]

    return TwoStreams(init, lambda params, *inputs: module.apply({"params": params}, *inputs))

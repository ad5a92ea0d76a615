"""A causal transformer over events, each of which is a unit and a bin of time."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.networks.sequence import AttentionBlock
from jaxrl_reg.types import Array, Network


class _Events(nn.Module):
    units: int
    bins: int
    length: int
    width: int
    blocks: int
    heads: int

    @nn.compact
    def __call__(self, unit: Array, bin: Array, real: Array) -> tuple[Array, Array]:
        events = nn.Embed(self.units, self.width)(unit) + nn.Embed(self.bins, self.width)(bin)
        first = self.param("first", nn.initializers.normal(0.1), (self.width,))
        place = self.param("place", nn.initializers.normal(0.1), (self.length, self.width))
        # The prediction of an event is made at the token before it; before the first stands a learnt one.
        start = jnp.broadcast_to(first, (*events.shape[:-2], 1, self.width))
        x = jnp.concatenate([start, events[..., :-1, :]], axis=-2) + place
        shown = jnp.concatenate([jnp.ones((*real.shape[:-1], 1), bool), real[..., :-1] > 0], axis=-1)
        causal = jnp.tril(jnp.ones((self.length, self.length), bool))
        # A masked event keeps its place: what stands there reads what came before it, but is read by nobody.
        seen = causal & (shown[..., None, :] | jnp.eye(self.length, dtype=bool))
        x = jnp.where(shown[..., None], x, place)
        for _ in range(self.blocks):
            x = AttentionBlock(self.width, self.heads)(x, mask=seen)
        x = nn.LayerNorm(epsilon=1e-5)(x)
        return nn.Dense(self.units)(x), nn.Dense(self.bins)(x)


def event_network(units: int, bins: int, length: int, width: int = 32, blocks: int = 2, heads: int = 2) -> Network:
    """``apply(params, unit [..., T], bin [..., T], real [..., T]) -> (logits [..., T, units], logits [..., T, bins])``,
    each event's from the ``real`` ones before it.

    Raises ``UserError`` for fewer than one of anything, or heads that do not divide the width.
    """
    if min(units, bins, length, blocks) < 1:
        raise UserError("units, bins, length and blocks must be at least 1")
    if width % heads:
        raise UserError(f"heads={heads} must divide the width {width} of the blocks")
    module = _Events(units, bins, length, width, blocks, heads)
    blank = jnp.zeros((1, length), jnp.int32)
    return Network(
        lambda key: module.init(key, blank, blank, blank)["params"],
        lambda params, *inputs: module.apply({"params": params}, *inputs),
    )

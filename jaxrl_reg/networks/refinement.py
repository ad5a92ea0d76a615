"""A block over time at several rates, with a gate for channels and one for steps."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Network


class _DilatedRefinement(nn.Module):
    width: int
    dilations: tuple[int, ...]
    kernel: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def branch(x: Array) -> Array:
            return nn.relu(nn.LayerNorm(epsilon=1e-5)(nn.Dense(self.width)(x)))

        branches = [branch(x), *(branch(self.taps(x, dilation)) for dilation in self.dilations)]
        whole = branch(x.mean(axis=-2, keepdims=True))
        branches.append(jnp.broadcast_to(whole, branches[0].shape))
        found = jnp.concatenate(branches, axis=-1)
        # One number per window; softplus instead of the source's ReLU, which can switch a window off for good.
        channel = nn.softplus(nn.Dense(1)(found.mean(axis=-2, keepdims=True)))
        spatial = nn.sigmoid(nn.Dense(1)(found))
        fused = jnp.maximum(found * channel, found * spatial)
        return x + nn.LayerNorm(epsilon=1e-5)(nn.Dense(x.shape[-1])(fused * found))

    def taps(self, x: Array, dilation: int) -> Array:
        """``[..., T, kernel C]``: each step beside those ``dilation`` apart, zero outside the window. As one matrix
        product of shifted copies, because a convolution under ``vmap`` over members is slow on CPUs."""
        reach = dilation * (self.kernel // 2)
        padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(reach, reach), (0, 0)])
        shifted = [padded[..., k * dilation : k * dilation + x.shape[-2], :] for k in range(self.kernel)]
        return jnp.concatenate(shifted, axis=-1)


def dilated_refinement(channels: int, width: int, dilations: Sequence[int] = (1, 2, 4), kernel: int = 3) -> Network:
    """``[..., T, channels] -> [..., T, channels]``: what several spans of time around each step say, added to it.

    Branches of ``width`` numbers: the step alone, the steps at each dilation, the whole window; they are weighed by a
    gate for the window and one for each step. At ``T = 1`` the outer taps see zeros only and get no gradient: the block
    then is a gated perceptron, which is what the source's released form is throughout, since its images are 1 x 1.

    Raises ``UserError`` for an even ``kernel`` or a dilation below 1.
    Source: Ren et al., 2025, MambaRec, DREAM block; LayerNorm in place of BatchNorm, and the residual path, are ours.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise UserError(f"kernel={kernel} must be odd, so that a step stands in the middle of what it sees")
    if not dilations or min(dilations) < 1:
        raise UserError(f"dilations={tuple(dilations)} must be numbers of steps, at least 1")
    module = _DilatedRefinement(width, tuple(dilations), kernel)
    return Network(
        lambda key: module.init(key, jnp.zeros((1, channels)))["params"],
        lambda params, x: module.apply({"params": params}, x),
    )

"""Denoisers of whole sub-trajectories: ``apply(params, x [B, L, C], time [B]) -> [B, L, C]``, ``L`` steps in time.

``time`` is ``log(sigma) / 4`` (see ``generative.edm_denoiser``) and enters through a linear embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reg.networks.activations import activation as resolve
from jaxrl_reg.networks.denoisers import denoiser_mlp, time_embedding
from jaxrl_reg.types import Array, Key, Network, PyTree, Spec


class _Convolution(nn.Module):
    """Over time, zero padded, as one matrix product of shifted copies: ``nn.Conv`` under ``vmap`` over members becomes
    a grouped convolution, which CPUs do slowly."""

    features: int
    kernel: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        left = (self.kernel - 1) // 2
        padded = jnp.pad(x, ((0, 0), (left, self.kernel - 1 - left), (0, 0)))
        shifted = [padded[:, k : k + x.shape[1]] for k in range(self.kernel)]
        return nn.Dense(self.features)(jnp.concatenate(shifted, axis=-1))


class _Block(nn.Module):
    """Two convolutions with group normalisation beside a linear path; the noise level shifts the first one's output."""

    features: int
    kernel: int
    groups: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array, time: Array) -> Array:
        h = x
        for layer in range(2):
            h = _Convolution(self.features, self.kernel)(h)
            h = self.activation(nn.GroupNorm(num_groups=math.gcd(self.groups, self.features))(h))
            if layer == 0:
                h = h + nn.Dense(self.features)(time)[:, None]
        return h + nn.Dense(self.features)(x)  # what the normalisation takes away, the size of a window, goes this way


class _UNet(nn.Module):
    channels: int
    features: tuple[int, ...]
    kernel: int
    groups: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array, time: Array) -> Array:
        def block(features: int, x: Array) -> Array:
            return _Block(features, self.kernel, self.groups, self.activation)(x, time)

        skips = []
        for features in self.features[:-1]:
            skips.append(x := block(features, x))
            x = x.reshape(x.shape[0], -1, 2, features).max(axis=2)
        x = block(self.features[-1], x)
        for features, skip in zip(reversed(self.features[:-1]), reversed(skips), strict=True):
            x = _Convolution(features, 2)(jnp.repeat(x, 2, axis=1))
            x = block(features, jnp.concatenate([x, skip], axis=-1))
        return nn.Dense(self.channels)(x)


def temporal_unet(
    channels: int,
    features: Sequence[int] = (32, 64),
    *,
    kernel: int = 3,
    groups: int = 8,
    time_width: int = 16,
    activation: str = "relu",
) -> Network:
    """A one-dimensional U-Net: blocks of ``features`` channels, time halved between them, and back up with skips.

    Policy-Guided Diffusion uses ``features=(1024, 2048, 4096)`` and no linear paths beside its blocks; the default is
    a small one. ``L`` must be a multiple
    of ``2 ** (len(features) - 1)``, else ``ValueError``.
    """
    module = _UNet(channels, tuple(features), kernel, groups, resolve(activation))
    embedding = time_embedding("linear", time_width, activation="silu")
    factor = 2 ** (len(features) - 1)

    def init(key: Key) -> PyTree:
        embedding_key, body_key = jax.random.split(key)
        body = module.init(body_key, jnp.zeros((1, factor, channels)), jnp.zeros((1, time_width)))["params"]
        return {"time": embedding.init(embedding_key), "body": body}

    def apply(params: PyTree, x: Array, time: Array) -> Array:
        if x.ndim != 3 or x.shape[1] % factor or x.shape[2] != channels:
            raise ValueError(f"expected windows [B, L, {channels}] with L a multiple of {factor}, got shape {x.shape}")
        return jnp.asarray(module.apply({"params": params["body"]}, x, embedding.apply(params["time"], time)))

    return Network(init, apply)


def temporal_mlp(length: int, channels: int, hidden: Sequence[int] = (256, 256), activation: str = "mish") -> Network:
    """One perceptron for the whole window, ``L = length``: for short windows of few channels."""
    network = denoiser_mlp(Spec(0, length * channels), hidden, activation, embedding="linear")

    def apply(params: PyTree, x: Array, time: Array) -> Array:
        if x.shape[1:] != (length, channels):
            raise ValueError(f"expected windows [B, {length}, {channels}], got shape {x.shape}")
        return network.apply(params, x.reshape(x.shape[0], -1), time).reshape(x.shape)

    return Network(network.init, apply)

"""A conditional variational autoencoder of actions given observations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.networks.feedforward import mlp
from jaxrl_reg.types import Array, Key, PyTree, Spec


class VariationalAutoencoder(NamedTuple):
    """``init(key) -> params``; ``encode(params, observation [..., O], action [..., A]) -> (mean, log_std)``, both
    ``[..., Z]``; ``decode(params, observation, latent [..., Z]) -> action [..., A]`` in [-1, 1];
    ``apply(params, observation, action, key) -> (reconstruction, mean, log_std)`` with a sampled latent.
    """

    init: Callable[[Key], PyTree]
    encode: Callable[[PyTree, Array, Array], tuple[Array, Array]]
    decode: Callable[[PyTree, Array, Array], Array]
    apply: Callable[[PyTree, Array, Array, Key], tuple[Array, Array, Array]]


def action_vae(
    spec: Spec,
    hidden: Sequence[int] = (750, 750),
    latent: int | None = None,
    log_std_range: tuple[float, float] = (-4.0, 15.0),
) -> VariationalAutoencoder:
    """The autoencoder of BCQ, SPOT and A2PR: ReLU perceptrons of the given widths, a tanh at the end.

    ``latent``: its number of dimensions, twice those of the action if None. ``log_std`` is cut to ``log_std_range``.
    """
    size = 2 * spec.action_dim if latent is None else latent
    encoder = mlp((spec.observation_dim + spec.action_dim, *hidden, 2 * size))
    decoder = mlp((spec.observation_dim + size, *hidden, spec.action_dim), final_activation="tanh")

    def init(key: Key) -> PyTree:
        encoder_key, decoder_key = jax.random.split(key)
        return {"encoder": encoder.init(encoder_key), "decoder": decoder.init(decoder_key)}

    def encode(params: PyTree, observation: Array, action: Array) -> tuple[Array, Array]:
        out = encoder.apply(params["encoder"], jnp.concatenate([observation, action], axis=-1))
        mean, log_std = jnp.split(out, 2, axis=-1)
        return mean, jnp.clip(log_std, *log_std_range)

    def decode(params: PyTree, observation: Array, latent: Array) -> Array:
        return decoder.apply(params["decoder"], jnp.concatenate([observation, latent], axis=-1))

    def apply(params: PyTree, observation: Array, action: Array, key: Key) -> tuple[Array, Array, Array]:
        mean, log_std = encode(params, observation, action)
        sampled = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        return decode(params, observation, sampled), mean, log_std

    return VariationalAutoencoder(init, encode, decode, apply)

"""The space in which Behavior Retrieval compares transitions: a variational autoencoder of observation and action."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.networks import mlp
from jaxrl_reg.types import Array, Key, Metrics, PyTree, Spec, Transition


class StateActionVae(NamedTuple):
    """``init`` and ``loss`` as those of an ``Objective``; ``embed(params, observation [..., O], action [..., A]) ->
    [..., Z + A]``, the posterior mean and the raw action.
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, Transition, Key], tuple[Array, Metrics]]
    embed: Callable[[PyTree, Array, Array], Array]


def state_action_vae(
    spec: Spec, hidden: Sequence[int] = (300, 400), latent: int = 14, divergence_coef: float = 1e-4
) -> StateActionVae:
    """Autoencoder of ``(o, a)`` with the published objective: mean squared error per modality, both counting the same,
    plus ``divergence_coef`` times the divergence from the standard normal, summed over the latent dimensions.

    The action is appended to the embedding as it is, so that two transitions in one state with different actions never
    look alike, whatever the autoencoder dropped. Standardise observations first where their units differ.
    """
    size = spec.observation_dim + spec.action_dim
    encoder = mlp((size, *hidden, 2 * latent))
    decoder = mlp((latent, *hidden, size))

    def init(key: Key) -> PyTree:
        encoder_key, decoder_key = jax.random.split(key)
        return {"encoder": encoder.init(encoder_key), "decoder": decoder.init(decoder_key)}

    def encode(params: PyTree, observation: Array, action: Array) -> tuple[Array, Array]:
        out = encoder.apply(params["encoder"], jnp.concatenate([observation, action], -1))
        mean, log_std = jnp.split(out, 2, axis=-1)
        return mean, jnp.clip(log_std, -10.0, 2.0)

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        mean, log_std = encode(params, batch.observation, batch.action)
        sample = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        seen, done = jnp.split(decoder.apply(params["decoder"], sample), [spec.observation_dim], axis=-1)
        seen_error = losses.prediction_loss(seen, batch.observation).mean()
        done_error = losses.behaviour_cloning_loss(done, batch.action).mean()
        standard = jnp.zeros_like(mean)
        divergence = losses.gaussian_kl(mean, log_std, standard, standard).mean()
        total = 0.5 * (seen_error + done_error) + divergence_coef * divergence
        return total, {"loss": total, "observation_error": seen_error, "action_error": done_error, "kl": divergence}

    def embed(params: PyTree, observation: Array, action: Array) -> Array:
        return jnp.concatenate([encode(params, observation, action)[0], action], -1)

    return StateActionVae(init, loss, embed)

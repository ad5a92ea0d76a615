"""Encoders of state vectors that learn by telling hidden entries from shown ones: latents of them, or their values.

Both read a vector as one token per entry (``networks.feature_tokens``) and need neither actions nor augmentations. With
observation, action and next observation as one row, telling what is hidden is forward and inverse dynamics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.errors import UserError
from jaxrl_reg.networks.feature_tokens import FeatureTokens, feature_tokens
from jaxrl_reg.representation.masking import context_and_targets, dirichlet_mask
from jaxrl_reg.representation.objectives import Objective
from jaxrl_reg.transforms import polyak
from jaxrl_reg.types import Array, Key, Metrics, PyTree, Spec, Transition

MOMENTUM = 0.996  # of the target encoder at first; 1 at the end
CONTEXT, TARGET = (0.15, 0.4), (0.15, 0.5)  # shares of the entries


class SensorModel(NamedTuple):
    """An :class:`Objective` with ``impute(params, observation [..., O], visible [..., O]) -> [..., O]``, filling in."""

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, Transition, Key], tuple[Array, Metrics]]
    encode: Callable[[PyTree, Array], Array]
    impute: Callable[[PyTree, Array, Array], Array]
    advance: None = None


def masked_prediction(
    spec: Spec,
    hidden: Sequence[int] = (32, 32),
    heads: int = 4,
    *,
    predictor: Sequence[int] = (32, 32),
    registers: int = 1,
    targets: int = 4,
    context: tuple[float, float] = CONTEXT,
    target: tuple[float, float] = TARGET,
    detached: bool = True,
) -> Objective:
    """The tokens of hidden entries, as a slowly moving copy of the encoder sees them, from those that are shown.

    ``params["target"]`` follows ``params["encoder"]`` after every update (``Objective.advance``), with a momentum that
    rises from 0.996 to 1, and receives no gradient; with ``detached=False`` the encoder itself is the target and does,
    and everything collapses. Features are all tokens, registers first, flattened; keep those. Metrics: ``loss``;
    ``token_cosine``, mean cosine of a row's target tokens, which goes to 1 in a collapse.

    Source: Thimonier et al., 2025, T-JEPA: Augmentation-Free Self-Supervised Learning for Tabular Data.
    """
    count, width = spec.observation_dim, hidden[0]
    encoder = feature_tokens(count, hidden, heads, registers=registers)
    teller = feature_tokens(count, predictor, heads, registers=registers, inputs=width + 1, outputs=width)
    error = losses.prediction_loss if detached else lambda guess, aim: jnp.square(guess - aim).mean(-1)

    def init(key: Key) -> PyTree:
        first, second = jax.random.split(key)
        params = encoder.init(first)
        return {"encoder": params, "target": jax.tree.map(jnp.copy, params), "predictor": teller.init(second)}

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        x = batch.observation
        shown, hidden_sets = context_and_targets(key, x.shape[0], count, context, target, targets)
        aim = encoder.apply(params["target" if detached else "encoder"], x)
        seen = encoder.apply(params["encoder"], x, shown)[:, registers:]
        # A hidden entry is a token of zeros and a mark; its place comes from the predictor's own.
        marked = jnp.concatenate([jnp.where(shown[..., None], seen, 0.0), ~shown[..., None]], axis=-1)

        def told(asked: Array) -> Array:
            guess = teller.apply(params["predictor"], marked, shown | asked)[:, registers:]
            return losses.masked_mean(error(guess, aim[:, registers:]), asked)

        value = jax.vmap(told)(hidden_sets).mean()
        return value, {"loss": value, "token_cosine": jax.vmap(losses.token_cosine)(aim).mean()}

    def advance(params: PyTree, progress: Array) -> PyTree:
        rate = (1.0 - MOMENTUM) * (1.0 - progress)
        return {**params, "target": polyak(params["encoder"], params["target"], rate)}

    return Objective(init, loss, _flattened(encoder, "encoder"), advance)


def masked_sensors(
    spec: Spec,
    sizes: Sequence[int],
    hidden: Sequence[int] = (32, 32),
    heads: int = 4,
    *,
    decoder: Sequence[int] = (32,),
    keep: tuple[float, float] = (0.2, 0.6),
    concentration: float = 1.0,
) -> SensorModel:
    """The entries that are hidden back from those that are shown, whole groups of them (sensors) missing at a time.

    ``sizes`` are the entries of each sensor, side by side in the observation. The share of entries shown is drawn anew
    for every batch between the two of ``keep``: a model that has met one number only fails at others. ``impute`` then
    fills in whatever is missing, for policies that were not trained for it.

    Metrics: ``loss``, sum over sensors of the mean squared error of their hidden entries.

    Source: Robinet et al., 2025, Multimodal Masked Autoencoder Pre-training with Missing Modalities (BM-MAE).
    Raises ``UserError`` if the sizes do not add up to the observation's.
    """
    count, width = spec.observation_dim, hidden[0]
    if sum(sizes) != count:
        raise UserError(f"sizes {tuple(sizes)} make {sum(sizes)} entries; an observation has {count}")
    encoder = feature_tokens(count, hidden, heads)
    told = feature_tokens(count, decoder, heads, inputs=width + 1, outputs=1)
    group = jnp.repeat(jnp.arange(len(sizes)), jnp.array(sizes), total_repeat_length=count)

    def init(key: Key) -> PyTree:
        first, second = jax.random.split(key)
        return {"encoder": encoder.init(first), "decoder": told.init(second)}

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        x = batch.observation
        keep_key, mask_key = jax.random.split(key)
        share = jax.random.uniform(keep_key, minval=keep[0], maxval=keep[1])
        number = jnp.clip(jnp.round(share * count), 1, count - 1)
        visible = dirichlet_mask(mask_key, x.shape[0], sizes, number, concentration)
        guess = _decoded(encoder, told, params, x, visible)
        value = losses.group_reconstruction_loss(guess, x, visible, group, len(sizes))
        return value, {"loss": value}

    def impute(params: PyTree, observation: Array, visible: Array) -> Array:
        return jnp.where(visible > 0, observation, _decoded(encoder, told, params, observation, visible > 0))

    return SensorModel(init, loss, _flattened(encoder, "encoder"), impute)


def _decoded(encoder: FeatureTokens, told: FeatureTokens, params: PyTree, x: Array, visible: Array) -> Array:
    seen = encoder.apply(params["encoder"], jnp.where(visible, x, 0.0), visible)[..., 1:, :]
    marked = jnp.concatenate([jnp.where(visible[..., None], seen, 0.0), ~visible[..., None]], axis=-1)
    return told.apply(params["decoder"], marked)[..., 1:, 0]


def _flattened(encoder: FeatureTokens, name: str) -> Callable[[PyTree, Array], Array]:
    def encode(params: PyTree, observation: Array) -> Array:
        tokens = encoder.apply(params[name], observation)
        return tokens.reshape(*tokens.shape[:-2], -1)

    return encode

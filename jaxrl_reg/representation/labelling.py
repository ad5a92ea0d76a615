"""Actions for videos: a model of a few labelled episodes says which action lies between observations.

It may look at what comes after the action, and so needs far fewer labels than a policy that may not: between two
observations there is little to doubt, before the second there is the demonstrator's whole intention. What it labels is
an ordinary data set, to be cloned by any agent; rows weigh by confidence, or not, as the caller likes. Leaving out rows
in which nothing happened (null actions) makes a clone livelier but changes how often it acts: weigh them down instead.

Source: Baker et al., 2022, Video PreTraining (VPT): Learning to Act by Watching Unlabeled Online Videos. Left out:
convolutions and attention over time (the windows are short). What is cloned from keys and a camera may be
``policies.hierarchical``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.data.samplers import take_around
from jaxrl_reg.networks import mlp
from jaxrl_reg.representation.objectives import action_loss, factors
from jaxrl_reg.types import Array, Dataset, Key, Metrics, PyTree, Spec, Transition


class Labeller(NamedTuple):
    """``init`` and ``loss`` as those of an ``Objective``, with batches from ``samplers.around(radius)``;
    ``predict(params, window [B, W, O], mask [B, W]) -> (action [B, A], confidence [B])``.
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, Transition, Key], tuple[Array, Metrics]]
    predict: Callable[[PyTree, Array, Array], tuple[Array, Array]]
    radius: int


def labeller(
    spec: Spec,
    hidden: Sequence[int] = (256, 256),
    *,
    radius: int = 1,
    discrete: bool | Sequence[int] = False,
) -> Labeller:
    """A perceptron on the ``2 radius + 2`` observations around an action, not causal. Train it by ``loops.pretrain``.

    ``discrete``: actions are one-hot; learnt by likelihood, labelled by the most likely one, with its probability as
    confidence. As sizes, ``(2, 2, 11)``: several one-hot factors side by side (keys, camera bins), independent given
    the window; the confidence is the product of theirs. Otherwise by squared error, clipped to [-1, 1], with
    confidence 1.
    """
    network = mlp(((2 * radius + 2) * (spec.observation_dim + 1), *hidden, spec.action_dim))

    def guess(params: PyTree, window: Array, mask: Array) -> Array:
        seen = jnp.concatenate([window, mask[..., None]], -1)
        return network.apply(params, seen.reshape(*seen.shape[:-2], -1))

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        prediction = guess(params, batch.extras["window"], batch.extras["window_mask"])
        return action_loss(prediction, batch.action, discrete)

    def predict(params: PyTree, window: Array, mask: Array) -> tuple[Array, Array]:
        prediction = guess(params, window, mask)
        if not discrete:
            return jnp.clip(prediction, -1.0, 1.0), jnp.ones(prediction.shape[:-1])
        parts = factors(prediction, discrete)
        best = [jax.nn.one_hot(part.argmax(-1), part.shape[-1]) for part in parts]
        sure = jnp.stack([jax.nn.softmax(part).max(-1) for part in parts]).prod(0)
        return jnp.concatenate(best, -1), sure

    return Labeller(network.init, loss, predict, radius)


def label(videos: Dataset, model: Labeller, params: PyTree, *, block: int = 4096) -> Dataset:
    """``videos`` with the model's actions in place of their own, and ``extras["confidence"]`` ``[N]``.

    Labels come from the observations alone, ``block`` rows at a time; ``next_action`` follows suit. Pure: jit it with
    ``model`` and ``block`` static.
    """
    size = videos.size
    length = min(block, size)
    rows = jnp.minimum(jnp.arange(-(-size // length) * length), size - 1).reshape(-1, length)
    found = jax.lax.map(lambda rows: model.predict(params, *take_around(videos, rows, model.radius)), rows)
    action, confidence = (x.reshape(-1, *x.shape[2:])[:size] for x in found)
    following = jnp.where(videos.last[:, None] > 0, action, jnp.roll(action, -1, axis=0))
    extras = {**videos.extras, "confidence": confidence}
    return dataclasses.replace(videos, action=action, next_action=following, extras=extras)

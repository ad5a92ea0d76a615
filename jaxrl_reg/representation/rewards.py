"""A reward learnt from pairs of trajectory segments, to be put into a data set for any agent that learns from rewards.

Pairs fix a reward up to a constant per step only, and its scale by how sure the judge was. What is put into the data is
therefore standardised over the rows: mean 0, deviation 1. Where episodes terminate, that constant matters (it pays or
charges for staying alive), and no pair of segments of one length can say what it is.

Source: Christiano et al., 2017, Deep Reinforcement Learning from Human Preferences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.losses import bradley_terry_loss
from jaxrl_reg.networks import q_network
from jaxrl_reg.types import Array, Dataset, Key, Metrics, PyTree, Spec, Transition


class RewardModel(NamedTuple):
    """``init`` and ``loss`` as those of an ``Objective``, with batches of ``data.preferences.batches``;
    ``reward(params, observation [..., O], action [..., A]) -> [...]``.
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, Transition, Key], tuple[Array, Metrics]]
    reward: Callable[[PyTree, Array, Array], Array]


def reward_model(spec: Spec, hidden: Sequence[int] = (64, 64), members: int = 3) -> RewardModel:
    """Perceptrons on observation and action, ``members`` side by side, whose mean is the reward. Train it by
    ``loops.pretrain``, of ``preference.batches(length)``.

    A segment is worth the sum of its steps' rewards, and the chance that the first is preferred is the logistic
    function of the difference. Metrics: ``reward_loss`` in nats, ``agreement``, the share of pairs that the mean orders
    as the judge did.
    """
    network = q_network(spec, hidden, members)

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        said, mask = batch.extras["preference"], batch.extras["segment_mask"]
        steps = network.apply(params, batch.extras["segment_observation"], batch.extras["segment_action"])
        first, second = jnp.moveaxis((steps * mask).sum(-1), 1, 0)  # [members, P] each
        value = bradley_terry_loss(first, second, jnp.broadcast_to(said, first.shape)).mean()
        ordered = (first.mean(0) > second.mean(0)) == (said > 0.5)
        return value, {"reward_loss": value, "agreement": ordered.mean(dtype=jnp.float32)}

    def reward(params: PyTree, observation: Array, action: Array) -> Array:
        return network.apply(params, observation, action).mean(0)

    return RewardModel(network.init, loss, reward)


def with_reward(data: Dataset, model: RewardModel, params: PyTree, *, block: int = 4096) -> Dataset:
    """``data`` with the model's reward in place of its own, standardised over the rows, ``block`` of them at a time.

    Pure: jit it with ``model`` and ``block`` static.
    """
    found = jax.lax.map(lambda row: model.reward(params, *row), (data.observation, data.action), batch_size=block)
    reward = (found - found.mean()) / jnp.maximum(found.std(), 1e-6)
    return dataclasses.replace(data, reward=reward, dropped_reward=None, rewarded=True)

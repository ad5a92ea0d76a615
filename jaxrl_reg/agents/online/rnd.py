"""Random Network Distillation: soft actor-critic that seeks what it cannot yet predict; rewards are never looked at.

In words. A fixed random network f maps standardised next states to features, and a predictor g is trained to repeat
them. Where g is wrong the state is new: the reward of a transition is ||g(s') - f(s')||^2 divided by its running mean.
It is computed anew for every batch, so what has become familiar pays less also in old rows. Everything else is SAC.
Order: running moments, rewards, predictor, then SAC's own update.

Metrics: SAC's, and ``predictor_loss``, the mean error of g on the batch, summed over features; ``novelty`` its running
mean, the unit of the reward.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import networks
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.online import sac
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, PyTree, Spec, Transition, pytree, setting

PAPER = Paper(
    title="Exploration by Random Network Distillation",
    authors="Burda, Edwards, Storkey, Klimov",
    year=2018,
    url="https://arxiv.org/abs/1810.12894",
    deviations="SAC instead of PPO, and no other reward. Rewards are relabelled in every batch, in units of their "
    "running mean instead of the standard deviation of returns. Episode ends count as in the environment.",
)
KIND = "off_policy"
PROTOCOL = Protocol(rewards=False, note="Learns in the environment.")
CLIP = 5.0  # standardised states, so that one far away does not blind the networks


@dataclasses.dataclass(frozen=True)
class Config(sac.Config):
    """SAC's, and the features."""

    features: int = setting(default=64, help="outputs of the random network")


@pytree
class Hyper(sac.Hyper):
    """SAC's, and the predictor's."""

    predictor_learning_rate: float = setting(default=1e-4, help="Adam step size of the predictor")
    novelty_rate: float = setting(default=0.01, help="step of the running mean that is the unit of the reward")


class Moments(NamedTuple):
    """Mean and variance ``[O]`` of all next states seen so far, each time they were drawn, and their number."""

    count: Array
    mean: Array
    variance: Array


class State(NamedTuple):
    base: sac.State
    predictor: _common.Trainable
    target_features: PyTree  # the random network, which never moves
    moments: Moments
    novelty: Array

    @property
    def actor(self) -> _common.Trainable:
        return self.base.actor


def make(config: Config, spec: Spec) -> Agent:
    base = sac.make(config, spec)
    network = networks.mlp((spec.observation_dim, *config.hidden, config.features))

    def init(key: Key, hyper: Hyper) -> State:
        base_key, predictor_key, feature_key = jax.random.split(key, 3)
        zeros, ones = jnp.zeros(spec.observation_dim), jnp.ones(spec.observation_dim)
        return State(
            base.init(base_key, hyper),
            _common.trainable(network.init(predictor_key), adam(hyper.predictor_learning_rate)),
            network.init(feature_key),
            Moments(jnp.float32(1.0), zeros, ones),
            jnp.float32(1.0),
        )

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        moments = observe(state.moments, batch.next_observation)
        seen = (batch.next_observation - moments.mean) * jax.lax.rsqrt(moments.variance + 1e-6)
        seen = jnp.clip(seen, -CLIP, CLIP)
        features = network.apply(state.target_features, seen)

        def predictor_loss(params):
            error = jnp.square(network.apply(params, seen) - features).sum(axis=-1)
            return error.mean(), error

        predictor, error = _common.descend(predictor_loss, state.predictor, adam(hyper.predictor_learning_rate))
        mean = error.mean()
        # The first batch sets the unit: its scale depends on the network.
        novelty = jnp.where(step == 0, mean, state.novelty + hyper.novelty_rate * (mean - state.novelty))
        reward = error / jnp.maximum(novelty, 1e-8)
        inner, metrics = base.update(state.base, dataclasses.replace(batch, reward=reward), hyper, key, step)
        metrics = {**metrics, "predictor_loss": mean, "novelty": novelty}
        return State(inner, predictor, state.target_features, moments, novelty), metrics

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        return base.act(state.base, observation, hyper, key, explore)

    return Agent(init, update, act, kind=KIND)


def observe(moments: Moments, states: Array) -> Moments:
    """The moments after a batch ``[B, O]`` more, exactly as if computed over all of it at once."""
    size = states.shape[0]
    total = moments.count + size
    gap = states.mean(axis=0) - moments.mean
    within = moments.count * moments.variance + size * states.var(axis=0)
    between = jnp.square(gap) * moments.count * size / total
    return Moments(total, moments.mean + gap * size / total, (within + between) / total)

"""SAC-N: soft actor-critic with the minimum of many critics, which is pessimistic where they disagree.

In words. Temperature alpha: raised while the policy's entropy is below its target. Actor: maximise min_j Q_j(s, pi(s))
- alpha log pi, over all N critics. Critics: each fits y = r + gamma d (min_j Q'_j(s', a') - alpha log pi(a'|s')), a'
sampled from the policy. Order: temperature, actor, critics, targets; each uses what the ones before it learned.

Metrics: ``critic_loss`` sum over critics of the mean squared TD error, with any added penalty; ``q`` mean value of data
actions; ``q_std`` mean over rows of the critics' standard deviation; ``actor_loss``; ``entropy`` sampled, in nats;
``temperature`` alpha; with ``beer`` also ``beer_loss``, see ``_beer``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _beer, _common, _soft
from jaxrl_reg.policies import gaussian
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import (
    Agent,
    Array,
    Key,
    Metrics,
    Network,
    Paper,
    Protocol,
    PyTree,
    Spec,
    Transition,
    pytree,
    setting,
)

PAPER = Paper(
    title="Uncertainty-Based Offline Reinforcement Learning with Diversified Q-Ensemble",
    authors="An, Moon, Kim, Song",
    year=2021,
    url="https://arxiv.org/abs/2110.01548",
    deviations="PyTorch-style initialisation of every layer. The temperature's loss multiplies by alpha, as in the SAC "
    "paper, where released code multiplies by log alpha.",
)
KIND = "offline"
PROTOCOL = Protocol(batch_size=256, updates=3_000_000)


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(256, 256, 256), help="widths of the hidden layers")
    n_critics: int = setting(
        default=10, help="number of critics; the paper: 10 halfcheetah, 20 walker2d, 200 to 500 hopper"
    )
    target_entropy: float | None = setting(default=None, help="in nats; None: minus the number of action dimensions")
    beer: float = _beer.coefficient()
    measure_features: bool = _beer.measured()


@pytree
class Hyper:
    actor_learning_rate: float = setting(default=3e-4, help="Adam step size of the actor")
    critic_learning_rate: float = setting(default=3e-4, help="Adam step size of the critics")
    temperature_learning_rate: float = setting(default=3e-4, help="Adam step size of the log temperature")
    discount: float = setting(default=0.99, help="gamma")
    tau: float = setting(default=0.005, help="step of the target critics towards the online ones")


class State(NamedTuple):
    actor: _common.Trainable
    critic: _common.Trainable
    log_temperature: _common.Trainable
    target_critic: PyTree


# Its last argument is the caller's own Hyper, which may have more fields than this one.
CriticPenalty = Callable[[Network, PyTree, Transition, Any], tuple[Array, Metrics]]


def make(config: Config, spec: Spec, critic_penalty: CriticPenalty | None = None) -> Agent:
    """SAC-N; ``critic_penalty(q, params, batch, hyper) -> (scalar, metrics)`` is added to the critics' loss (EDAC)."""
    target_entropy = -spec.action_dim if config.target_entropy is None else config.target_entropy
    policy = gaussian.squashed(spec, config.hidden)
    q = networks.q_network(spec, config.hidden, config.n_critics)

    def init(key: Key, hyper: Hyper) -> State:
        actor_key, critic_key = jax.random.split(key)
        critic = q.init(critic_key)
        return State(
            _common.trainable(policy.init(actor_key), adam(hyper.actor_learning_rate)),
            _common.trainable(critic, adam(hyper.critic_learning_rate)),
            _common.trainable(jnp.zeros(()), adam(hyper.temperature_learning_rate)),
            _common.copy(critic),
        )

    def bootstrap(state: State, batch: Transition, hyper: Hyper, key: Key) -> tuple[Array, _beer.Following]:
        temperature = jnp.exp(state.log_temperature.params)
        next_action, next_log_prob = policy.sample(state.actor.params, batch.next_observation, key)
        next_q, features = q.apply(state.target_critic, batch.next_observation, next_action, features=True)
        target = losses.soft_td_target(batch.reward, batch.discount, next_q, next_log_prob, hyper.discount, temperature)
        return target, _beer.following(features, next_q, target, batch, hyper.discount)

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        temperature_key, actor_key, critic_key = jax.random.split(key, 3)
        log_prob = policy.sample(state.actor.params, batch.observation, temperature_key)[1]
        optimiser = adam(hyper.temperature_learning_rate)
        log_temperature = _soft.temperature_step(state.log_temperature, log_prob, target_entropy, optimiser)
        temperature = jnp.exp(log_temperature.params)

        def value(action):
            return q.apply(state.critic.params, batch.observation, action).min(axis=0)

        actor_loss = _soft.actor_loss(policy, value, temperature, batch.observation, actor_key)
        actor, (_, actor_metrics) = _common.descend(actor_loss, state.actor, adam(hyper.actor_learning_rate))

        learnt = state._replace(actor=actor, log_temperature=log_temperature)
        target, following = bootstrap(learnt, batch, hyper, critic_key)

        def critic_loss(params):
            values, features = q.apply(params, batch.observation, batch.action, features=True)
            loss, metrics = losses.ensemble_td_error(values, target).mean(), {}
            if critic_penalty is not None:
                penalty, metrics = critic_penalty(q, params, batch, hyper)
                loss = loss + penalty
            metrics = {"critic_loss": loss, "q": values.mean(), "q_std": values.std(axis=0).mean(), **metrics}
            return _beer.regularise(config.beer, loss, metrics, params, features, following)

        critic, critic_metrics = _common.descend(critic_loss, state.critic, adam(hyper.critic_learning_rate))
        target_critic = polyak(critic.params, state.target_critic, hyper.tau)
        return State(actor, critic, log_temperature, target_critic), {**actor_metrics, **critic_metrics}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        if explore:
            return policy.sample(state.actor.params, observation, key)[0]
        return policy.mode(state.actor.params, observation)

    return Agent(init, update, act, measure=_beer.measure(config.measure_features, q, bootstrap))

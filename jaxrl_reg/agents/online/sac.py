"""Soft Actor-Critic: maximise return plus entropy, with the price of entropy found automatically.

In words. Critics: all fit y = r + gamma d (min_j Q'_j(s', a') - alpha log pi(a'|s')), a' drawn from the policy. Actor:
minimise alpha log pi(a|s) - min_j Q_j(s, a) at its own reparameterised action. Temperature alpha: moves so that the
policy's entropy approaches ``-target_entropy_factor`` times the number of action dimensions. Q' follows Q slowly.
Order: critics, actor, temperature, targets.

Metrics: ``critic_loss`` sum over critics of the mean squared TD error; ``q`` mean value of the batch's actions;
``actor_loss``; ``entropy`` of the policy, nats; ``temperature`` alpha, reward per nat; with ``beer`` also
``beer_loss``, see ``_beer``, and with switches against the loss of plasticity what ``_switches`` names.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import losses
from jaxrl_reg.agents import _beer, _common, _critics, _plasticity, _resets, _soft, _switches
from jaxrl_reg.agents.anchoring import divergence
from jaxrl_reg.policies import gaussian
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, PyTree, Spec, Transition, pytree, setting

PAPER = Paper(
    title="Soft Actor-Critic Algorithms and Applications",
    authors="Haarnoja, Zhou, Hartikainen, Tucker, Ha, Tan, Kumar, Zhu, Gupta, Abbeel, Levine",
    year=2018,
    url="https://arxiv.org/abs/1812.05905",
    deviations="The log standard deviation is held in [-5, 2]. PyTorch-style initialisation.",
)
KIND = "off_policy"
PROTOCOL = Protocol(batch_size=256, note="Learns in the environment; on data it has no published protocol.")


@dataclasses.dataclass(frozen=True)
class Config(_switches.Switches):
    hidden: tuple[int, ...] = setting(default=(256, 256), help="widths of the hidden layers")
    n_critics: int = setting(default=2, help="number of critics; their minimum is used")
    critic_layer_norm: str = setting(default="none", help="LayerNorm in the critics: none, before, every or first_tanh")
    initial_temperature: float = setting(default=1.0, help="alpha at the start of training")
    beer: float = _beer.coefficient()
    measure_features: bool = _beer.measured()


@pytree
class Hyper:
    actor_learning_rate: float = setting(default=3e-4, help="Adam step size of the actor")
    critic_learning_rate: float = setting(default=3e-4, help="Adam step size of the critics")
    temperature_learning_rate: float = setting(default=3e-4, help="Adam step size of the logarithm of alpha")
    discount: float = setting(default=0.99, help="gamma")
    tau: float = setting(default=0.005, help="step of the target critics towards the online ones")
    target_entropy_factor: float = setting(default=1.0, help="target entropy in nats per action dimension, sign turned")


class State(NamedTuple):
    actor: _common.Trainable
    critic: _common.Trainable
    log_temperature: _common.Trainable
    target_critic: PyTree
    kept: _switches.Kept = _switches.Kept()


def make(
    config: Config,
    spec: Spec,
    penalty: _common.Penalty | None = None,
    transform: _common.Transform | None = None,
) -> Agent:
    """Soft actor-critic; ``penalty`` and ``transform`` hold the actor as they do in ``ppo.make``."""
    policy = gaussian.squashed(spec, config.hidden)
    q = _critics.critics(config, spec, config.hidden)

    def optimiser(hyper: Hyper) -> optax.GradientTransformation:
        return _common.held(transform, hyper, adam(hyper.actor_learning_rate))

    def init(key: Key, hyper: Hyper) -> State:
        actor_key, critic_key = jax.random.split(key)
        critic = q.init(critic_key)
        log_temperature = jnp.float32(math.log(config.initial_temperature))
        actor = policy.init(actor_key)
        kept = _plasticity.remembered(config, actor, critic)
        return State(
            _common.trainable(actor, optimiser(hyper)),
            _common.trainable(critic, _plasticity.optimiser(config, hyper.critic_learning_rate, kept.start)),
            _common.trainable(log_temperature, adam(hyper.temperature_learning_rate)),
            _common.copy(critic),
            kept,
        )

    def bootstrap(state: State, batch: Transition, hyper: Hyper, key: Key) -> tuple[Array, ...]:
        temperature = jnp.exp(state.log_temperature.params)
        next_action, next_log_prob = policy.sample(state.actor.params, batch.next_observation, key)
        next_q, features = q.apply(state.target_critic, batch.next_observation, next_action, features=True)
        target = losses.soft_td_target(batch.reward, batch.discount, next_q, next_log_prob, hyper.discount, temperature)
        return temperature, next_action, target, _beer.following(features, next_q, target, batch, hyper.discount)

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        next_key, actor_key = jax.random.split(key)
        temperature, *bootstrapped = bootstrap(state, batch, hyper, next_key)
        critic, critic_metrics = _critics.critic_step(
            config, q, state, hyper.critic_learning_rate, batch, tuple(bootstrapped)
        )

        def value(action):
            return q.apply(critic.params, batch.observation, action).min(axis=0)

        counted = functools.partial(_plasticity.seen, config.policy_churn)
        soft = _soft.actor_loss(policy, value, temperature, batch.observation, actor_key, counted)

        def actor_loss(params):
            loss, (log_prob, metrics) = soft(params)
            spoken = policy.apply(params, batch.observation) if penalty is not None else None
            loss, metrics = _common.penalised(penalty, (loss, metrics), spoken, batch.observation, hyper, step)
            return loss, {**metrics, "log_prob": log_prob}

        held = _plasticity.holding(config, actor_loss, divergence, policy.apply, batch.observation, state.kept)
        actor, actor_metrics = _common.descend(held, state.actor, optimiser(hyper))
        log_prob, target_entropy = actor_metrics.pop("log_prob"), -hyper.target_entropy_factor * spec.action_dim
        log_temperature = _soft.temperature_step(
            state.log_temperature, log_prob, target_entropy, adam(hyper.temperature_learning_rate)
        )
        kept = _plasticity.moved_on(config, state.kept, state.critic.params, state.actor.params)
        state = State(actor, critic, log_temperature, polyak(critic.params, state.target_critic, hyper.tau), kept)
        return state, {**critic_metrics, **actor_metrics}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        if explore:
            return policy.sample(state.actor.params, observation, key)[0]
        return policy.mode(state.actor.params, observation)

    def distribution(state: State, params: PyTree, observation: Array) -> tuple[Array, Array]:
        return policy.apply(params, observation)

    measure = _beer.measure(config.measure_features, q, bootstrap)
    agent = Agent(init, update, act, measure=measure, kind=KIND, distribution=distribution, q=_common.least_value(q))
    return _resets.switched(config, agent, q)

"""CrossQ: soft actor-critic without target networks, its critics batch-renormalised over both sides of the equation.

In words. Critics: one pass over the rows ``(s, a)`` and ``(s', a')`` together, ``a'`` drawn from the policy, so that
batch normalisation sees the mixture of both; then all fit y = r + gamma d (min_j Q_j(s', a') - alpha log pi(a'|s')), no
gradient into y. Actor and temperature as in SAC, every ``policy_delay`` updates, through the running statistics.
Adam's first decay is 0.5. Values are comparable with each other, not calibrated: acting and learning standardise by
other moments.

Metrics: ``critic_loss`` sum over critics of the mean squared TD error; ``q`` mean value of the batch's actions; of the
latest actor update ``actor_loss``, ``entropy`` (nats) and ``temperature`` alpha, reward per nat.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents import _common, _soft
from jaxrl_reg.networks.normalisation import renormalised_mlp
from jaxrl_reg.policies import gaussian
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, PyTree, Spec, Transition, pytree, setting

PAPER = Paper(
    title="CrossQ: Batch Normalization in Deep Reinforcement Learning for Greater Sample Efficiency and Simplicity",
    authors="Bhatt, Palenicek, Belousov, Argus, Amiranashvili, Brox, Peters",
    year=2024,
    url="https://openreview.net/forum?id=PczQtTsTIX",
    deviations="Critics of 512 units instead of 2048, so that they train on a CPU: critic_hidden=2048x2048 is the "
    "paper's. The log standard deviation is held in [-5, 2]. PyTorch-style initialisation.",
)
KIND = "off_policy"
PROTOCOL = Protocol(batch_size=256, note="Learns in the environment; on data it has no published protocol.")


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(256, 256), help="widths of the hidden layers of the actor")
    critic_hidden: tuple[int, ...] = setting(default=(512, 512), help="widths of the hidden layers of the critics")
    n_critics: int = setting(default=2, help="number of critics; their minimum is used")
    policy_delay: int = setting(default=3, help="critic updates per update of actor and temperature")
    initial_temperature: float = setting(default=1.0, help="alpha at the start of training")
    renorm_warmup: int = setting(
        default=100_000, help="updates with plain batch normalisation before it is renormalised"
    )


@pytree
class Hyper:
    actor_learning_rate: float = setting(default=1e-3, help="Adam step size of the actor")
    critic_learning_rate: float = setting(default=1e-3, help="Adam step size of the critics")
    temperature_learning_rate: float = setting(default=1e-3, help="Adam step size of the logarithm of alpha")
    discount: float = setting(default=0.99, help="gamma")
    target_entropy_factor: float = setting(default=1.0, help="target entropy in nats per action dimension, sign turned")


class State(NamedTuple):
    actor: _common.Trainable
    critic: _common.Trainable
    log_temperature: _common.Trainable
    moments: PyTree  # running statistics of the critics' layers, [N, D] each
    actor_metrics: Metrics  # of the latest actor update


def make(config: Config, spec: Spec) -> Agent:
    policy = gaussian.squashed(spec, config.hidden)
    network = renormalised_mlp((spec.observation_dim + spec.action_dim, *config.critic_hidden, 1), config.renorm_warmup)

    def q(params: PyTree, moments: PyTree, observation: Array, action: Array, train: bool) -> tuple[Array, PyTree]:
        """Values ``[N, B]`` and the statistics after them."""
        x = jnp.concatenate([observation, action], axis=-1)
        values, moments = jax.vmap(network.apply, (0, 0, None, None))(params, moments, x, train)
        return values[..., 0], moments

    def optimisers(hyper: Hyper) -> list[Any]:
        rates = hyper.actor_learning_rate, hyper.critic_learning_rate, hyper.temperature_learning_rate
        return [adam(rate, b1=0.5) for rate in rates]

    def init(key: Key, hyper: Hyper) -> State:
        actor_key, critic_key = jax.random.split(key)
        critic = jax.vmap(network.init)(jax.random.split(critic_key, config.n_critics))
        params = policy.init(actor_key), critic, jnp.float32(math.log(config.initial_temperature))
        moments = jax.tree.map(lambda x: jnp.stack([x] * config.n_critics), network.start())
        metrics = {name: jnp.zeros(()) for name in ("actor_loss", "entropy", "temperature")}
        return State(*map(_common.trainable, params, optimisers(hyper)), moments, metrics)

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array | int) -> tuple[State, Metrics]:
        next_key, actor_key = jax.random.split(key)
        of_actor, of_critic, of_temperature = optimisers(hyper)
        temperature, rows = jnp.exp(state.log_temperature.params), len(batch.reward)
        next_action, next_log_prob = policy.sample(state.actor.params, batch.next_observation, next_key)
        both = (
            jnp.concatenate([batch.observation, batch.next_observation]),
            jnp.concatenate([batch.action, next_action]),
        )

        def critic_loss(params):
            values, moments = q(params, state.moments, *both, True)
            now, after = values[:, :rows], jax.lax.stop_gradient(values[:, rows:])
            target = losses.soft_td_target(
                batch.reward, batch.discount, after, next_log_prob, hyper.discount, temperature
            )
            loss = losses.ensemble_td_error(now, target).mean()
            return loss, (moments, {"critic_loss": loss, "q": now.mean()})

        critic, (moments, metrics) = _common.descend(critic_loss, state.critic, of_critic)

        def value(action):
            return q(critic.params, moments, batch.observation, action, False)[0].min(axis=0)

        actor_loss = _soft.actor_loss(policy, value, temperature, batch.observation, actor_key)

        def delayed():
            actor, (log_prob, found) = _common.descend(actor_loss, state.actor, of_actor)
            wanted = -hyper.target_entropy_factor * spec.action_dim
            return actor, _soft.temperature_step(state.log_temperature, log_prob, wanted, of_temperature), found

        unchanged = state.actor, state.log_temperature, state.actor_metrics
        actor, log_temperature, found = _common.every(config.policy_delay, step, delayed, unchanged)
        return State(actor, critic, log_temperature, moments, found), {**metrics, **found}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        if explore:
            return policy.sample(state.actor.params, observation, key)[0]
        return policy.mode(state.actor.params, observation)

    def distribution(state: State, params: PyTree, observation: Array) -> tuple[Array, Array]:
        return policy.apply(params, observation)

    def least(state: State, observation: Array, action: Array) -> Array:
        return q(state.critic.params, state.moments, observation, action, False)[0].min(axis=0)

    cycle = _common.cycle(update, config.policy_delay)
    return Agent(init, update, act, kind=KIND, cycle=cycle, distribution=distribution, q=least)

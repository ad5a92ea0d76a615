"""Implicit Q-Learning: never asks the critics about an action that is not in the data.

In words. Value: V(s) is the ``expectile`` of min_j Q'_j(s, a) over the data's actions, so it leans towards the best of
them. Critics: both fit y = r + gamma d V(s'). Actor: maximise the log-density of the data's actions, weighted by
exp(inverse_temperature (min_j Q'_j(s, a) - V(s))), cut at ``max_weight``. Q' is the slowly moving copy of the critics.
Order: value, actor, critics, targets.

Metrics: ``value_loss``, ``critic_loss`` (sum over critics of the mean squared TD error), ``actor_loss``; ``v`` and
``q`` mean values on the batch; ``advantage`` mean of Q' - V; ``weight`` mean actor weight.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _common
from jaxrl_reg.policies import gaussian
from jaxrl_reg.transforms import polyak
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, PyTree, Spec, Transition, pytree, setting

PAPER = Paper(
    title="Offline Reinforcement Learning with Implicit Q-Learning",
    authors="Kostrikov, Nair, Levine",
    year=2021,
    url="https://arxiv.org/abs/2110.06169",
    deviations="The advantage in the actor's weight uses V as it was before this step's update, which saves a forward "
    "pass; the released code uses V after it. PyTorch-style initialisation instead of orthogonal.",
)
KIND = "offline"


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting((256, 256), "widths of the hidden layers")
    n_critics: int = setting(2, "number of critics; their minimum is used")
    layer_norm: str = setting("none", "LayerNorm in critics and value: none, every or first_tanh")
    actor_dropout: float = setting(0.0, "dropout in the actor; 0.1 for Kitchen and Adroit")
    max_weight: float = setting(100.0, "largest weight of a row in the actor loss")
    decay_steps: int = setting(1_000_000, "updates over which the actor's learning rate falls to 0; 0: constant")


@pytree
class Hyper:
    actor_learning_rate: float = setting(3e-4, "Adam step size of the actor, before decay")
    critic_learning_rate: float = setting(3e-4, "Adam step size of the critics")
    value_learning_rate: float = setting(3e-4, "Adam step size of the value")
    discount: float = setting(0.99, "gamma")
    tau: float = setting(0.005, "step of the target critics towards the online ones")
    expectile: float = setting(0.7, "0.5: mean over the data's actions, towards 1: maximum; 0.9 for AntMaze")
    inverse_temperature: float = setting(3.0, "beta of the actor's weights; 10 for AntMaze, 0.5 for Kitchen and Adroit")


class State(NamedTuple):
    actor: _common.Trainable
    critic: _common.Trainable
    value: _common.Trainable
    target_critic: PyTree


def make(config: Config, spec: Spec) -> Agent:
    policy = gaussian.clipped(spec, config.hidden, dropout=config.actor_dropout)
    q = networks.q_network(spec, config.hidden, config.n_critics, layer_norm=config.layer_norm)
    v = networks.value_network(spec, config.hidden, layer_norm=config.layer_norm)

    def init(key: Key, hyper: Hyper) -> State:
        actor_key, critic_key, value_key = jax.random.split(key, 3)
        critic = q.init(critic_key)
        return State(
            _common.trainable(policy.init(actor_key), optax.adam(hyper.actor_learning_rate)),
            _common.trainable(critic, optax.adam(hyper.critic_learning_rate)),
            _common.trainable(v.init(value_key), optax.adam(hyper.value_learning_rate)),
            _common.copy(critic),
        )

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        target_q = q.apply(state.target_critic, batch.observation, batch.action).min(axis=0)

        def value_loss(params):
            values = v.apply(params, batch.observation)
            advantage = target_q - values
            loss = losses.expectile_loss(advantage, hyper.expectile).mean()
            return loss, (advantage, {"value_loss": loss, "v": values.mean(), "advantage": advantage.mean()})

        value, (advantage, value_metrics) = _common.descend(
            value_loss, state.value, optax.adam(hyper.value_learning_rate)
        )
        weight = losses.awr_weight(advantage, hyper.inverse_temperature, config.max_weight)

        def actor_loss(params):
            dropout = {"key": key} if config.actor_dropout > 0 else {}
            log_prob = policy.log_prob(params, batch.observation, batch.action, **dropout)
            loss = losses.weighted_log_prob_loss(log_prob, weight).mean()
            return loss, {"actor_loss": loss, "weight": weight.mean()}

        learning_rate = _common.cosine(hyper.actor_learning_rate, step, config.decay_steps)
        actor, actor_metrics = _common.descend(actor_loss, state.actor, optax.adam(learning_rate))

        next_value = v.apply(value.params, batch.next_observation)
        target = losses.td_target(batch.reward, batch.discount, next_value, hyper.discount)

        def critic_loss(params):
            values = q.apply(params, batch.observation, batch.action)
            loss = losses.ensemble_td_error(values, target).mean()
            return loss, {"critic_loss": loss, "q": values.mean()}

        critic, critic_metrics = _common.descend(critic_loss, state.critic, optax.adam(hyper.critic_learning_rate))
        state = State(actor, critic, value, polyak(critic.params, state.target_critic, hyper.tau))
        return state, {**value_metrics, **actor_metrics, **critic_metrics}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        if not explore:
            return policy.mode(state.actor.params, observation)
        return jnp.clip(policy.sample(state.actor.params, observation, key)[0], -1.0, 1.0)

    return Agent(init, update, act)

"""TD3: a deterministic actor and two critics, with three cures for overestimation.

In words. Critics: all fit y = r + gamma d min_j Q'_j(s', a'), with a' the target actor's action plus clipped noise.
Actor, every ``policy_freq`` updates: maximise Q_1(s, pi(s)). Target networks move only with the actor.

Metrics: ``critic_loss`` sum over critics of the mean squared TD error; ``q`` mean value of the batch's actions;
``actor_loss`` of the latest actor update, which is minus the mean Q_1 of the policy's own actions.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _common
from jaxrl_reg.policies import deterministic
from jaxrl_reg.transforms import polyak
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, PyTree, Spec, Transition, pytree, setting

PAPER = Paper(
    title="Addressing Function Approximation Error in Actor-Critic Methods",
    authors="Fujimoto, van Hoof, Meger",
    year=2018,
    url="https://arxiv.org/abs/1802.09477",
    deviations="The first update, step 0, already moves the actor; the released code starts with the second.",
)
KIND = "off_policy"


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting((256, 256), "widths of the hidden layers")
    n_critics: int = setting(2, "number of critics; the target takes their minimum")
    critic_layer_norm: str = setting("none", "LayerNorm in the critics: none, every or first_tanh")
    policy_freq: int = setting(2, "critic updates per actor update")
    exploration_noise: float = setting(0.1, "scale of the noise when the policy explores")


@pytree
class Hyper:
    actor_learning_rate: float = setting(3e-4, "Adam step size of the actor")
    critic_learning_rate: float = setting(3e-4, "Adam step size of the critics")
    discount: float = setting(0.99, "gamma")
    tau: float = setting(0.005, "step of the target networks towards the online ones")
    target_noise: float = setting(0.2, "scale of the noise on target actions")
    noise_clip: float = setting(0.5, "largest noise on target actions")


class State(NamedTuple):
    actor: _common.Trainable
    critic: _common.Trainable
    target_actor: PyTree
    target_critic: PyTree
    actor_metrics: Metrics  # of the latest actor update, so that means over a segment are not diluted


def make(config: Config, spec: Spec) -> Agent:
    actor_network = deterministic.make(spec, config.hidden)
    q = networks.q_network(spec, config.hidden, config.n_critics, layer_norm=config.critic_layer_norm)

    def init(key: Key, hyper: Hyper) -> State:
        actor_key, critic_key = jax.random.split(key)
        actor, critic = actor_network.init(actor_key), q.init(critic_key)
        return State(
            _common.trainable(actor, optax.adam(hyper.actor_learning_rate)),
            _common.trainable(critic, optax.adam(hyper.critic_learning_rate)),
            _common.copy(actor),
            _common.copy(critic),
            {"actor_loss": jnp.zeros(())},
        )

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        next_action = actor_network.apply(state.target_actor, batch.next_observation)
        next_action = deterministic.smoothed(next_action, key, hyper.target_noise, hyper.noise_clip)
        next_q = q.apply(state.target_critic, batch.next_observation, next_action)
        target = losses.clipped_double_q_target(batch.reward, batch.discount, next_q, hyper.discount)

        def critic_loss(params):
            values = q.apply(params, batch.observation, batch.action)
            loss = losses.ensemble_td_error(values, target).mean()
            return loss, {"critic_loss": loss, "q": values.mean()}

        critic, metrics = _common.descend(critic_loss, state.critic, optax.adam(hyper.critic_learning_rate))

        def actor_loss(params):
            action = actor_network.apply(params, batch.observation)
            loss = -q.apply(networks.members(critic.params, 1), batch.observation, action)[0].mean()
            return loss, {"actor_loss": loss}

        def delayed():
            actor, actor_metrics = _common.descend(actor_loss, state.actor, optax.adam(hyper.actor_learning_rate))
            return (
                actor,
                polyak(actor.params, state.target_actor, hyper.tau),
                polyak(critic.params, state.target_critic, hyper.tau),
                actor_metrics,
            )

        unchanged = state.actor, state.target_actor, state.target_critic, state.actor_metrics
        actor, target_actor, target_critic, actor_metrics = _common.every(config.policy_freq, step, delayed, unchanged)
        return State(actor, critic, target_actor, target_critic, actor_metrics), {**metrics, **actor_metrics}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        action = actor_network.apply(state.actor.params, observation)
        return deterministic.explore(action, key, config.exploration_noise) if explore else action

    return Agent(init, update, act)

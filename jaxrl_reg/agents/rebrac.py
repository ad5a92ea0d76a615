"""ReBRAC: TD3+BC with the penalty in the target as well, and LayerNorm in deeper critics.

In words. Critics: fit y = r + gamma d (min_j Q'_j(s', a') - critic_bc_coef |a' - a'_data|^2), with a' the target
actor's action plus clipped noise and a'_data the data's next action. Actor, every ``policy_freq`` updates: minimise
actor_bc_coef |pi(s) - a|^2 - min_j Q_j(s, pi(s)) / mean |Q|, the divisor held constant. Both squared norms are sums
over action dimensions. Target networks move only with the actor.

Metrics: ``critic_loss`` sum over critics of the mean squared TD error; ``q`` mean value of data actions; ``target``
mean TD target; ``actor_loss``, ``bc_loss`` (mean squared distance per dimension of pi(s) to a) and ``q_policy`` (mean
of the smallest Q of the policy's actions), all three of the latest actor update.
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
    title="Revisiting the Minimalist Approach to Offline Reinforcement Learning",
    authors="Tarasov, Kurenkov, Nikulin, Kolesnikov",
    year=2023,
    url="https://arxiv.org/abs/2305.09836",
    deviations="The target actor averages the actor as it is after this step; the released code averages the one from "
    "before it, a lag of one actor update. PyTorch-style initialisation of every layer. Batch size is a setting of the "
    "run; the paper uses 1024.",
)
KIND = "offline"


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting((256, 256, 256), "widths of the hidden layers")
    n_critics: int = setting(2, "number of critics; their minimum is used")
    critic_layer_norm: str = setting("every", "LayerNorm in the critics: none, every or first_tanh")
    actor_layer_norm: str = setting("none", "LayerNorm in the actor: none, every or first_tanh")
    policy_freq: int = setting(2, "critic updates per actor update")
    exploration_noise: float = setting(0.1, "scale of the noise when the policy explores")


@pytree
class Hyper:
    actor_learning_rate: float = setting(1e-3, "Adam step size of the actor")
    critic_learning_rate: float = setting(1e-3, "Adam step size of the critics")
    discount: float = setting(0.99, "gamma")
    tau: float = setting(0.005, "step of the target networks towards the online ones")
    actor_bc_coef: float = setting(
        0.01, "penalty on the actor's distance to the data; the paper's range is 0.001 to 0.1"
    )
    critic_bc_coef: float = setting(0.01, "penalty in the target; the paper's range is 0 to 0.5")
    target_noise: float = setting(0.2, "scale of the noise on target actions")
    noise_clip: float = setting(0.5, "largest noise on target actions")


class State(NamedTuple):
    actor: _common.Trainable
    critic: _common.Trainable
    target_actor: PyTree
    target_critic: PyTree
    actor_metrics: Metrics  # of the latest actor update, so that means over a segment are not diluted


def make(config: Config, spec: Spec) -> Agent:
    """Raises ``UserError`` at the first update if the batch has no ``next_action``."""
    actor_network = deterministic.make(spec, config.hidden, layer_norm=config.actor_layer_norm)
    q = networks.q_network(spec, config.hidden, config.n_critics, layer_norm=config.critic_layer_norm)

    def init(key: Key, hyper: Hyper) -> State:
        actor_key, critic_key = jax.random.split(key)
        actor, critic = actor_network.init(actor_key), q.init(critic_key)
        return State(
            _common.trainable(actor, optax.adam(hyper.actor_learning_rate)),
            _common.trainable(critic, optax.adam(hyper.critic_learning_rate)),
            _common.copy(actor),
            _common.copy(critic),
            {name: jnp.zeros(()) for name in ("actor_loss", "bc_loss", "q_policy")},
        )

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        data_action = _common.present(batch.next_action, "rebrac", "next_action")
        next_action = actor_network.apply(state.target_actor, batch.next_observation)
        next_action = deterministic.smoothed(next_action, key, hyper.target_noise, hyper.noise_clip)
        next_q = q.apply(state.target_critic, batch.next_observation, next_action)
        target = losses.rebrac_target(
            batch.reward, batch.discount, next_q, next_action, data_action, hyper.discount, hyper.critic_bc_coef
        )

        def critic_loss(params):
            values = q.apply(params, batch.observation, batch.action)
            loss = losses.ensemble_td_error(values, target).mean()
            return loss, {"critic_loss": loss, "q": values.mean(), "target": target.mean()}

        critic, metrics = _common.descend(critic_loss, state.critic, optax.adam(hyper.critic_learning_rate))

        def actor_loss(params):
            action = actor_network.apply(params, batch.observation)
            value = q.apply(critic.params, batch.observation, action).min(axis=0)
            loss = losses.rebrac_actor_loss(value, action, batch.action, hyper.actor_bc_coef).mean()
            cloning = losses.behaviour_cloning_loss(action, batch.action).mean()
            return loss, {"actor_loss": loss, "bc_loss": cloning, "q_policy": value.mean()}

        def delayed():
            actor, actor_metrics = _common.descend(actor_loss, state.actor, optax.adam(hyper.actor_learning_rate))
            target_actor = polyak(actor.params, state.target_actor, hyper.tau)
            return actor, target_actor, polyak(critic.params, state.target_critic, hyper.tau), actor_metrics

        unchanged = state.actor, state.target_actor, state.target_critic, state.actor_metrics
        actor, target_actor, target_critic, actor_metrics = _common.every(config.policy_freq, step, delayed, unchanged)
        return State(actor, critic, target_actor, target_critic, actor_metrics), {**metrics, **actor_metrics}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        action = actor_network.apply(state.actor.params, observation)
        return deterministic.explore(action, key, config.exploration_noise) if explore else action

    return Agent(init, update, act)

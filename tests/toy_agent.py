"""A complete agent in few lines, and cheap to compile: a linear critic with a target, a linear actor that also clones.

``tests/test_contract.py`` breaks it, one rule at a time.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg.types import Agent, Paper, pytree, setting

PAPER = Paper(title="Learning to Predict", authors="Sutton", year=1988, url="https://example.org/td")
KIND = "offline"


@dataclasses.dataclass(frozen=True)
class Config:
    policy_freq: int = setting(default=2, help="critic updates per actor update")


@pytree
class Hyper:
    learning_rate: float = setting(default=3e-4, help="Adam step size")
    discount: float = setting(default=0.99, help="gamma")
    tau: float = setting(default=0.005, help="step of the target towards the critic")
    bc_coef: float = setting(default=1.0, help="weight of cloning")
    noise: float = setting(default=0.2, help="scale of exploration")


class State(NamedTuple):
    params: dict
    opt_state: tuple
    target_critic: jax.Array


def make(config, spec):
    def q(weights, observation, action):
        return jnp.concatenate([observation, action], axis=-1) @ weights

    def pi(weights, observation):
        return jnp.tanh(observation @ weights)

    def init(key, hyper):
        critic = 0.1 * jax.random.normal(key, (spec.observation_dim + spec.action_dim,))
        actor = jnp.zeros((spec.observation_dim, spec.action_dim))
        params = {"critic": critic, "actor": actor}
        return State(params, optax.adam(hyper.learning_rate).init(params), critic)

    def update(state, batch, hyper, key, step):
        next_action = pi(state.params["actor"], batch.next_observation)
        next_value = q(state.target_critic, batch.next_observation, next_action)
        target = jax.lax.stop_gradient(batch.reward + hyper.discount * batch.discount * next_value)

        def loss(params):
            td_error = q(params["critic"], batch.observation, batch.action) - target
            action = pi(params["actor"], batch.observation + 0.01 * jax.random.normal(key, batch.observation.shape))
            value = q(jax.lax.stop_gradient(params["critic"]), batch.observation, action).mean()
            cloning = jnp.square(action - batch.action).mean()
            critic_loss = jnp.square(td_error).mean()
            return critic_loss + hyper.bc_coef * cloning - value, {"critic_loss": critic_loss, "bc_loss": cloning}

        gradients, metrics = jax.grad(loss, has_aux=True)(state.params)
        gradients["actor"] = jax.lax.cond(
            step % config.policy_freq == 0, lambda: gradients["actor"], lambda: jnp.zeros_like(gradients["actor"])
        )
        updates, opt_state = optax.adam(hyper.learning_rate).update(gradients, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        target_critic = state.target_critic + hyper.tau * (params["critic"] - state.target_critic)
        return State(params, opt_state, target_critic), metrics

    def act(state, observation, hyper, key, explore):
        action = pi(state.params["actor"], observation)
        if explore:
            action = jnp.clip(action + hyper.noise * jax.random.normal(key, action.shape), -1.0, 1.0)
        return action

    return Agent(init, update, act)

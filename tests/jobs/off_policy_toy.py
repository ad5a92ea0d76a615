"""An off-policy agent in few lines, cheap to compile: a linear critic, and a linear actor that follows it."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxrl_reg.types import Agent, Paper, pytree, setting

PAPER = Paper(title="Deterministic Policy Gradient Algorithms", authors="Silver", year=2014, url="https://example.org")
KIND = "off_policy"


@dataclasses.dataclass(frozen=True)
class Config:
    critic_first: bool = setting(True, "the critic before the actor")


@pytree
class Hyper:
    learning_rate: float = setting(1e-2, "of both")
    noise: float = setting(0.3, "of exploration")


def make(config, spec):
    def init(key, hyper):
        del hyper
        actor = 0.1 * jax.random.normal(key, (spec.observation_dim, spec.action_dim))
        return {"actor": actor, "critic": jnp.zeros(spec.observation_dim + spec.action_dim)}

    def update(state, batch, hyper, key, step):
        del key, step
        row = jnp.concatenate([batch.observation, batch.action], axis=-1)
        error = row @ state["critic"] - batch.reward
        critic = state["critic"] - hyper.learning_rate * (error[:, None] * row).mean(axis=0)
        slope = critic[spec.observation_dim :]
        actor = state["actor"] + hyper.learning_rate * batch.observation.mean(axis=0)[:, None] * slope
        return {"actor": actor, "critic": critic}, {"error": jnp.square(error).mean()}

    def act(state, observation, hyper, key, explore):
        action = jnp.tanh(observation @ state["actor"])
        noise = hyper.noise * jax.random.normal(key, action.shape)
        return jnp.clip(action + noise, -1.0, 1.0) if explore else action

    return Agent(init, update, act, kind=KIND)

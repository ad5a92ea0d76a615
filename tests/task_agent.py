"""A stand-in for an agent that learns without rewards: a task is where its rewards are, and acting is going there.

Metrics: ``loss``, which means nothing.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.types import Agent, Paper, ZeroShot, pytree, setting

PAPER = Paper("None", "Nobody", 2026, "https://example.org")
KIND = "offline"


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(8,), help="not used")


@pytree
class Hyper:
    stride: float = setting(default=0.4, help="length of an action along each axis")


class State(NamedTuple):
    stride: jax.Array
    updates: jax.Array


def make(config, spec):
    def init(key, hyper):
        return State(jnp.asarray(hyper.stride, jnp.float32), jnp.int32(0))

    def update(state, batch, hyper, key, step):
        return state._replace(updates=state.updates + 1), {"loss": jnp.float32(0.0)}

    def infer_z(state, observation, reward):
        return (observation * reward[:, None]).sum(axis=0) / jnp.maximum(reward.sum(), 1e-6)

    def toward(state, observation, z, key):
        return jnp.clip(z - observation, -state.stride, state.stride)

    def act(state, observation, hyper, key, explore):
        return toward(state, observation, jnp.zeros(spec.observation_dim), key)

    return Agent(init, update, act, zero_shot=ZeroShot(infer_z, lambda state, goal: goal, toward))

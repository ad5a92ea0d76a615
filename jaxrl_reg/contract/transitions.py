"""What the suite gives to agents that learn from transitions: rows of a data set, a replay or a trajectory."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.data import from_arrays, uniform
from jaxrl_reg.data.samplers import Sampler, take
from jaxrl_reg.types import Agent, Array, Dataset, Key, Spec, Transition

SPEC = Spec(observation_dim=3, action_dim=2, max_episode_steps=8)
ROWS = 64
TRAJECTORY = (16, 4)  # [T, E]: as many rows as the data


def trajectory(data: Dataset, key: Key, batch_size: int) -> Transition:
    """What an on-policy agent gets: consecutive rows ``[T, E]``, starting anywhere."""
    steps, streams = TRAJECTORY
    first = jax.random.randint(key, (), 0, data.size)
    rows = (first + jnp.arange(steps * streams).reshape(streams, steps).T) % data.size
    return dataclasses.replace(take(data, rows), next_action=None, return_rank=None)


def held(agent: Agent, sample: Sampler) -> Sampler:
    """``sample`` with what an agent that is held to a data set gets beside its trajectory."""
    if agent.beside is None:
        return sample
    beside = agent.beside

    def sampled(data: Dataset, key: Key, batch_size: int) -> Transition:
        rows_key, key = jax.random.split(key)
        rows = sample(data, rows_key, batch_size)
        return dataclasses.replace(rows, extras={**rows.extras, **beside(data, key, rows)})

    return sampled


def replayed(data: Dataset, key: Key, batch_size: int) -> Transition:
    """What a replay buffer gives: no next action, no rank."""
    return dataclasses.replace(uniform(data, key, batch_size), next_action=None, return_rank=None)


SAMPLERS = {"offline": uniform, "off_policy": replayed, "on_policy": trajectory}


def example(rows: int = ROWS) -> Dataset:
    """Random episodes of 8 steps, every other one terminated; a few actions lie exactly on the bounds."""
    rng = np.random.default_rng(0)
    observation = rng.normal(size=(rows, SPEC.observation_dim))
    action = rng.uniform(-1.0, 1.0, size=(rows, SPEC.action_dim))
    action[:: rows // 8] = np.sign(action[:: rows // 8])
    at_end = np.arange(rows) % SPEC.max_episode_steps == SPEC.max_episode_steps - 1
    terminated = at_end & (np.arange(rows) // SPEC.max_episode_steps % 2 == 0)
    return from_arrays(
        observation,
        action,
        1.0 + observation[:, 0] - action[:, 1],
        terminated,
        at_end & ~terminated,
        observation + 0.1 * rng.normal(size=observation.shape),
        name="contract",
    )


def constant(data: Dataset, reward: float) -> Dataset:
    """The same rows, every reward equal, every episode as good as the next."""
    return dataclasses.replace(
        data, reward=jnp.full_like(data.reward, reward), return_rank=jnp.ones_like(data.return_rank)
    )


def four_rows(data: Dataset) -> Dataset:
    """Four rows over and over, each a terminated episode: a critic's target is then the reward, and stands still."""
    repeated = np.arange(data.size) % 4
    rows = jnp.arange(data.size, dtype=jnp.int32)
    data = jax.tree.map(lambda leaf: leaf[repeated] if np.ndim(leaf) else leaf, data)
    ones = jnp.ones_like(data.reward)
    return dataclasses.replace(
        data, discount=0 * ones, last=ones, return_rank=ones, episode=rows, step=0 * rows, start=rows, end=rows + 1
    )


def spec_of(data: Dataset) -> Spec:
    """The sizes that an agent for these rows is made for."""
    return data.spec


def observed(spec: Spec, leading: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """What ``act`` sees, by its shape: ``[..., O]``."""
    return jax.ShapeDtypeStruct((*leading, spec.observation_dim), jnp.float32)


def observations(spec: Spec, count: int) -> Array:
    """Ordinary observations, then zeros, then huge ones: ``[3 count, O]``."""
    normal = jax.random.normal(jax.random.key(1), (count, spec.observation_dim))
    return jnp.concatenate([normal, jnp.zeros_like(normal), 1e6 * normal])

"""Pairs of segments on ``pointnav``: episodes that each keep one heading, of which few lead to the goal.

The headings of a place cancel, so cloning stays where it is; a judge who compares returns of ten steps prefers the
segments that got there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import data, envs
from jaxrl_reg.types import Dataset

EPISODE, LENGTH, NOISE, SEGMENT = 30, 0.4, 0.05, 10


def commuters(key: jax.Array, episodes: int) -> Dataset:
    """Uniform starts; every episode has a heading, uniform, and steps of 0.4 along it with noise of 0.05."""
    env = envs.make("pointnav", task="top_right", episode_length=EPISODE)

    def episode(key):
        reset_key, heading_key, noise_key = jax.random.split(key, 3)
        angle = jax.random.uniform(heading_key, maxval=2 * jnp.pi)
        steady = LENGTH * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        actions = steady + NOISE * jax.random.normal(noise_key, (EPISODE, 2))

        def step(state, action):
            following = env.step(state, action)
            return following, (state.observation, action, following)

        return jax.lax.scan(step, env.reset(reset_key), actions)[1]

    observation, action, following = jax.jit(jax.vmap(episode))(jax.random.split(key, episodes))
    flat = [
        np.asarray(x).reshape(episodes * EPISODE, *x.shape[2:])
        for x in (observation, action, following.reward, following.terminated, following.truncated)
    ]
    last = np.asarray(following.final_observation).reshape(episodes * EPISODE, -1)
    return data.from_arrays(*flat, last, name="pointnav commuters")

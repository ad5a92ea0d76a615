"""Pairs of segments on ``pointnav``: episodes that each keep one heading, of which few lead to the goal.

The headings of a place cancel, so cloning stays where it is; a judge who compares returns of ten steps prefers the
segments that got there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.arms import Arm, populations
from jaxrl_reg import data, envs
from jaxrl_reg.evaluation import returns
from jaxrl_reg.loops import offline
from jaxrl_reg.types import Dataset

EPISODE, LENGTH, NOISE, SEGMENT = 30, 0.4, 0.05, 10
EPISODES, PAIRS, HIDDEN, UPDATES, BATCH, TEST = 400, 2000, (32, 32), 2000, 128, 64
JUDGE, COIN = 0.25, 1e9  # temperatures of a judge who looks at returns, and of one who tosses a coin
RATES = dict.fromkeys(("learning_rate", "actor_learning_rate", "critic_learning_rate", "value_learning_rate"), 0.001)
STATIC = (("segment", SEGMENT), ("pairs", PAIRS), ("clone", UPDATES // 4))
CLONING, DPO = Arm("bc"), Arm("preference", {"beta": 3.5}, (*STATIC, ("loss", "dpo")))  # beta: seeds 0 to 5


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


def shared() -> Dataset:
    """The data of all seeds and experiments."""
    return commuters(jax.random.key(20_240), EPISODES)


def train(
    arms: Mapping[str, Arm], rows: Dataset, seeds: Sequence[int], say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Each arm's fraction of steps at the goal after training on ``rows``, a value per seed."""
    env, results = envs.make("pointnav", task="top_right", episode_length=EPISODE), {}
    evaluate = returns.evaluator(env, TEST)
    for group in populations(arms, HIDDEN, rows.spec, {"discount": 0.9, **RATES}):
        run = offline(group.agent, batch_size=BATCH, updates=UPDATES, segments=2, evaluate=evaluate)
        prepared = rows if group.agent.prepare is None else group.agent.prepare(rows)
        results.update(group.train(run, seeds, prepared, EPISODE, say))
    return results

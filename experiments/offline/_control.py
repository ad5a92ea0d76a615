"""Arms of offline control on a task whose data punish extrapolation; shared by the experiments on offline agents.

A point moves by half its action, but its motor stalls when asked for more than 0.6; the data hold uniform positions
and actions of length at most 0.45, so every learnt value extrapolates "larger is better", wrongly. Behaviour cloning
averages the data's actions and stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.arms import Arm, populations
from jaxrl_reg import data, envs
from jaxrl_reg.evaluation import returns
from jaxrl_reg.loops import offline
from jaxrl_reg.types import Dataset

LARGEST_ACTION = 0.45
EPISODE = 30
SIZES = {  # hidden widths, updates, evaluation episodes, rows of data
    "small": ((64, 64), 6_000, 64, 20_000),
    "full": ((256, 256), 100_000, 256, 200_000),
}


def behaviour(key: jax.Array, rows: int) -> Dataset:
    """Episodes of uniform starts and actions uniform in the disc of radius 0.45; nothing terminates."""
    env = envs.make("pointnav", task="top_right", episode_length=EPISODE)
    episodes = rows // EPISODE

    def episode(key):
        reset_key, action_key = jax.random.split(key)
        direction = jax.random.normal(action_key, (EPISODE, 2))
        length = LARGEST_ACTION * jnp.sqrt(jax.random.uniform(jax.random.fold_in(action_key, 1), (EPISODE, 1)))
        actions = direction / jnp.linalg.norm(direction, axis=-1, keepdims=True) * length

        def step(state, action):
            following = env.step(state, action)
            return following, (state.observation, action, following)

        return jax.lax.scan(step, env.reset(reset_key), actions)[1]

    observation, action, following = jax.jit(jax.vmap(episode))(jax.random.split(key, episodes))

    def flat(x):
        return np.asarray(x).reshape(episodes * EPISODE, *x.shape[2:])

    return data.from_arrays(
        flat(observation),
        flat(action),
        flat(following.reward),
        flat(following.terminated),
        flat(following.truncated),
        flat(following.final_observation),
        name="pointnav",
    )


def success(
    arms: dict[str, Arm], seeds: Sequence[int], scale: str, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Fraction of an episode's steps spent at the goal, after the last update, for every arm and seed.

    Arms of one agent and configuration train as one population; all arms see the same data and budget.
    """
    hidden, updates, episodes, rows = SIZES[scale]
    dataset = behaviour(jax.random.key(20_240), rows)
    env = envs.make("pointnav", task="top_right", episode_length=EPISODE)
    say(f"behaviour: {float(np.mean(data.episode_returns(dataset))) / EPISODE:.3f} of the steps at the goal")
    results: dict[str, list[float]] = {}
    for group in populations(arms, hidden, dataset.spec, {"discount": 0.9}):
        evaluate = returns.evaluator(env, episodes)
        run = offline(group.agent, batch_size=128, updates=updates, segments=2, evaluate=evaluate)
        results |= group.train(run, seeds, dataset, EPISODE, say)
    return {name: results[name] for name in arms}

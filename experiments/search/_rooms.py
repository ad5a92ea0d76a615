"""Four rooms with two areas that pay at the end of an episode, for searches that are told different things."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxrl_reg import envs, population
from jaxrl_reg.envs import rooms
from jaxrl_reg.loops import search
from jaxrl_reg.search import outcomes
from jaxrl_reg.types import Array, Env, EnvState

STEPS, SPEED, RADIUS, PIXELS = 40, 0.15, 0.2, 12
LINE = (jnp.arange(PIXELS) + 0.5) * 2.0 / PIXELS - 1.0
GRID = jnp.stack(jnp.meshgrid(LINE, LINE), -1).reshape(-1, 2)


def world() -> Env:
    """Rooms whose two upper ones hold an area each that pays ``1 - mean squared action`` at the end, else nothing."""
    env = envs.make("rooms", speed=SPEED, radius=RADIUS, episode_length=STEPS)
    assert env.tasks is not None
    tasks = env.tasks

    def reward(before: EnvState, action: Array, after: EnvState) -> Array:
        there = jnp.stack([tasks.reward(tasks.physics(after), name) for name in tasks.names]).max()
        return jnp.where((after.step >= STEPS) & (there > 0), 1.0 - after.inner.effort / STEPS, 0.0)

    return envs.with_reward(env, reward)


def picture(state: EnvState) -> Array:
    """``[144]``, what a camera above would see of the last state."""
    return jnp.exp(-jnp.square(GRID - rooms.physics(state)).sum(-1) / (2.0 * rooms.BLUR**2))


def found(
    method: str, seeds: Sequence[int], hypers: search.Hyper, rounds: int, sizes: search.Sizes | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """``(best, cells)``, each ``[settings, seeds]``: the highest reward found in an area, mean of both; and the share
    of 20 x 20 cells in which an episode ended."""
    env = world()
    run = search.diversify(
        env, outcomes.policy(env.spec), method=method, rounds=rounds, sizes=sizes, view=picture, keep=True
    )
    result = population.sweep(run, seeds=list(seeds), hypers=hypers)
    tried = result.state.found.tried
    right, fitness = np.asarray(tried.outcome)[..., 0] > 0, np.asarray(tried.fitness)
    best = np.stack([np.where(right == side, fitness, 0.0).max(-1) for side in (False, True)]).mean(0)
    return best, result.metrics["coverage"][..., -1]

"""Arms of zero-shot control: learn from reward-free exploration of a maze, then be given four tasks.

A ball in four rooms, simulated by MJX, is explored by RND, which looks at no rewards. Every arm trains on that one data
set without rewards. Then, for each of the four corners, 10,000 states of the data are labelled with the reward for
being there, the agent infers the task from them, and its episodes, which begin in any room, are rolled out.

The ball's observation is its position, which shows the geometry of the square already. ``veiled`` hides it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from experiments.arms import Arm
from experiments.zero_shot import _tasks
from jaxrl_reg import envs
from jaxrl_reg.loops.explore import coverage, explore
from jaxrl_reg.types import Array, Env, EnvState

SIZES = {  # hidden widths, updates, episodes per task, steps of exploration, batch size
    "small": ((64, 64), 4_000, 16, 19_200, 128),
    "full": ((512, 512), 1_000_000, 50, 2_000_000, 256),
}


WAVES, LENGTH = 64, 0.2  # how many waves tell the position, and the distance (m) at which they have forgotten it


def veil(observation: Array) -> Array:
    """``[..., 4] -> [..., 66]``: random waves of the position instead of it; the velocity as it is.

    Places further apart than about twice ``LENGTH`` have nothing in common, however near they are on the way, so that
    who is near whom can only be learnt from transitions. Nothing is lost: the waves tell the position exactly.
    """
    keys = jax.random.split(jax.random.key(_tasks.SEED), 2)
    frequency = jax.random.normal(keys[0], (2, WAVES)) / LENGTH
    phase = jax.random.uniform(keys[1], (WAVES,), maxval=2.0 * jnp.pi)
    waves = jnp.sqrt(2.0) * jnp.cos(jnp.matmul(observation[..., :2], frequency, precision="highest") + phase)
    return jnp.concatenate([waves, observation[..., 2:]], axis=-1)


def veiled(env: Env) -> Env:
    """The maze with observations behind :func:`veil`."""
    assert env.tasks is not None
    tasks = env.tasks

    def seen(state: EnvState) -> EnvState:
        final, now = veil(state.final_observation), veil(state.observation)
        return dataclasses.replace(state, observation=now, final_observation=final)

    def step(state: EnvState, action: Array) -> EnvState:
        plain = dataclasses.replace(state, observation=tasks.physics(state))  # the maze shows all of its physics
        return seen(env.step(plain, action))

    return env._replace(
        reset=lambda key: seen(env.reset(key)),
        step=step,
        spec=dataclasses.replace(env.spec, observation_dim=WAVES + 2),
        tasks=tasks._replace(restore=lambda physics: seen(tasks.restore(physics))),
    )


def explored(scale: str, say: Callable[[str], None], behind_veil: bool = False) -> _tasks.World:
    """The maze and its exploration by RND, with labels for the four corners; RND itself sees positions."""
    hidden, _, _, steps, _ = SIZES[scale]
    env = envs.make("pointmaze")
    exploration = explore("rnd", env, steps=steps, segments=1, hidden=hidden)
    state, _ = jax.jit(exploration.run)(jax.random.key(_tasks.SEED), exploration.hyper)
    data = exploration.dataset(state, "pointmaze-rnd")
    say(f"RND: {data.size:,} steps, {coverage(env, data).fraction:.0%} of the cells visited")
    if behind_veil:
        now, then = veil(data.observation), veil(data.next_observation)
        env, data = veiled(env), dataclasses.replace(data, observation=now, next_observation=then)
    return _tasks.world(env, data, say)


def success(
    arms: dict[str, Arm],
    seeds: Sequence[int],
    scale: str,
    say: Callable[[str], None],
    behind_veil: bool = False,
    **settings: float,
) -> dict[str, list[float]]:
    """Fraction of an episode's steps spent at the goal, mean over the four tasks, for every arm and seed.

    Arms of one agent and configuration train as one population; all see the same data and number of updates.
    ``settings`` are hyperparameters of every arm that has them. An agent that cannot be given tasks, such as behaviour
    cloning, is rolled out as it is.
    """
    hidden, updates, episodes, _, batch_size = SIZES[scale]
    world = explored(scale, say, behind_veil)
    found = _tasks.train(
        arms, world, seeds, say, hidden=hidden, updates=updates, batch_size=batch_size, episodes=episodes, **settings
    )
    return {arm: each["return"][:, -1].tolist() for arm, each in found.items()}

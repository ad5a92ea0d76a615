"""A point in a square whose motor stalls when asked for too much: large actions, absent from the data, do nothing.

Every value function learnt from small actions extrapolates "a larger step gets there sooner"; here that is wrong, so
the task shows whether a method keeps to the actions of its data.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import core, drawing
from jaxrl_reg.errors import unknown
from jaxrl_reg.types import Array, Env, Scene, Spec

GOALS = {
    "top_left": (-0.9, 0.9),
    "top_right": (0.9, 0.9),
    "bottom_left": (-0.9, -0.9),
    "bottom_right": (0.9, -0.9),
}
TASKS = tuple(GOALS)
RADIUS = 0.4
STEP_SIZE = 0.5
STALL = 0.6


def make(task: str = "top_right", episode_length: int = 30) -> Env:
    """Position in [-1, 1]^2 as observation, two actions, reward 1 within 0.4 of the task's goal; never terminates.

    Starts are uniform in the square. ``task`` is one of ``GOALS``; the dynamics do not depend on it. ``inner`` is the
    position. Raises ``UserError`` for an unknown task.
    """
    if task not in GOALS:
        raise unknown("pointnav task", task, GOALS)
    goal = jnp.array(GOALS[task])

    def reset(key):
        position = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return core.Outcome(position, position)

    def step(position, action, key):
        position = dynamics(position, action)
        return core.Outcome(position, position, reward(position, goal))

    def draw(states):
        position = np.array([core.unwrap(state) for state in states])
        place = np.broadcast_to(np.asarray(GOALS[task]), (1, 2, 2))
        return Scene(drawing.balls(position), np.array([0.04]), 0.1, False, *_room(place))

    env = core.with_tasks(
        core.environment(reset, step, Spec(2, 2), "pointnav", draw=draw),
        TASKS,
        physics=lambda state: core.unwrap(state.inner),
        inner=lambda vector: vector,
        observe=lambda position: position,
        reward=lambda position, task: reward(position, jnp.array(GOALS[task])),
        place=lambda position: position,
        axes=("x", "y"),
        extent=((-1.0, 1.0), (-1.0, 1.0)),
    )
    return core.time_limit(env, episode_length)


def _room(goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square's sides and the disc of the goal, as capsules that stand still."""
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    sides = np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)
    return np.concatenate([goal, sides]), np.array([RADIUS, *[0.01] * 4])


def dynamics(position: Array, action: Array) -> Array:
    """``[..., 2]`` next position: half the action further, clipped to the square; no motion if ||action|| > 0.6."""
    turns = jnp.sum(jnp.square(action), axis=-1, keepdims=True) <= STALL**2
    return jnp.clip(position + STEP_SIZE * action * turns, -1.0, 1.0)


def reward(next_position: Array, goal: Array) -> Array:
    """``[...]``: 1 where ``next_position [..., 2]`` is within 0.4 of ``goal [2]``, else 0."""
    return (jnp.linalg.norm(next_position - goal, axis=-1) < RADIUS).astype(jnp.float32)

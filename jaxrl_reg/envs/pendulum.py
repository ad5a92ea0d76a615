"""Swing a pendulum up and hold it there with a motor too weak to lift it at once."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import core
from jaxrl_reg.types import Array, Env, Scene, Spec

GRAVITY, LENGTH, MASS, TIME_STEP = 10.0, 1.0, 1.0, 0.05
MAX_TORQUE, MAX_SPEED = 2.0, 8.0


class Physics(NamedTuple):
    """All that the pendulum remembers."""

    angle: Array  # radians, 0 upright, not wrapped
    speed: Array  # radians per second


def make(episode_length: int = 200) -> Env:
    """The classic swing-up with the constants of Gymnasium's ``Pendulum-v1``; it never terminates.

    Observation ``[cos angle, sin angle, speed]``; one action in [-1, 1] for a torque of -2 to 2 newton metres; reward
    ``-(angle^2 + 0.1 speed^2 + 0.001 torque^2)`` of the state before the step, the angle taken in [-pi, pi). Starts
    uniformly in all angles and speeds of -1 to 1.
    """

    def observe(physics):
        return jnp.stack([jnp.cos(physics.angle), jnp.sin(physics.angle), physics.speed])

    def reset(key):
        high = jnp.array([jnp.pi, 1.0])
        physics = Physics(*jax.random.uniform(key, (2,), minval=-high, maxval=high))
        return core.Outcome(physics, observe(physics))

    def step(physics, action, key):
        torque = MAX_TORQUE * action[0]
        angle = jnp.mod(physics.angle + jnp.pi, 2 * jnp.pi) - jnp.pi
        reward = -(angle**2 + 0.1 * physics.speed**2 + 0.001 * torque**2)
        acceleration = 1.5 * GRAVITY / LENGTH * jnp.sin(physics.angle) + 3 * torque / (MASS * LENGTH**2)
        speed = jnp.clip(physics.speed + acceleration * TIME_STEP, -MAX_SPEED, MAX_SPEED)
        physics = Physics(physics.angle + speed * TIME_STEP, speed)
        return core.Outcome(physics, observe(physics), reward)

    env = core.environment(reset, step, Spec(3, 1), "pendulum", draw=draw)
    return core.time_limit(env, episode_length)


def draw(states: list) -> Scene:
    """The rod, hinged in the middle."""
    angle = np.array([core.unwrap(state).angle for state in states])
    tip = LENGTH * np.stack([-np.sin(angle), np.cos(angle)], axis=-1)
    return Scene(np.stack([np.zeros_like(tip), tip], axis=1)[:, None], np.array([0.05]), TIME_STEP)

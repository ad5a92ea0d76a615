"""A robot and a pedestrian who walk towards each other; the pedestrian keeps a distance, so the robot moves them.

The physics are functions of arrays with any leading axes, differentiable in the robot's commands, so that plans can be
optimised through them and the pedestrian's answer to another plan computed exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import core, drawing
from jaxrl_reg.types import Array, Env, Scene, Spec

TIME_STEP = 1 / 3  # seconds
MAX_SPEED, MAX_TURN = 0.5, 1.0  # of the robot, metres and radians per second
WALKING_SPEED, REACTION_TIME = 1.0, 0.5  # of the pedestrian
REPULSION, REACH, BODIES = 3.0, 0.5, 0.6  # metres per second squared at contact, metres, both radii together
NOISE = 0.1  # standard deviation of the pedestrian's acceleration, metres per second squared
STAY = (-1.0, 0.0)  # the action that does nothing
GOAL_RADIUS = 0.3


class Physics(NamedTuple):
    """``pose`` is x, y and heading of the robot; all lengths are metres, velocities metres per second."""

    pose: Array  # [3]
    goal: Array  # [2], the robot's
    pedestrian: Array  # [2]
    velocity: Array  # [2], the pedestrian's
    destination: Array  # [2], the pedestrian's


def make(episode_length: int = 60, noise: float = NOISE) -> Env:
    """Reach a goal four metres ahead; a pedestrian comes the other way.

    Observation: position and velocity of the pedestrian and the position of the goal, ``[6]``, in the robot's frame.
    Actions: forward speed from 0 (-1) to 0.5 m/s (1), and turning by up to 1 rad/s. Reward: progress towards the goal
    in metres, minus 1 for each step in which the two touch. Terminates within 0.3 m of the goal. What the robot does TO
    the pedestrian is not in the reward; see ``envs.counterfactual``.
    """

    def observe(physics):
        position, heading = physics.pose[:2], physics.pose[2]
        pedestrian, goal = (to_frame(point - position, heading) for point in (physics.pedestrian, physics.goal))
        return jnp.concatenate([pedestrian, to_frame(physics.velocity, heading), goal])

    def reset(key):
        side, turn, ahead = jax.random.split(key, 3)
        goal, start, destination = jax.random.uniform(side, (3,), minval=-1.0, maxval=1.0)
        pose = jnp.array([0.0, 0.0, 0.5]) * jax.random.uniform(turn, (3,), minval=-1.0, maxval=1.0)
        pedestrian = jnp.stack([jax.random.uniform(ahead, minval=3.0, maxval=5.0), start])
        velocity = jnp.array([-WALKING_SPEED, 0.0])
        physics = Physics(pose, jnp.stack([4.0, goal]), pedestrian, velocity, jnp.stack([-6.0, destination]))
        return core.Outcome(physics, observe(physics))

    def step(physics, action, key):
        pose = drive(physics.pose, commands(action))
        push = noise * jax.random.normal(key, (2,))
        pedestrian, velocity = walk(physics.pedestrian, physics.velocity, physics.destination, pose[:2], push)
        before, after = (jnp.linalg.norm(physics.goal - p[:2]) for p in (physics.pose, pose))
        physics = physics._replace(pose=pose, pedestrian=pedestrian, velocity=velocity)
        touching = jnp.linalg.norm(pedestrian - pose[:2]) < BODIES
        return core.Outcome(physics, observe(physics), before - after - touching, after < GOAL_RADIUS)

    def draw(states):
        states = [core.unwrap(state) for state in states]
        robot, person = (np.array([pick(state) for state in states]) for pick in (_robot, _person))
        ends = np.concatenate([drawing.balls(robot), drawing.balls(person)], axis=1)
        goal = np.broadcast_to(np.asarray(states[0].goal), (1, 2, 2))
        return Scene(ends, np.full(2, BODIES / 2), TIME_STEP, False, goal, np.array([0.1]))

    return core.time_limit(core.environment(reset, step, Spec(6, 2), "social_nav", draw=draw), episode_length)


def commands(action: Array) -> Array:
    """``[..., 2]`` forward and turning speed, m/s and rad/s, of an action in [-1, 1]."""
    return jnp.stack([MAX_SPEED * (1 + action[..., 0]) / 2, MAX_TURN * action[..., 1]], axis=-1)


def drive(pose: Array, command: Array) -> Array:
    """The pose ``[..., 3]`` after one step at constant speeds ``command [..., 2]``: exactly an arc.

    The chord points half the turn of THIS step ahead and is shorter than the arc by the sine over that angle. (Taking
    the turn since the start instead, as if every arc began there, is right for the first step only.)
    """
    turn = TIME_STEP * command[..., 1]
    chord = TIME_STEP * command[..., 0] * jnp.sinc(turn / (2 * jnp.pi))
    direction = pose[..., 2] + turn / 2
    return pose + jnp.stack([chord * jnp.cos(direction), chord * jnp.sin(direction), turn], axis=-1)


def walk(
    position: Array, velocity: Array, destination: Array, robot: Array, push: Array | float = 0.0
) -> tuple[Array, Array]:
    """The pedestrian's next position and velocity, ``[..., 2]`` each, with the robot at ``robot [..., 2]``.

    The social-force model (Helbing and Molnar, 1995): a wish to walk at 1 m/s to the destination, and a repulsion that
    falls off exponentially with the distance of the bodies. ``push`` is added to the acceleration. A robot that is not
    there is one that is far away.
    """
    wish = WALKING_SPEED * _unit(destination - position)
    away = position - robot
    distance = jnp.sqrt(jnp.square(away).sum(-1, keepdims=True) + 1e-6)
    force = REPULSION * jnp.exp((BODIES - distance) / REACH) * away / distance
    velocity = velocity + TIME_STEP * ((wish - velocity) / REACTION_TIME + force + push)
    return position + TIME_STEP * velocity, velocity


def to_frame(vector: Array, heading: Array) -> Array:
    """``vector [..., 2]`` as seen by one who looks along ``heading [...]``: ahead, left."""
    cos, sin = jnp.cos(heading), jnp.sin(heading)
    x, y = vector[..., 0], vector[..., 1]
    return jnp.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)


def _unit(vector: Array) -> Array:
    return vector / jnp.sqrt(jnp.square(vector).sum(-1, keepdims=True) + 1e-6)


def _robot(physics: Physics) -> np.ndarray:
    return np.asarray(physics.pose)[:2]


def _person(physics: Physics) -> np.ndarray:
    return np.asarray(physics.pedestrian)

"""A ball pushed through four rooms, simulated by MJX; one world, four tasks, for learning before the task is known."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import core, drawing, local, quiet
from jaxrl_reg.errors import need, unknown
from jaxrl_reg.types import Array, Env, EnvState, Scene, Spec

TASKS = {
    "reach_top_left": (-0.85, 0.85),
    "reach_top_right": (0.85, 0.85),
    "reach_bottom_left": (-0.85, -0.85),
    "reach_bottom_right": (0.85, -0.85),
}
RADIUS = 0.2
SUBSTEPS = 5

# The outer walls are joint limits and the inner ones capsules, which makes four cheap constraints. A cross divides the
# square into four rooms; the doors are at its outer ends. No warm start: the future then depends on (qpos, qvel) alone.
MJCF = """
<mujoco model="pointmaze">
  <option timestep="0.02" integrator="Euler" solver="Newton" iterations="4" ls_iterations="8">
    <flag gravity="disable" eulerdamp="disable" warmstart="disable"/>
  </option>
  <default><geom condim="1"/></default>
  <worldbody>
    <geom name="vertical_wall" type="capsule" fromto="0 -0.6 0 0 0.6 0" size="0.05"/>
    <geom name="horizontal_wall" type="capsule" fromto="-0.6 0 0 0.6 0 0" size="0.05"/>
    <body name="ball">
      <joint name="x" type="slide" axis="1 0 0" limited="true" range="-0.95 0.95" damping="1"/>
      <joint name="y" type="slide" axis="0 1 0" limited="true" range="-0.95 0.95" damping="1"/>
      <geom name="ball" type="sphere" size="0.05" mass="0.3"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="x" ctrlrange="-1 1"/>
    <motor joint="y" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""


class Physics(NamedTuple):
    """All that the future depends on."""

    qpos: Array  # [2], metres
    qvel: Array  # [2], metres per second


def make(task: str = "reach_top_right", episode_length: int = 100) -> Env:
    """Observation ``[x, y, x velocity, y velocity]``, two forces in [-1, 1], 0.1 s per step; never terminates.

    The square is 2 m wide and the ball's top speed 1 m/s. Reward 1 within 0.2 m of the task's place near a corner, the
    corner included, else 0; episodes start at rest, in any of the four rooms. ``task`` is one of ``TASKS`` and changes
    nothing but the reward, which :func:`reward` gives for stored physics states. Raises ``UserError`` for an unknown
    task.
    """
    if task not in TASKS:
        raise unknown("pointmaze task", task, TASKS)
    need("mujoco")
    import mujoco  # imported on use: a second that other environments need not pay

    mjx = quiet.mjx()
    with local.devices():
        model = mjx.put_model(mujoco.MjModel.from_xml_string(MJCF))  # pyright: ignore[reportAttributeAccessIssue]

    def observe(state):
        return jnp.concatenate(state)

    def reset(key):
        room, place = jax.random.split(key)
        sign = jnp.where(jax.random.bernoulli(room, shape=(2,)), 1.0, -1.0)
        state = Physics(sign * jax.random.uniform(place, (2,), minval=0.15, maxval=0.9), jnp.zeros(2))
        return core.Outcome(state, observe(state))

    def step(state, action, key):
        data = mjx.make_data(model).replace(qpos=state.qpos, qvel=state.qvel, ctrl=action)
        data, _ = jax.lax.scan(lambda data, _: (mjx.step(model, data), None), data, length=SUBSTEPS)
        state = Physics(data.qpos, data.qvel)
        return core.Outcome(state, observe(state), reward(observe(state), task))

    def draw(states):
        position = np.array([core.unwrap(state).qpos for state in states])
        place = np.array([TASKS[task]] * 2)
        still = np.array([place, [[0, -0.6], [0, 0.6]], [[-0.6, 0], [0.6, 0]]])
        return Scene(
            drawing.balls(position),
            np.array([0.05]),
            0.02 * SUBSTEPS,
            still=still,
            still_radius=np.array([RADIUS, 0.05, 0.05]),
        )

    env = core.with_tasks(
        core.environment(reset, step, Spec(4, 2), "pointmaze", draw=draw),
        tuple(TASKS),
        physics=physics,
        inner=lambda vector: Physics(vector[:2], vector[2:]),
        observe=observe,
        reward=reward,
        place=lambda vector: vector[..., :2],
        axes=("x (m)", "y (m)"),
        extent=((-0.95, 0.95), (-0.95, 0.95)),
    )
    return core.time_limit(env, episode_length)


def physics(state: EnvState) -> Array:
    """``[..., 4]``, positions and velocities, of a single, wrapped or vectorised pointmaze."""
    return jnp.concatenate(core.unwrap(state.inner), axis=-1)


def reward(next_physics: Array, task: str) -> Array:
    """``[...]``, the reward for arriving in ``next_physics [..., 4]``; relabels data collected without a task."""
    if task not in TASKS:
        raise unknown("pointmaze task", task, TASKS)
    distance = jnp.linalg.norm(next_physics[..., :2] - jnp.array(TASKS[task]), axis=-1)
    return (distance < RADIUS).astype(jnp.float32)

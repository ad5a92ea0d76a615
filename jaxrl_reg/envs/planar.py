"""A walker and a cheetah in a plane, simulated by MJX: one body, four tasks each, for learning before the task.

The bodies are ours, their tasks those that the DM Control Suite and ExORL made usual. Speeds are those of the trunk,
not of the centre of mass, so that a reward needs joint positions and velocities only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import core, drawing, local, quiet
from jaxrl_reg.envs.dynamics import varied, with_levels
from jaxrl_reg.errors import need, unknown
from jaxrl_reg.types import Array, Env, Spec

TASKS = {
    "walker": ("stand", "walk", "run", "flip"),
    "cheetah": ("walk", "run", "walk_backward", "run_backward"),
}
NAMES = tuple(TASKS)
STAND_HEIGHT = 1.15  # of the walker's trunk, m; upright it is 1.25
SPEEDS = {"walk": 1.0, "run": 8.0, "walk_backward": 1.0, "run_backward": 8.0}  # m/s
SPIN = 5.0  # rad/s, forwards
SUBSTEPS = 5

# No warm start: the future then depends on (qpos, qvel) alone. Only what usually touches the ground collides with it.
_HEAD = """
<mujoco model="{name}">
  <option timestep="0.005" integrator="Euler" solver="Newton" iterations="4" ls_iterations="8">
    <flag eulerdamp="disable" warmstart="disable"/>
  </option>
  <default>
    <geom type="capsule" condim="3" friction="0.9" contype="0" conaffinity="0"/>
    <joint type="hinge" axis="0 -1 0" limited="true" armature="0.03" damping="1"/>
    <motor ctrlrange="-1 1"/>
    <default class="touching"><geom contype="1"/></default>
    <default class="root"><joint limited="false" armature="0" damping="0"/></default>
  </default>
  <worldbody>
    <geom name="ground" type="plane" size="0 0 1" conaffinity="1"/>
    <body name="trunk" pos="0 0 {height}">
      <joint class="root" name="x" type="slide" axis="1 0 0"/>
      <joint class="root" name="z" type="slide" axis="0 0 1"/>
      <joint class="root" name="pitch" axis="0 1 0"/>
"""
_LEG = """
      <body name="{side}_thigh" pos="0 0 -0.3">
        <joint name="{side}_hip" range="-30 100"/>
        <geom fromto="0 0 0 0 0 -0.45" size="0.05"/>
        <body name="{side}_shin" pos="0 0 -0.45">
          <joint name="{side}_knee" range="-150 0"/>
          <geom class="touching" fromto="0 0 0 0 0 -0.4" size="0.04"/>
          <body name="{side}_foot" pos="0 0 -0.45">
            <joint name="{side}_ankle" range="-45 45"/>
            <geom class="touching" fromto="-0.06 0 0 0.16 0 0" size="0.05"/>
          </body>
        </body>
      </body>
"""
_WALKER = (
    _HEAD.format(name="walker", height=1.25)
    + '<geom class="touching" fromto="0 0 -0.3 0 0 0.3" size="0.07"/>'
    + _LEG.format(side="right")
    + _LEG.format(side="left")
    + "</body></worldbody><actuator>"
    + "".join(
        f'<motor joint="{side}_{joint}" gear="{gear}"/>'
        for side in ("right", "left")
        for joint, gear in (("hip", 100), ("knee", 60), ("ankle", 25))
    )
    + "</actuator></mujoco>"
)
_CHEETAH = (
    _HEAD.format(name="cheetah", height=0.59)
    + """
      <geom class="touching" fromto="-0.5 0 0 0.5 0 0" size="0.05"/>
      <geom class="touching" fromto="0.5 0 0 0.65 0 0.15" size="0.05"/>
      <body name="back_thigh" pos="-0.5 0 0">
        <joint name="back_hip" range="-40 60" stiffness="100" damping="4"/>
        <geom fromto="0 0 0 0.14 0 -0.26" size="0.045"/>
        <body name="back_shin" pos="0.14 0 -0.26">
          <joint name="back_knee" range="-50 50" stiffness="80" damping="3"/>
          <geom class="touching" fromto="0 0 0 -0.16 0 -0.22" size="0.04"/>
          <body name="back_foot" pos="-0.16 0 -0.22">
            <joint name="back_ankle" range="-45 45" stiffness="50" damping="2"/>
            <geom class="touching" fromto="0 0 0 0.12 0 -0.07" size="0.04"/>
          </body>
        </body>
      </body>
      <body name="front_thigh" pos="0.5 0 0">
        <joint name="front_hip" range="-60 40" stiffness="80" damping="3"/>
        <geom fromto="0 0 0 -0.12 0 -0.26" size="0.045"/>
        <body name="front_shin" pos="-0.12 0 -0.26">
          <joint name="front_knee" range="-50 50" stiffness="60" damping="2"/>
          <geom class="touching" fromto="0 0 0 0.1 0 -0.22" size="0.04"/>
          <body name="front_foot" pos="0.1 0 -0.22">
            <joint name="front_ankle" range="-45 45" stiffness="30" damping="1.5"/>
            <geom class="touching" fromto="0 0 0 0.1 0 -0.07" size="0.04"/>
          </body>
        </body>
      </body>
    </body></worldbody><actuator>"""
    + "".join(
        f'<motor joint="{end}_{joint}" gear="{gear}"/>'
        for end, gears in (("back", (110, 80, 50)), ("front", (90, 60, 30)))
        for joint, gear in zip(("hip", "knee", "ankle"), gears, strict=True)
    )
    + "</actuator></mujoco>"
)
_MODELS = {"walker": (_WALKER, 1.25), "cheetah": (_CHEETAH, 0.59)}
JOINTS = 9  # of either body: x, z, pitch (positive: forwards), then hip, knee and ankle of two legs


class Physics(NamedTuple):
    """All that the future depends on."""

    qpos: Array  # [9]: m and rad; x and z from where the body was built
    qvel: Array  # [9]: m/s and rad/s


class Varied(NamedTuple):
    """``Physics`` of a body whose dynamics are a level."""

    qpos: Array
    qvel: Array
    level: Array  # [6], see ``envs.dynamics``


def make(name: str, task: str | None = None, episode_length: int = 250, dynamics: bool = False) -> Env:
    """``walker`` or ``cheetah``: six torques in [-1, 1], 0.025 s per step; never terminates.

    Observation ``[18]``: height of the trunk (m), cosine and sine of its pitch, the six joint angles, then the nine
    velocities of x, z, pitch and joints, divided by ten. Episodes start near standing still. ``task`` is one of
    ``TASKS[name]``, the first by default, and changes nothing but the reward, which lies in [0, 1] and which
    :func:`reward` gives for stored physics. With ``dynamics`` these are levels (see ``envs.dynamics``) in the place
    of tasks, and a level is solved by half of the reward that there is. Raises ``UserError`` for an unknown name or
    task.
    """
    if name not in TASKS:
        raise unknown("planar body", name, TASKS)
    task = TASKS[name][0] if task is None else task
    if task not in TASKS[name]:
        raise unknown(f"planar/{name} task", task, TASKS[name])
    need("mujoco")
    import mujoco  # imported on use: a second that other environments need not pay

    mjx = quiet.mjx()
    text, height = _MODELS[name]
    host: Any = mujoco.MjModel.from_xml_string(text)  # pyright: ignore[reportAttributeAccessIssue]
    with local.devices():
        model = mjx.put_model(host)

    def observe(state):
        pitch = state.qpos[2]
        trunk = jnp.stack([height + state.qpos[1], jnp.cos(pitch), jnp.sin(pitch)])
        return jnp.concatenate([trunk, state.qpos[3:], 0.1 * state.qvel])

    def reset(key):
        pose, motion = jax.random.split(key)
        qpos = jax.random.uniform(pose, (JOINTS,), minval=-0.1, maxval=0.1).at[:2].set(jnp.array([0.0, 0.03]))
        state = Physics(qpos, 0.1 * jax.random.normal(motion, (JOINTS,)))
        return core.Outcome(state, observe(state))

    def step(state, action, key):
        data = mjx.make_data(model).replace(qpos=state.qpos, qvel=state.qvel, ctrl=action)
        data, _ = jax.lax.scan(lambda data, _: (mjx.step(model, data), None), data, length=SUBSTEPS)
        state = Physics(data.qpos, data.qvel)
        return core.Outcome(state, observe(state), reward(name, jnp.concatenate(state), task))

    def draw(states):
        qpos = np.stack([np.asarray(core.unwrap(state).qpos) for state in states])
        return drawing.motion(host, qpos, SUBSTEPS * float(host.opt.timestep))

    if dynamics:
        return _varied(name, task, episode_length, model, host, (reset, observe, draw))
    env = core.with_tasks(
        core.environment(reset, step, Spec(2 * JOINTS, 6), f"planar/{name}", draw=draw),
        TASKS[name],
        physics=lambda state: jnp.concatenate(core.unwrap(state.inner), axis=-1),
        inner=lambda vector: Physics(vector[:JOINTS], vector[JOINTS:]),
        observe=observe,
        reward=lambda vector, task: reward(name, vector, task),
        place=lambda vector: jnp.stack([vector[..., JOINTS], height + vector[..., 1]], axis=-1),
        axes=("speed (m/s)", "height (m)"),
        extent=((-3.0, 3.0), (0.0, 1.5 * height)),
    )
    return core.time_limit(env, episode_length)


def _varied(name: str, task: str, episode_length: int, model: Any, host: Any, plain: Any) -> Env:
    """The body under dynamics that are a level."""
    first, observe, draw = plain
    mjx, trunk = quiet.mjx(), int(host.body("trunk").id)

    def reset(key, level):
        begun = first(key)
        return begun._replace(inner=Varied(*begun.inner, level))

    def step(state, action, key):
        own = varied(model, state.level, trunk)
        data = mjx.make_data(model).replace(qpos=state.qpos, qvel=state.qvel, ctrl=action)
        data, _ = jax.lax.scan(lambda data, _: (mjx.step(own, data), None), data, length=SUBSTEPS)
        state = Varied(data.qpos, data.qvel, state.level)
        return core.Outcome(state, observe(state), reward(name, jnp.concatenate(state[:2]), task))

    env = with_levels(
        reset,
        step,
        Spec(2 * JOINTS, 6),
        f"planar/{name}",
        solved=lambda returns, last_reward, terminated: returns > 0.5 * episode_length,
        draw=draw,
    )
    return core.time_limit(env, episode_length)


def reward(name: str, next_physics: Array, task: str) -> Array:
    """``[...]``, the reward in [0, 1] for arriving in ``next_physics [..., 18]``.

    The cheetah is paid ``m``, its speed in the task's direction as a fraction of the task's, at most 1. The walker is
    paid for standing, ``(3 high + upright) / 4``, where ``high`` falls with the height below 1.15 m (to 0.1 at 0.6 m
    below) and ``upright`` is (1 + cosine of the pitch) / 2; in its other tasks that is multiplied by ``(1 + 5 m) / 6``,
    for ``flip`` with the rate of the pitch as the speed.
    """
    if name not in TASKS:
        raise unknown("planar body", name, TASKS)
    if task not in TASKS[name]:
        raise unknown(f"planar/{name} task", task, TASKS[name])
    speed, spin = next_physics[..., JOINTS], next_physics[..., JOINTS + 2]
    if name == "cheetah":
        forwards = -speed if task.endswith("backward") else speed
        return jnp.clip(forwards / SPEEDS[task], 0.0, 1.0)
    missing = jnp.maximum(STAND_HEIGHT - (_MODELS[name][1] + next_physics[..., 1]), 0.0)
    high = jnp.exp(np.log(0.1) * jnp.square(missing / 0.6))
    standing = (3.0 * high + 0.5 * (1.0 + jnp.cos(next_physics[..., 2]))) / 4.0
    if task == "stand":
        return standing
    moving = spin / SPIN if task == "flip" else speed / SPEEDS[task]
    return standing * (1.0 + 5.0 * jnp.clip(moving, 0.0, 1.0)) / 6.0

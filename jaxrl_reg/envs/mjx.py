"""Gymnasium's HalfCheetah, Hopper, Walker2d and Ant inside the compiled program, simulated by MJX.

For policies trained on D4RL or Minari data: observations, rewards, ends, time limit, frame skip and the noise of the
first state are Gymnasium's, version by version. The models are written here (``mjcf``) instead of read from an
installed Gymnasium, so that evaluation needs no other package; tests hold their numbers and their motion to
Gymnasium's models, and every step here to Gymnasium's step from the same state.

The physics is MuJoCo's, in float32 and with MJX's solver. From the same state a step agrees with Gymnasium's (on
MuJoCo 4) to rounding: over 200 steps with random actions the largest deviation of an observation is 1e-5 (hopper),
1e-4 (walker, ant) and 6e-4 (cheetah), that of a reward 7e-6. Whole episodes of these chaotic systems agree in
distribution only. Two things are done here rather than by ``mjx.step``, which deviates by up to 2 rad/s per step of
the ant: the directions of friction on a steep capsule, and the rotation of a free body within a Runge-Kutta step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import core, drawing, local, mjcf, quiet
from jaxrl_reg.errors import UserError, need, unknown
from jaxrl_reg.types import Array, Env, Spec


class Task(NamedTuple):
    """What is the same in all versions of a task."""

    substeps: int  # physics steps per action
    hidden: int  # leading positions that are not observed: x, or x and y
    noise: float  # of the first state, in both directions
    control_cost: float  # per squared action
    survival: float  # reward per step
    healthy: Callable[[Array, Array], Array]  # (qpos, qvel) -> bool; the episode ends otherwise
    speed_limit: float = np.inf  # of the observed velocities
    gaussian: bool = False  # first velocities: normal instead of uniform


def _hopper_healthy(qpos, qvel):
    rest = jnp.concatenate([qpos[2:], qvel])
    return jnp.all(jnp.abs(rest) < 100.0) & (qpos[1] > 0.7) & (jnp.abs(qpos[2]) < 0.2)


def _walker_healthy(qpos, qvel):
    return (qpos[1] > 0.8) & (qpos[1] < 2.0) & (jnp.abs(qpos[2]) < 1.0)


def _ant_healthy(qpos, qvel):
    return jnp.isfinite(qpos).all() & jnp.isfinite(qvel).all() & (qpos[2] >= 0.2) & (qpos[2] <= 1.0)


TASKS = {
    "halfcheetah": Task(5, 1, 0.1, 0.1, 0.0, lambda qpos, qvel: jnp.bool_(True), gaussian=True),
    "hopper": Task(4, 1, 5e-3, 1e-3, 1.0, _hopper_healthy, speed_limit=10.0),
    "walker2d": Task(4, 1, 5e-3, 1e-3, 1.0, _walker_healthy, speed_limit=10.0),
    "ant": Task(5, 2, 0.1, 0.5, 1.0, _ant_healthy, gaussian=True),
}
NAMES = ("ant-v2", *(f"{task}-{version}" for task in TASKS for version in ("v4", "v5")))
# The versions whose returns D4RL's reference scores are about: the dynamics, rewards and ends of its files.
D4RL = {
    "halfcheetah": ("halfcheetah-v4",),
    "hopper": ("hopper-v4",),
    "walker2d": ("walker2d-v4",),
    "ant": ("ant-v2", "ant-v4"),
}
BODIES = {"ant": 14}  # the world included: rows of contact forces
CONTACT_COST, CONTACT_LIMIT = 5e-4, 1.0
# As exact in float32 as the hundred iterations and fifty line-search steps that MuJoCo allows, at half the time; half
# as many are not (ant: 0.4 rad/s).
ITERATIONS, LINE_SEARCH = 8, 16


class Physics(NamedTuple):
    """All that the future depends on; only ``warmstart`` could be left out, at the price of solver iterations."""

    qpos: Array  # m and rad
    qvel: Array  # m/s and rad/s
    warmstart: Array  # the solver's last accelerations, from where it starts
    lag: Array  # by how much the body's frame is behind ``qpos`` along x and y, m; see ``advance``


def make(name: str, episode_length: int = 1000, contact_forces: bool | None = None) -> Env:
    """Gymnasium's task ``name``, for example ``hopper-v4``; torques in [-1, 1], as the tasks themselves have them.

    Observation ``[O]``: positions without x (ant: and y), then velocities, for hopper and walker within +-10; 11 for
    the hopper, 17 for walker and cheetah, 27 for the ant. The ant also has contact forces, clipped to +-1: 78 more in
    v5 (13 bodies), 84 in v4 if ``contact_forces`` (the world's zeros included), which also subtracts their cost there
    as v5 always does. ``ant-v2`` is v4 with 84 zeros, which is what Ant-v2 and -v3 showed under MuJoCo 2.0 and what the
    files of D4RL hold. ``v5`` differs from ``v4`` besides in not paying for survival on the last step, and in the
    friction of the walker's right foot.

    Metrics: ``forward``, ``control``, ``survival`` and for the ant ``contact`` add up to the reward. Raises
    ``UserError`` for an unknown name, and for contact forces elsewhere than in ``ant-v4``.
    """
    if name not in NAMES:
        raise unknown("MJX task", name, NAMES)
    if contact_forces is not None and name != "ant-v4":
        raise UserError(f"mjx/{name}: contact_forces is a setting of mjx/ant-v4")
    kind, version = name.split("-")
    task = TASKS[kind]
    host, advance = simulator(name)
    padding = 84 if name == "ant-v2" else 0
    paid = name == "ant-v5" or bool(contact_forces)
    shown = slice(1 if name == "ant-v5" else 0, None if paid else 0)
    seconds = task.substeps * float(host.opt.timestep)

    def observe(qpos, qvel, forces):
        velocity = jnp.clip(qvel, -task.speed_limit, task.speed_limit)
        return jnp.concatenate([qpos[task.hidden :], velocity, forces[shown].reshape(-1), jnp.zeros(padding)])

    def terms(forward, control, survival, contact):
        known = {"forward": forward, "control": -control, "survival": survival}
        return {**known, "contact": -contact} if kind == "ant" else known

    def reset(key):
        place, motion = jax.random.split(key)
        qpos = host.qpos0 + jax.random.uniform(place, (host.nq,), minval=-task.noise, maxval=task.noise)
        if task.gaussian:
            qvel = task.noise * jax.random.normal(motion, (host.nv,))
        else:
            qvel = jax.random.uniform(motion, (host.nv,), minval=-task.noise, maxval=task.noise)
        state = Physics(qpos, qvel, jnp.zeros(host.nv), jnp.zeros(task.hidden))
        # Gymnasium computes contact forces only at the end of a step.
        observation = observe(qpos, qvel, jnp.zeros((BODIES.get(kind, 0), 6)))
        return core.Outcome(state, observation, metrics=terms(0.0, 0.0, 0.0, 0.0))

    def step(state, action, key):
        state, moved, forces = advance(state, action)
        forces = jnp.clip(forces, -CONTACT_LIMIT, CONTACT_LIMIT)
        healthy = task.healthy(state.qpos, state.qvel).astype(jnp.float32)
        metrics = terms(
            moved[0] / seconds,
            task.control_cost * jnp.sum(jnp.square(action)),
            task.survival * (healthy if version == "v5" else 1.0),
            CONTACT_COST * jnp.sum(jnp.square(forces)) if paid else 0.0,
        )
        observation = observe(state.qpos, state.qvel, forces)
        return core.Outcome(state, observation, sum(metrics.values()), 1.0 - healthy, metrics)

    def draw(states):
        qpos = np.stack([np.asarray(core.unwrap(state).qpos) for state in states])
        return drawing.motion(host, qpos, seconds)

    size = jax.eval_shape(reset, jax.random.key(0)).observation.shape[0]
    env = core.environment(reset, step, Spec(size, host.nu), f"mjx/{name}", draw=draw)
    return core.time_limit(env, episode_length)


def simulator(name: str) -> tuple[Any, Callable[[Physics, Array], tuple[Physics, Array, Array]]]:
    """MuJoCo's model of the task ``name``, and ``advance(state, action) -> (state, moved, forces)``, one action long.

    ``moved`` is the way along x (ant: and y) that the reward is paid for, m; ``forces [bodies, 6]`` those of contacts
    (N m and N), empty but for the ant. Everything is in the state's floating-point type.

    The reward of the ant is not taken from ``qpos`` but from the frame of its body, as Gymnasium does. MuJoCo leaves
    that frame, and the contacts, where the last stage of its integrator put them.
    """
    need("mujoco")
    import mujoco  # imported on use: a second that other environments need not pay

    mjx = quiet.mjx()
    kind = name.split("-")[0]
    task = TASKS[kind]
    text = mjcf.model("walker2d_v5" if name == "walker2d-v5" else kind)
    host: Any = mujoco.MjModel.from_xml_string(text)  # pyright: ignore[reportAttributeAccessIssue]
    host.opt.iterations, host.opt.ls_iterations = ITERATIONS, LINE_SEARCH
    with local.devices():
        model = mjx.put_model(host, impl="jax")
    plain = host.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER  # pyright: ignore[reportAttributeAccessIssue]
    capsule = jnp.asarray(host.geom_type == drawing.CAPSULE)

    after: Any = mjx.rne_postconstraint

    def forward(data: Any) -> Any:  # MJX types its data by backend
        """``mjx.forward`` without what these models have not, and with MuJoCo's directions of friction."""
        for part in (mjx.kinematics, mjx.com_pos, mjx.crb, mjx.factor_m, mjx.collision):
            data = part(model, data)
        if kind == "ant":  # in a plane, all choices of directions are the same
            data = data.tree_replace({"_impl.contact.frame": aligned(data._impl.contact, data.geom_xmat)})
        rest = (mjx.make_constraint, mjx.transmission, mjx.fwd_velocity, mjx.fwd_actuation, mjx.fwd_acceleration)
        for part in (*rest, mjx.solve):
            data = part(model, data)
        return data

    def aligned(contact, turned):
        # Friction is a pyramid, so the directions of its edges matter. MuJoCo takes a capsule's axis; MJX does so too,
        # but only where the capsule lies at less than 60 degrees to the ground.
        shape = contact.geom[:, 1]
        axis = turned[shape][:, :, 2].at[:, 2].set(0.0)
        length = jnp.linalg.norm(axis, axis=-1, keepdims=True)
        first = jnp.where(length > 1e-8, axis / jnp.maximum(length, 1e-8), jnp.array([1.0, 0.0, 0.0], axis.dtype))
        up = contact.frame[:, 0]
        frame = jnp.stack([up, first, jnp.cross(up, first)], axis=1)
        return jnp.where(capsule[shape][:, None, None], frame, contact.frame)

    def substep(data, _):
        if plain:
            return mjx.euler(model, forward(data)), None
        return runge_kutta(data), None

    def runge_kutta(data):
        # One loop over the four stages instead of MJX's copy of each: a quarter of the program to compile.
        qpos, qvel, h = data.qpos, data.qvel, host.opt.timestep

        def stage(carry, numbers):
            data, way, speed, acceleration = carry
            weight, ahead = numbers
            data = forward(data)
            rate = _rate(way, data.qvel) if len(qpos) > len(qvel) else data.qvel
            speed, acceleration = speed + weight * rate, acceleration + weight * data.qacc
            way = ahead * h * rate
            data = data.replace(qpos=_move(qpos, way), qvel=qvel + ahead * h * data.qacc, qacc_warmstart=data.qacc)
            return (data, way, speed, acceleration), None

        weights, aheads = jnp.array([1.0, 2.0, 2.0, 1.0], qpos.dtype) / 6, jnp.array([0.5, 0.5, 1.0, 0.0], qpos.dtype)
        nothing = jnp.zeros_like(qvel)
        (data, _, speed, acceleration), _ = jax.lax.scan(stage, (data, nothing, nothing, nothing), (weights, aheads))
        return data.replace(qpos=_move(qpos, h * speed), qvel=qvel + h * acceleration)

    def advance(state, action):
        # The ground is the same everywhere. From x = 0 a small way is not lost in the rounding of a long one.
        begun = state.qpos[: task.hidden]
        data = mjx.make_data(model).replace(
            qpos=state.qpos.at[: task.hidden].set(0.0),
            qvel=state.qvel,
            qacc_warmstart=state.warmstart,
            ctrl=action,
        )
        data, _ = jax.lax.scan(substep, data, length=task.substeps)
        lag, forces = state.lag, jnp.zeros((0, 6), state.qpos.dtype)
        moved = data.qpos[: task.hidden]
        if kind == "ant":
            lag = data.xpos[1, :2] - moved
            moved = moved + lag - state.lag
            forces = after(model, data)._impl.cfrc_ext
        qpos = data.qpos.at[: task.hidden].add(begun)
        return Physics(qpos, data.qvel, data.qacc_warmstart, lag), moved, forces

    return host, advance


def _move(qpos: Array, way: Array) -> Array:
    """``qpos`` after ``way``; one position more than ways means a free body at the front, with a quaternion."""
    if len(qpos) == len(way):
        return qpos + way
    turn = way[3:6]
    square = jnp.sum(jnp.square(turn))
    half = 0.5 * jnp.sqrt(jnp.where(square > 0.0, square, 1.0))
    a = jnp.where(square > 0.0, jnp.cos(half), 1.0)
    b = jnp.where(square > 0.0, 0.5 * jnp.sin(half) / half, 0.5) * turn
    w, v = qpos[3], qpos[4:7]
    turned = jnp.concatenate([(w * a - v @ b)[None], w * b + a * v + jnp.cross(v, b)])
    return jnp.concatenate([qpos[:3] + way[:3], turned / jnp.linalg.norm(turned), qpos[7:] + way[6:]])


def _rate(way: Array, qvel: Array) -> Array:
    """How ``way`` from the start of a step grows at the velocity ``qvel`` that the body has there.

    They differ in a rotation, whose velocity is given in the frame of the turned body: the series of Munthe-Kaas, two
    brackets of it, as MuJoCo has integrated since version 4.
    """
    turn, spin = way[3:6], qvel[3:6]
    bracket = jnp.cross(turn, spin)
    return qvel.at[3:6].add(0.5 * bracket + jnp.cross(turn, bracket) / 12.0)

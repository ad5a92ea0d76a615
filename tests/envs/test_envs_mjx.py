"""Gymnasium's MuJoCo tasks on MJX: the same models, the same steps from the same states, the same rewards and ends."""

import dataclasses
import pathlib

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import mjcf, mjx, quiet
from jaxrl_reg.errors import UserError

ASSETS = pathlib.Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
FILES = {
    "hopper": "hopper.xml",
    "walker2d": "walker2d.xml",
    "walker2d_v5": "walker2d_v5.xml",
    "halfcheetah": "half_cheetah.xml",
    "ant": "ant.xml",
}
SIZES = {"halfcheetah": (17, 6), "hopper": (11, 3), "walker2d": (17, 6), "ant-v2": (111, 8), "ant-v4": (27, 8)}
SIZES["ant-v5"] = (105, 8)
# What the physics reads of every body, joint, degree of freedom, shape and motor.
FIELDS = {
    "body": "parentid pos quat ipos iquat mass inertia",
    "jnt": "type axis range limited stiffness solref solimp bodyid",
    "qpos": "0 spring",
    "dof": "armature damping frictionloss solref solimp",
    "geom": "type bodyid pos quat friction margin gap solref solimp solmix contype conaffinity condim priority",
    "actuator": "trnid gear ctrlrange ctrllimited gainprm biasprm",
}
OPTIONS = ("timestep", "integrator", "cone", "gravity", "density", "viscosity", "impratio", "disableflags")


def original(name):
    """Gymnasium's environment ``name``, without its time limit."""
    kind, version = name.split("-")
    title = {"halfcheetah": "HalfCheetah", "walker2d": "Walker2d"}.get(kind, kind.capitalize())
    extra = {"use_contact_forces": True} if name == "ant-v4" else {}
    with quiet.models():
        return gymnasium.make(f"{title}-{'v4' if version == 'v2' else version}", **extra).unwrapped


@pytest.mark.parametrize("name", FILES)
def test_models_have_gymnasiums_numbers_and_move_alike(name):
    ours = mujoco.MjModel.from_xml_string(mjcf.model(name))
    with quiet.models():
        theirs = mujoco.MjModel.from_xml_path(str(ASSETS / FILES[name]))
    for field in (f"{kind}_{part}".replace("_0", "0") for kind, parts in FIELDS.items() for part in parts.split()):
        np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field), rtol=1e-9, atol=1e-12, err_msg=field)
    np.testing.assert_allclose(ours.geom_size[1:], theirs.geom_size[1:], rtol=1e-9)  # the ground: as drawn
    for option in OPTIONS:
        np.testing.assert_array_equal(getattr(ours.opt, option), getattr(theirs.opt, option), err_msg=option)
    pair = [(model, mujoco.MjData(model)) for model in (ours, theirs)]
    rng = np.random.default_rng(0)
    for _ in range(200):
        control = rng.uniform(-1, 1, ours.nu)
        for model, data in pair:
            data.ctrl[:] = control
            mujoco.mj_step(model, data)
    np.testing.assert_allclose(pair[0][1].qpos, pair[1][1].qpos, rtol=0, atol=1e-7)


def physics_of(env, name):
    data, task = env.data, mjx.TASKS[name.split("-")[0]]
    lag = data.xpos[1, : task.hidden] - data.qpos[: task.hidden] if name.startswith("ant") else np.zeros(task.hidden)
    return mjx.Physics(*(jnp.asarray(x, jnp.float32) for x in (data.qpos, data.qvel, data.qacc_warmstart, lag)))


@pytest.mark.parametrize("name", mjx.NAMES)
def test_observations_rewards_and_ends_are_gymnasiums(name, monkeypatch):
    """Everything around the physics, which here is Gymnasium's own: the result of its step is handed in."""
    kind, version = name.split("-")
    source, task = original(name), mjx.TASKS[kind]
    result, simulator = [], mjx.simulator
    monkeypatch.setattr(mjx, "simulator", lambda name: (simulator(name)[0], lambda state, action: result[0]))
    env = envs.make(f"mjx/{name}", **({"contact_forces": True} if name == "ant-v4" else {}))
    assert source.frame_skip == task.substeps
    assert source._reset_noise_scale == task.noise
    assert env.spec.max_episode_steps == gymnasium.spec(source.spec.id).max_episode_steps

    rng, ends = np.random.default_rng(0), 0
    source.reset(seed=0)
    state = env.reset(jax.random.key(0))
    for step in range(40):
        if step % 10 == 5 and kind != "halfcheetah":  # an unhealthy pose
            source.set_state(source.init_qpos + np.eye(source.model.nq)[2] * rng.choice([-1.5, 1.5]), source.init_qvel)
        before = physics_of(source, name)
        action = rng.uniform(-1, 1, source.model.nu).astype(np.float32)
        observation, reward, terminated, _, _ = source.step(action)
        after = physics_of(source, name)
        moved = (after.qpos - before.qpos)[: task.hidden] + after.lag - before.lag
        forces = source.data.cfrc_ext if kind == "ant" else np.zeros((0, 6))
        result[:] = [(after, moved, jnp.asarray(forces, jnp.float32))]
        with jax.disable_jit():  # what is handed in changes from call to call
            found = env.step(state, action)
        if version == "v2":  # no contact forces, and no cost of them
            reward += source.contact_cost if source._use_contact_forces else 0.0
            observation = np.concatenate([observation[:27], np.zeros(84)])
        np.testing.assert_allclose(found.observation, observation, rtol=1e-5, atol=1e-6)
        assert float(found.reward) == pytest.approx(float(reward), rel=1e-3, abs=1e-3)
        assert bool(found.terminated) == bool(terminated)
        terms = {key: float(value) for key, value in found.metrics.items() if key != "nonfinite"}
        assert sum(terms.values()) == pytest.approx(float(found.reward), abs=1e-4)
        ends += terminated
    assert ends > 0 or kind == "halfcheetah"


@pytest.mark.parametrize("name", mjx.NAMES)
def test_shapes_and_first_states(name):
    env = envs.make(f"mjx/{name}")
    kind = name.split("-")[0]
    assert (env.spec.observation_dim, env.spec.action_dim) == SIZES.get(name, SIZES.get(kind))
    host, noise = mjx.simulator(name)[0], mjx.TASKS[kind].noise
    state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 500)).inner
    away = np.abs(np.asarray(state.qpos) - host.qpos0)
    assert 0.95 * noise < away.max() < 1.001 * noise
    normal = kind in ("halfcheetah", "ant")
    assert np.std(state.qvel) == pytest.approx(noise if normal else noise / np.sqrt(3), rel=0.05)
    assert (np.abs(state.qvel) > noise).any() == normal


# Largest deviations allowed after one step in float32, of any observed number; velocities reach 20 m/s and rad/s. About
# ten times what is seen. The walker is left out, since it has the hopper's integrator and the cheetah's contacts.
TOLERANCE = {"hopper-v4": 1e-4, "halfcheetah-v4": 5e-3, "ant-v5": 2e-3}


@pytest.mark.parametrize("name", TOLERANCE)
def test_a_step_is_gymnasiums_from_the_same_state(name):
    """Both integrators, limits, contacts, forces: 200 states that random actions led to, in one compiled program."""
    assert int(mujoco.__version__.split(".")[0]) >= 4, "MuJoCo integrates rotations as we do since version 4"
    source, env = original(name), envs.make(f"mjx/{name}")
    rng, rows = np.random.default_rng(1), []
    source.reset(seed=1)
    for step in range(200):
        if step % 50 == 0:
            source.reset(seed=step)
        before, action = physics_of(source, name), rng.uniform(-1, 1, source.model.nu).astype(np.float32)
        observation, reward, terminated, _, _ = source.step(action)
        rows.append((before, action, observation, reward, float(terminated)))
        if terminated:
            source.reset(seed=step)
    before, action, observation, reward, terminated = jax.tree.map(lambda *x: np.stack(x), *rows)
    state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), len(rows)))
    state = jax.jit(jax.vmap(env.step))(dataclasses.replace(state, inner=jax.tree.map(jnp.asarray, before)), action)
    deviation = np.abs(np.asarray(state.observation) - observation)
    assert deviation.max() < TOLERANCE[name]
    assert np.median(deviation[:, : env.spec.action_dim].max(axis=1)) < 2e-6  # heights and angles
    assert np.median(deviation.max(axis=1)) < 1e-4
    off = np.abs(np.asarray(state.reward) - reward)
    assert off.max() < TOLERANCE[name]
    assert np.median(off) < 1e-5
    np.testing.assert_array_equal(state.terminated, terminated)
    if name == "ant-v5":
        assert (observation[:, 27:] != 0).any(axis=1).mean() > 0.1  # the ground was touched
        assert env.draw([jax.tree.map(lambda x: x[0], state.inner)] * 2).ends.shape == (2, 13, 2, 2)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="did you mean 'mjx/hopper-v"):
        envs.make("mjx/hoper-v4")
    with pytest.raises(UserError, match="contact_forces is a setting of mjx/ant-v4"):
        envs.make("mjx/hopper-v4", contact_forces=True)
    with pytest.raises(UserError, match="did you mean 'episode_length'"):
        envs.make("mjx/hopper-v4", episode_lenght=5)

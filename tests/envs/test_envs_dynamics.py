"""Dynamics as levels: every number of a level changes how a body moves, and none needs another program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import dynamics, quiet
from jaxrl_reg.errors import UserError

# A trunk on a slide with a leg that drags over the ground.
BODY = """
<mujoco>
  <option timestep="0.01" solver="Newton" iterations="2" ls_iterations="4"/>
  <default><geom friction="0.2" condim="3" contype="0" conaffinity="0"/></default>
  <worldbody>
    <geom type="plane" size="0 0 1" conaffinity="1"/>
    <body name="trunk" pos="0 0 0.5">
      <joint name="x" type="slide" axis="1 0 0" damping="0.5"/>
      <joint name="z" type="slide" axis="0 0 1"/>
      <geom size="0.1" mass="1"/>
      <body pos="0 0 -0.1">
        <joint name="hip" axis="0 1 0" damping="0.2"/>
        <geom type="sphere" pos="0 0 -0.3" size="0.1" mass="0.5" contype="1"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="hip" gear="2"/></actuator>
</mujoco>
"""


@pytest.fixture(scope="module")
def moved():
    """Positions after a third of a second: of the body itself and one level of each number, and of a heavier body."""
    mujoco, mjx = pytest.importorskip("mujoco"), quiet.mjx()
    host = mujoco.MjModel.from_xml_string(BODY)
    traced = []

    def after(model, level):
        traced.append(1)
        own = dynamics.varied(model, level, 1)
        data = mjx.make_data(model).replace(qvel=jnp.array([1.0, 0.0, 0.5]), ctrl=jnp.array([0.7]))
        return jax.lax.scan(lambda d, _: (mjx.step(own, d), None), data, length=33)[0].qpos

    many, levels = jax.jit(jax.vmap(after, (None, 0))), np.eye(7, 6, -1, dtype=np.float32)
    found = np.asarray(many(mjx.put_model(host), levels))
    host.body_mass[1] *= 1.5
    host.body_inertia[1] *= 1.5
    return found, np.asarray(many(mjx.put_model(host), levels)), len(traced)


def test_every_number_of_a_level_changes_the_motion(moved):
    found, _, traced = moved
    shift = dict(zip(dynamics.FACTORS, abs(found[1:] - found[0]).max(axis=1), strict=True))
    assert min(shift.values()) > 1e-4, shift
    assert traced == 1


def test_a_level_is_a_body_that_was_built_so(moved):
    found, built, _ = moved
    np.testing.assert_allclose(found[1], built[0], atol=1e-5)


def test_levels_that_are_aimed_at_have_motors_that_fit():
    levels = dynamics.evaluation()
    misfit = {name: abs(level[:, 4] - level[:, :2].mean(1)).mean() for name, level in levels.items()}
    assert misfit["held_out"] < 0.15 < misfit["box"]
    changed = np.asarray(dynamics.mutated(jax.random.key(0), jnp.zeros(6), 2))
    assert (changed != 0).all()
    assert dynamics.picture(np.array([-1.0, 0, 1, 0, 0, 0]))[0, :3].tolist() == [
        [52, 110, 189],
        [242, 240, 233],
        [214, 102, 53],
    ]


def test_brax_reads_every_number_and_keeps_its_own_body():
    pytest.importorskip("brax")
    from brax import envs as theirs

    from jaxrl_reg.envs.adapters import brax

    quiet.mjx()
    env = theirs.get_environment("inverted_pendulum", backend="generalized")
    before = {name: np.array(value) for name, value in read(env.sys).items()}
    plain = read(brax.under(env, np.zeros(6, np.float32)).sys)
    for name, value in before.items():
        np.testing.assert_allclose(plain[name], value, rtol=1e-6, atol=1e-6)
    expected = ("trunk", "legs", "friction", "damping", "gear", "gravity")
    for number, wanted in enumerate(expected):
        found = read(brax.under(env, np.eye(6, dtype=np.float32)[number]).sys)
        changed = {name for name in before if not np.allclose(found[name], before[name], rtol=1e-3, atol=1e-3)}
        assert changed <= {wanted}, changed
        assert changed or not before[wanted].any()  # this pendulum's joints have no damping
    for name, value in before.items():
        np.testing.assert_array_equal(read(env.sys)[name], value)


def read(system):
    """What Brax's generalized pipeline looks at."""
    inertia = system.link.inertia
    both = np.concatenate([np.asarray(inertia.mass)[:, None], np.asarray(inertia.i).reshape(len(inertia.mass), -1)], 1)
    return {
        "trunk": both[0],
        "legs": both[1:],
        "friction": np.asarray(system.geom_friction),
        "damping": np.asarray(system.dof.damping),
        "gear": np.asarray(system.actuator.gear),
        "gravity": np.asarray(system.gravity),
    }


def test_bodies_that_feel_no_mass_are_refused():
    with pytest.raises(UserError, match="take --backend generalized or mjx"):
        envs.make("brax/hopper", dynamics=True)

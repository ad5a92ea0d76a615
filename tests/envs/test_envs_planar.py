"""Walker and cheetah: rewards by hand, bodies that stand on the ground, and stored physics that goes on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import planar
from jaxrl_reg.errors import UserError


def physics(z=0.0, pitch=0.0, speed=0.0, spin=0.0):
    vector = np.zeros(18, np.float32)
    vector[[1, 2, 9, 11]] = z, pitch, speed, spin
    return jnp.asarray(vector)


def test_rewards_by_hand():
    def walker(task, **state):
        return float(planar.reward("walker", physics(**state), task))

    assert walker("stand") == pytest.approx(1.0)
    assert walker("stand", pitch=np.pi) == pytest.approx(0.75)
    assert walker("stand", z=-0.7) == pytest.approx((3 * 0.1 + 1) / 4)  # 0.6 m below the least height
    assert walker("walk") == pytest.approx(1 / 6)
    assert walker("walk", speed=0.5) == pytest.approx(3.5 / 6)
    assert walker("walk", speed=7.0) == pytest.approx(1.0)
    assert walker("run", speed=4.0) == pytest.approx(3.5 / 6)
    assert walker("run", speed=-4.0) == pytest.approx(1 / 6)
    assert walker("flip", spin=2.5) == pytest.approx(3.5 / 6)
    for task, speed, expected in (("run", 4, 0.5), ("walk_backward", -0.25, 0.25), ("run_backward", 8, 0)):
        assert float(planar.reward("cheetah", physics(speed=speed), task)) == pytest.approx(expected)
    with pytest.raises(UserError, match="unknown planar/cheetah task 'flip'"):
        planar.reward("cheetah", physics(), "flip")


@pytest.mark.parametrize("name", planar.NAMES)
def test_the_bodies_touch_the_ground_where_they_are_built(name):
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_string(planar._MODELS[name][0])
    state = mujoco.MjData(model)
    mujoco.mj_forward(model, state)
    touching = [g for g in range(1, model.ngeom) if model.geom_contype[g]]
    lowest = min(
        state.geom_xpos[g, 2] - abs(state.geom_xmat[g, 8]) * model.geom_size[g, 1] - model.geom_size[g, 0]
        for g in touching
    )
    assert lowest == pytest.approx(0.0, abs=1e-3)
    assert (model.nq, model.nv, model.nu) == (9, 9, 6)
    assert 15 < model.body_mass.sum() < 60


def test_the_walker_goes_on_the_same_from_stored_physics():
    env = envs.make("planar/walker", task="walk")
    step = jax.jit(env.step)
    state = env.reset(jax.random.key(0))
    assert env.draw([state.inner]).ends.shape == (1, 7, 2, 2)
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 6)).astype(np.float32)
    for action in actions:
        before, state = state, step(state, action)
    again = step(env.tasks.restore(env.tasks.physics(before)), actions[-1])
    np.testing.assert_array_equal(again.observation, state.observation)
    np.testing.assert_array_equal(again.reward, state.reward)
    assert float(state.reward) == pytest.approx(float(env.tasks.reward(env.tasks.physics(state), "walk")), rel=1e-5)
    np.testing.assert_allclose(state.observation[0], 1.25 + env.tasks.physics(state)[1], rtol=1e-6)

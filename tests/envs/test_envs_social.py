"""The social environment by hand, and counterfactuals computed by forking it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs, losses
from jaxrl_reg.envs import counterfactual, social_nav
from jaxrl_reg.errors import UserError

STAY = jnp.array(social_nav.STAY)


def test_the_robot_drives_exact_arcs():
    rng = np.random.default_rng(0)
    pose, commands = np.array([0.3, -0.2, 0.7]), rng.uniform([0, -1], [0.5, 1], (6, 2))
    found, fine = jnp.asarray(pose, jnp.float32), pose.copy()
    wrong, turned = pose[:2].copy(), 0.0  # with the turn since the start inside the arc formula
    for v, w in commands:
        found = social_nav.drive(found, jnp.array([v, w]))
        turned += w * social_nav.TIME_STEP
        chord = v * social_nav.TIME_STEP * np.sinc(turned / (2 * np.pi))
        wrong += chord * np.array([np.cos(pose[2] + turned / 2), np.sin(pose[2] + turned / 2)])
        for _ in range(2000):
            step = social_nav.TIME_STEP / 2000
            fine += step * np.array([v * np.cos(fine[2] + w * step / 2), v * np.sin(fine[2] + w * step / 2), w])
    np.testing.assert_allclose(found, fine, atol=1e-5)
    assert np.abs(wrong - fine[:2]).max() > 0.01
    straight = jax.jacobian(lambda c: social_nav.drive(jnp.zeros(3), c))(jnp.array([0.3, 0.0]))
    np.testing.assert_allclose(straight, [[1 / 3, 0], [0, 0.3 / 18], [0, 1 / 3]], atol=1e-6)


def test_the_pedestrian_reaches_walking_speed_alone_and_gives_way():
    far = jnp.array([1e3, 1e3])
    position, velocity, goal = jnp.zeros(2), jnp.zeros(2), jnp.array([-6.0, 0.0])
    for _ in range(12):
        position, velocity = social_nav.walk(position, velocity, goal, far)
    np.testing.assert_allclose(velocity, [-1.0, 0.0], atol=1e-3)
    _, met = social_nav.walk(position, velocity, goal, position - jnp.array([0.6, 0.0]))  # bodies touch, robot ahead
    np.testing.assert_allclose(met - velocity, [social_nav.REPULSION / 3, 0.0], atol=1e-3)
    slope = jax.grad(lambda r: social_nav.walk(position, velocity, goal, r)[0].sum())(position)
    assert jnp.isfinite(slope).all()  # also on top of each other


def test_reward_and_end():
    env = envs.make("social_nav", noise=0.0)
    state = env.reset(jax.random.key(0))
    physics = state.inner._replace(pose=jnp.zeros(3), goal=jnp.array([0.4, 0.0]), pedestrian=jnp.array([3.0, 0.0]))
    state = dataclasses.replace(state, inner=physics)
    stayed, went = env.step(state, STAY), env.step(state, jnp.array([1.0, 0.0]))
    assert [float(x) for x in (stayed.reward, stayed.terminated)] == [0, 0]
    assert float(went.reward) == pytest.approx(1 / 6, abs=1e-6)
    assert float(went.terminated) == 1
    np.testing.assert_allclose(went.observation[4:], [0.4 - 1 / 6, 0], atol=1e-6)
    close = dataclasses.replace(state, inner=physics._replace(pedestrian=jnp.array([0.5, 0.0])))
    assert float(env.step(close, jnp.array([1.0, 0.0])).reward) == pytest.approx(1 / 6 - 1, abs=1e-6)
    np.testing.assert_allclose(social_nav.to_frame(jnp.array([0.0, 2.0]), jnp.pi / 2), [2, 0], atol=1e-6)


def pedestrian(state):
    return state.inner.pedestrian


def test_forks_share_their_chance_and_differ_by_what_was_done():
    env = envs.make("social_nav")
    state = env.reset(jax.random.key(3))

    def run(action):
        args = (env, lambda o, k: action, lambda o, k: STAY, state, jax.random.key(0), 8, pedestrian)
        return counterfactual.fork(*args)

    def perturbation(action):
        return losses.counterfactual_perturbation(*run(action))

    actual, null = jax.jit(run)(STAY)
    np.testing.assert_array_equal(actual, null)  # noise and all
    near = jax.jit(perturbation)(jnp.array([1.0, 0.0]))
    assert float(near) > 1e-4
    assert jnp.isfinite(jax.grad(perturbation)(jnp.array([0.9, 0.0]))).all()
    batch = envs.vectorize(env, 2)
    with pytest.raises(UserError, match="single environment"):
        counterfactual.fork(batch, lambda o, k: o, lambda o, k: o, batch.reset(jax.random.key(0)), None, 2, pedestrian)


def test_side_effect_penalty():
    env = envs.make("social_nav")
    charged = counterfactual.with_side_effect_penalty(env, pedestrian, STAY, 2.0)
    state = env.reset(jax.random.key(3))
    action = jnp.array([1.0, 0.2])
    free, paid = env.step(state, action), charged.step(state, action)
    moved = jnp.linalg.norm(free.inner.pedestrian - env.step(state, STAY).inner.pedestrian)
    assert float(moved) > 1e-4
    np.testing.assert_allclose(paid.reward, free.reward - 2.0 * moved, rtol=1e-5)
    np.testing.assert_array_equal(charged.step(state, STAY).reward, env.step(state, STAY).reward)


def test_the_undisturbed_path_is_not_learnt():
    predicted, undisturbed = jnp.ones((4, 2)), jnp.zeros((4, 2))
    slopes = jax.grad(losses.counterfactual_perturbation, (0, 1))(predicted, undisturbed)
    np.testing.assert_allclose(slopes[0], 0.5)
    np.testing.assert_array_equal(slopes[1], 0)


def test_personal_space_by_hand():
    ours, theirs = jnp.zeros((2, 2)), jnp.array([[0.3, 0.4], [3.0, 4.0]])
    assert float(losses.personal_space_loss(ours, theirs, 1.0)) == pytest.approx(0.125)
    slope = jax.grad(losses.personal_space_loss)(ours, theirs, 1.0)
    np.testing.assert_allclose(slope, [[0.3, 0.4], [0, 0]], atol=1e-6)  # descent leads away
    np.testing.assert_array_equal(jax.grad(losses.personal_space_loss)(ours, ours, 1.0), 0)

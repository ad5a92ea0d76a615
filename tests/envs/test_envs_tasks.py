"""Tasks put to a world afterwards: stored physics gives what happened again; rewards and skills are wrapped."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import pointnav
from jaxrl_reg.errors import UserError


def test_stored_physics_and_action_give_the_next_state_again():
    env = envs.make("pointnav", task="top_left")
    state = env.reset(jax.random.key(3))
    physics = env.tasks.physics(state)
    action = jnp.array([-0.3, 0.4])
    after, again = env.step(state, action), env.step(env.tasks.restore(physics), action)
    np.testing.assert_array_equal(again.final_observation, after.final_observation)
    np.testing.assert_array_equal(again.reward, after.reward)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), again) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), after
    )
    for task in env.tasks.names:
        goal = jnp.array(pointnav.GOALS[task])
        assert env.tasks.reward(goal, task) == 1
        assert env.tasks.reward(-goal, task) == 0


def test_physics_of_a_vectorised_skilled_world_is_that_of_each_environment():
    env = envs.make("pointnav")
    world = envs.vectorize(envs.with_skills(env, 3), 4)
    state = world.reset(jax.random.key(0))
    np.testing.assert_array_equal(env.tasks.physics(state), state.observation[:, :2])


def test_a_skill_is_drawn_at_the_reset_and_stays():
    env = envs.with_skills(envs.make("pointnav", episode_length=2), 3)
    assert env.spec.observation_dim == 5
    states = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 64))
    skill = np.asarray(states.observation[:, 2:])
    assert set(np.unique(skill)) == {0.0, 1.0}
    np.testing.assert_array_equal(skill.sum(axis=1), 1)
    assert set(skill.argmax(axis=1)) == {0, 1, 2}
    world = envs.vectorize(env, 32)
    state, step = jax.jit(world.reset)(jax.random.key(1)), jax.jit(world.step)
    first = np.asarray(state.observation)[:, 2:]
    state = step(state, np.zeros((32, 2), np.float32))
    np.testing.assert_array_equal(np.asarray(state.observation)[:, 2:], first)
    state = step(state, np.zeros((32, 2), np.float32))  # the episodes end
    np.testing.assert_array_equal(np.asarray(state.final_observation)[:, 2:], first)
    assert not np.array_equal(np.asarray(state.observation)[:, 2:], first)
    with pytest.raises(UserError, match="at least 2 skills"):
        envs.with_skills(env, 1)


def test_a_reward_of_ones_own_replaces_that_of_the_world():
    env = envs.make("pointnav")

    def reward(before, action, after):
        return after.final_observation[0] - before.observation[0] + 10 * action[1]

    paid = envs.with_reward(env, reward)
    state = env.tasks.restore(jnp.array([0.2, 0.1]))
    after = paid.step(state, jnp.array([0.2, 0.3]))
    assert after.reward == pytest.approx(0.1 + 3.0)
    assert paid.step(state, jnp.array([0.0, 5.0])).reward == pytest.approx(10.0)  # the clipped action
    broken = env._replace(
        step=lambda state, action: dataclasses.replace(env.step(state, action), metrics={"nonfinite": jnp.float32(1.0)})
    )
    assert envs.with_reward(broken, reward).step(state, jnp.ones(2)).reward == 0

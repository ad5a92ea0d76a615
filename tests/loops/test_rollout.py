"""Trajectories: what the rows say at the end of an episode, and recordings."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import envs
from jaxrl_reg.loops.rollout import record, rollout, uniform_actions
from tests.loops.toy import corridor


def forward(observation, key):
    return jnp.ones((*observation.shape[:-1], 1))


def test_rows_by_hand_through_a_termination_and_a_reset():
    # From 0, steps of +1 along a corridor of length 3: observations 0 1 2 | 0 1 2 | ..., reward on arrival at 3.
    env = envs.vectorize(corridor(goal=3.0, limit=10), 2)
    state = env.reset(jax.random.key(0))
    state, rows = jax.jit(lambda s, k: rollout(env, forward, s, k, 5))(state, jax.random.key(1))
    np.testing.assert_array_equal(rows.observation[:, 0, 0], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(rows.next_observation[:, 0, 0], [1, 2, 3, 1, 2])
    np.testing.assert_array_equal(rows.reward[:, 1], [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(rows.discount[:, 1], [1, 1, 0, 1, 1])
    np.testing.assert_array_equal(rows.last[:, 1], [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(state.observation[:, 0], [2, 2])
    assert rows.action.shape == (5, 2, 1)


def test_a_time_out_keeps_its_discount_and_its_true_successor():
    env = envs.vectorize(corridor(goal=3.0, limit=2), 1)
    _, rows = rollout(env, forward, env.reset(jax.random.key(0)), jax.random.key(1), 4)
    np.testing.assert_array_equal(rows.observation[:, 0, 0], [0, 1, 0, 1])
    np.testing.assert_array_equal(rows.next_observation[:, 0, 0], [1, 2, 1, 2])
    np.testing.assert_array_equal(rows.last[:, 0], [0, 1, 0, 1])
    np.testing.assert_array_equal(rows.discount[:, 0], 1.0)


def test_two_halves_are_one_whole_and_extras_are_of_the_step_before():
    env = envs.vectorize(corridor(), 2)

    def act(observation, key):
        return jnp.full((2, 1), 0.5)

    start = env.reset(jax.random.key(0))

    def extras(state):
        return {"position": envs.unwrap(state.inner)}

    _, whole = rollout(env, act, start, jax.random.key(1), 6, extras)
    middle, first = rollout(env, act, start, jax.random.key(1), 3, extras)
    _, second = rollout(env, act, middle, jax.random.key(1), 3, extras)
    jax.tree.map(lambda a, b, c: np.testing.assert_array_equal(a, np.concatenate([b, c])), whole, first, second)
    np.testing.assert_array_equal(whole.extras["position"], whole.observation[..., 0])


def test_uniform_actions_fill_the_box_and_no_key_is_used_twice():
    env = envs.vectorize(corridor(), 4)
    _, rows = rollout(env, uniform_actions(1), env.reset(jax.random.key(0)), jax.random.key(2), 200)
    actions = np.asarray(rows.action).ravel()
    assert np.unique(actions).size == actions.size
    assert -1.0 <= actions.min() < -0.95
    assert 0.95 < actions.max() <= 1.0
    assert abs(actions.mean()) < 0.1


def test_record_stops_where_the_episode_ends():
    recording = jax.jit(lambda k: record(corridor(goal=3.0), forward, k, 6))(jax.random.key(0))
    assert int(recording.length) == 3
    np.testing.assert_array_equal(recording.reward, [0, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(recording.inner, [0, 1, 2, 3, 3, 3, 3])
    assert [float(frame) for frame in recording.frames()] == [0, 1, 2, 3]

"""Time limit, auto-reset, observation maps and the guards around every environment, on environments of a few lines."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Spec


class Walk(NamedTuple):
    start: jax.Array
    place: jax.Array


def walk(end=1e9, reset=None):
    """Starts somewhere in [0, 1) and moves by the action; terminates past ``end``; NaN after an action below -0.9."""

    def observe(inner):
        return jnp.stack(inner)

    def first(key):
        start = jax.random.uniform(key) if reset is None else jnp.float32(reset)
        return envs.Outcome(Walk(start, start), observe(Walk(start, start)), metrics={"place": 0})

    def step(inner, action, key):
        place = jnp.where(action[0] < -0.9, jnp.nan, inner.place + action[0])
        inner = Walk(inner.start, place)
        return envs.Outcome(inner, observe(inner), 2 * action[0], place > end, {"place": place})

    return envs.environment(first, step, Spec(2, 1), "walk")


def run(key, actions, *batches):
    """All states ``[T + 1, E, ...]``, the first included, of each vectorised environment; one program for all."""

    @jax.jit
    def roll(key, actions):
        def body(states, action):
            states = [batch.step(state, action) for batch, state in zip(batches, states, strict=True)]
            return states, states

        first = [batch.reset(key) for batch in batches]
        _, rest = jax.lax.scan(body, first, actions)
        return jax.tree.map(lambda one, others: jnp.concatenate([one[None], others]), first, rest)

    return roll(key, actions)


def test_a_terminated_and_a_truncated_episode_through_vectorize_by_hand():
    env = envs.vectorize(envs.time_limit(walk(end=2.0, reset=0.5), 3), 2)
    # Environment 0 moves 0.5, 0.75, 0.5 and passes 2.0 at its third step, which is also the time limit's; environment 1
    # never gets there.
    actions = jnp.array([[0.5, 0.1], [0.75, 0.1], [0.5, 0.1], [0.25, 0.2]])[..., None]
    [states] = run(jax.random.key(0), actions, env)
    place = np.asarray(states.observation[:, :, 1])
    final = np.asarray(states.final_observation[:, :, 1])
    np.testing.assert_allclose(final[:, 0], [0.5, 1.0, 1.75, 2.25, 0.75])
    np.testing.assert_allclose(final[:, 1], [0.5, 0.6, 0.7, 0.8, 0.7], rtol=1e-6)
    np.testing.assert_allclose(place[:, 0], [0.5, 1.0, 1.75, 0.5, 0.75])
    np.testing.assert_allclose(place[:, 1], [0.5, 0.6, 0.7, 0.5, 0.7], rtol=1e-6)
    np.testing.assert_allclose(states.terminated, [[0, 0], [0, 0], [0, 0], [1, 0], [0, 0]])
    np.testing.assert_allclose(states.truncated, [[0, 0], [0, 0], [0, 0], [0, 1], [0, 0]])
    np.testing.assert_allclose(states.reward[1:, 0], [1.0, 1.5, 1.0, 0.5])
    np.testing.assert_allclose(states.metrics["place"][3], [2.25, 0.8], rtol=1e-6)  # of the episode that ended
    np.testing.assert_array_equal(states.step, [[0, 0], [1, 1], [2, 2], [0, 0], [1, 1]])


def test_pool_and_fresh_resets_agree_where_resets_are_deterministic():
    env = envs.time_limit(walk(end=1.5, reset=0.25), 4)
    actions = jax.random.uniform(jax.random.key(1), (40, 3, 1), minval=-0.5, maxval=1.0)
    pool, fresh = run(jax.random.key(0), actions, envs.vectorize(env, 3), envs.vectorize(env, 3, reset_pool=False))
    assert float(pool.terminated.sum()) > 3
    assert float(pool.truncated.sum()) > 3
    for name in ("observation", "final_observation", "reward", "terminated", "truncated", "step"):
        np.testing.assert_array_equal(getattr(pool, name), getattr(fresh, name), err_msg=name)


@pytest.mark.parametrize("reset_pool", [True, False])
def test_auto_reset_draws_new_first_states_and_new_keys(reset_pool):
    steps, number = 200, 4
    env = envs.vectorize(envs.time_limit(walk(), 2), number, reset_pool)
    [states] = run(jax.random.key(3), jnp.zeros((steps, number, 1)), env)
    first = np.asarray(states.observation[2::2, :, 0]).ravel()  # each episode has two steps
    # 400 draws of a uniform number; with the pool 200 different ones, each used about twice.
    assert len(np.unique(first)) > (120 if reset_pool else 390)
    assert abs(first.mean() - 0.5) < 0.08
    assert abs(first.std() - 12**-0.5) < 0.05
    keys = np.asarray(jax.random.key_data(states.key[::2])).reshape(-1, 2)
    assert len(np.unique(keys, axis=0)) == len(keys)  # episodes that share a first state do not share their chance


def test_every_array_of_a_vectorised_state_has_the_leading_axis():
    env = envs.vectorize(walk(), 5)
    state = jax.eval_shape(env.step, jax.eval_shape(env.reset, jax.random.key(0)), jnp.zeros((5, 1)))
    assert {leaf.shape[0] for leaf in jax.tree.leaves(state)} == {5}


def test_observations_are_transformed_once_inside_and_outside_of_vectorize():
    def function(observation):
        return jnp.concatenate([2 * observation + 1, -observation[..., :1]], axis=-1)

    env = envs.time_limit(walk(end=1.5, reset=0.25), 4)
    actions = jax.random.uniform(jax.random.key(2), (12, 3, 1), minval=-0.5, maxval=1.0).at[5, 0].set(-1.0)
    inside = envs.vectorize(envs.transform_observation(env, function), 3)
    outside = envs.transform_observation(envs.vectorize(env, 3), function)
    plain, *both = run(jax.random.key(0), actions, envs.vectorize(env, 3), inside, outside)
    assert float(plain.metrics["nonfinite"].sum()) == 1
    for mapped, states in zip((inside, outside), both, strict=True):
        assert mapped.spec.observation_dim == states.observation.shape[-1]
        np.testing.assert_allclose(states.observation, function(plain.observation))
        np.testing.assert_allclose(states.final_observation, function(plain.final_observation))
        np.testing.assert_allclose(states.reward, plain.reward)
        np.testing.assert_array_equal(envs.unwrap(states.inner).place, envs.unwrap(plain.inner).place)


def test_a_broken_simulation_terminates_with_the_last_finite_observation():
    env = walk(reset=0.25)
    state = env.step(env.reset(jax.random.key(0)), jnp.array([0.5]))
    broken = env.step(state, jnp.array([-1.0]))
    np.testing.assert_allclose(broken.final_observation, [0.25, 0.75])
    np.testing.assert_allclose(broken.observation, [0.25, 0.75])
    assert [float(x) for x in (broken.reward, broken.terminated, broken.truncated)] == [0, 1, 0]
    assert float(broken.metrics["nonfinite"]) == 1
    assert float(broken.metrics["place"]) == 0
    assert np.isnan(broken.inner.place)
    again = env.step(broken, jnp.array([0.5]))  # an evaluation may step on, masking what it gets
    assert np.isfinite(again.final_observation).all()
    assert float(again.reward) == 0

    batch = envs.vectorize(env, 2)
    [states] = run(jax.random.key(0), jnp.array([[[-1.0], [0.5]], [[0.5], [0.5]]]), batch)
    np.testing.assert_allclose(states.terminated, [[0, 0], [1, 0], [0, 0]])
    np.testing.assert_allclose(states.observation[2, :, 1], [0.75, 1.25])  # physics restarted from the pool
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states.inner.inner))


def test_a_non_finite_reward_alone_ends_the_episode_too():
    step = lambda inner, action, key: envs.Outcome(inner, jnp.zeros(1), 1 / action[0], False)  # noqa: E731
    env = envs.environment(lambda key: envs.Outcome(0, jnp.zeros(1)), step, Spec(1, 1))
    state = env.reset(jax.random.key(0))
    bad, good = env.step(state, jnp.zeros(1)), env.step(state, jnp.ones(1))
    assert [float(x) for x in (bad.reward, bad.terminated, bad.metrics["nonfinite"])] == [0, 1, 1]
    assert [float(x) for x in (good.reward, good.terminated, good.metrics["nonfinite"])] == [1, 0, 0]


def test_actions_are_clipped():
    env = walk(reset=0.0)
    state = env.reset(jax.random.key(0))
    np.testing.assert_allclose(env.step(state, jnp.array([7.0])).inner.place, 1.0)
    assert float(env.step(state, jnp.array([7.0])).reward) == 2.0


def test_python_numbers_become_strong_types_and_steps_are_traced_once():
    traced = []

    def step(inner, action, key):
        traced.append(1)
        count, _ = inner
        return envs.Outcome((count + 1, 0.5), action, 1, count > 3, {"count": count})

    env = envs.environment(lambda key: envs.Outcome((0, 0.5), [0.0], metrics={"count": 0}), step, Spec(1, 1))
    state = jax.jit(env.reset)(jax.random.key(0))
    jitted = jax.jit(env.step)
    types = jax.tree.map(jax.typeof, state)
    for _ in range(3):
        state = jitted(state, jnp.zeros(1))
        assert jax.tree.map(jax.typeof, state) == types
    assert len(traced) == 1
    assert not any(getattr(kind, "weak_type", False) for kind in jax.tree.leaves(types))
    assert {
        str(leaf.dtype) for leaf in (state.observation, state.reward, state.terminated, state.metrics["count"])
    } == {"float32"}
    assert int(state.step) == 3


def test_each_step_and_episode_has_its_own_key():
    env = envs.environment(
        lambda key: envs.Outcome(0, jax.random.uniform(key, (1,))),
        lambda inner, action, key: envs.Outcome(inner, jax.random.uniform(key, (1,))),
        Spec(1, 1),
    )
    state = env.reset(jax.random.key(0))
    seen = [float(state.observation[0])]
    for _ in range(4):
        state = env.step(state, jnp.zeros(1))
        seen.append(float(state.observation[0]))
    assert len(set(seen)) == 5
    again = env.step(env.reset(jax.random.key(0)), jnp.zeros(1))
    assert float(again.observation[0]) == seen[1]


def test_mistakes_are_named():
    env = walk()
    with pytest.raises(UserError, match=r"jax.random.key\(seed\)"):
        env.reset(jax.random.PRNGKey(0))
    with pytest.raises(UserError, match="at least 1"):
        envs.time_limit(env, 0)
    with pytest.raises(UserError, match="num_envs"):
        envs.vectorize(env, 0)
    with pytest.raises(UserError, match="inside vectorize"):
        envs.time_limit(envs.vectorize(env, 2), 5).reset(jax.random.key(0))
    with pytest.raises(UserError, match="O'"):
        envs.transform_observation(env, jnp.sum)
    state = env.reset(jax.random.key(0))
    for wrong in (jnp.zeros(2), jnp.zeros(()), jnp.zeros((1, 1))):
        with pytest.raises(ValueError, match="action must have shape"):
            env.step(state, wrong)
    batch = envs.vectorize(env, 2)
    with pytest.raises(ValueError, match=r"actions must be \(2, 1\)"):
        batch.step(batch.reset(jax.random.key(0)), jnp.zeros((3, 1)))
    wide = envs.environment(lambda key: envs.Outcome(0, jnp.zeros(3)), None, Spec(2, 1), "wide")
    with pytest.raises(ValueError, match="wide: observation must have shape"):
        wide.reset(jax.random.key(0))


def test_the_specification_follows_the_wrappers():
    env = envs.time_limit(walk(), 17)
    assert env.spec.max_episode_steps == 17
    assert envs.vectorize(env, 3).spec == env.spec
    assert envs.transform_observation(env, lambda o: o[..., :1]).spec == dataclasses.replace(
        env.spec, observation_dim=1
    )

"""Noise beside an environment: its law, its independence of actions; and two processes with the same videos."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import envs
from jaxrl_reg.envs import core, exogenous
from jaxrl_reg.errors import UserError

STEPS, EPISODES = 30, 200


def paths(noise, actions=None):
    """Cells ``[E, T]``, noise ``[E, T, K]`` and observations of episodes under given or random actions."""
    env = exogenous.make(noise, noise_dim=3, episode_length=STEPS + 1)

    def episode(key):
        act_key, reset_key = jax.random.split(key)
        moves = jax.random.uniform(act_key, (STEPS, 4)) if actions is None else actions

        def step(state, action):
            following = env.step(state, action)
            return following, following

        _, states = jax.lax.scan(step, env.reset(reset_key), moves)
        return core.unwrap(states.inner), states.inner.noise, states.observation

    return jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), EPISODES))


def test_noise_has_the_same_spread_and_a_memory_only_where_it_should():
    for noise, correlation in (("iid", 0.0), ("exogenous", 0.98)):
        _, value, _ = paths(noise)
        assert abs(float(value.std()) - 1.5) < 0.12
        assert abs(np.corrcoef(value[:, 1:].ravel(), value[:, :-1].ravel())[0, 1] - correlation) < 0.02
        across = np.corrcoef(value[:, -1].T) - np.eye(3)
        assert np.abs(across).max() < 0.25
    assert not paths("none")[1].any()


def test_noise_neither_moves_nor_is_moved():
    stay, go = jnp.tile(jnp.array([0.0, 0, 0, 1]), (STEPS, 1)), jnp.tile(jnp.array([0.0, 1, 0, 0]), (STEPS, 1))
    left, right = paths("exogenous", stay), paths("exogenous", go)
    np.testing.assert_array_equal(left[1], right[1])
    assert (left[0] % 5 == 0)[:, 5:].all()
    assert (right[0] % 5 == 4)[:, 5:].all()
    np.testing.assert_array_equal(paths("none", go)[0], right[0])


def test_the_cell_can_be_read_from_an_observation():
    cell, noise, seen = (np.asarray(x).reshape(STEPS * EPISODES, -1) for x in paths("exogenous"))
    mix = np.asarray(jax.random.normal(jax.random.key(0), (28, 48)))
    read = seen @ np.linalg.pinv(mix)
    np.testing.assert_array_equal(read[:, :25].argmax(1), cell[:, 0])
    np.testing.assert_allclose(read[:, 25:], noise, atol=1e-3)


def test_episodes_part_after_an_auto_reset():
    env = exogenous.make("exogenous", noise_dim=3, episode_length=2)
    batch = envs.vectorize(env, 8)
    state = batch.reset(jax.random.key(0))
    for _ in range(5):  # one step after the second reset, whose first states may be shared
        state = jax.jit(batch.step)(state, jnp.ones((8, 4)))
    assert len(np.unique(state.inner.inner.noise[:, 0])) == 8


def test_twins_give_the_same_videos_to_the_last_bit_and_different_control():
    (first, reward, initial), (second, _, _) = (exogenous.twins(4, which) for which in (0, 1))
    np.testing.assert_array_equal(first.mean(1), second.mean(1))
    np.testing.assert_allclose(first.sum(-1), 1.0, rtol=1e-6)
    state, up = 1 * 4 + 2, 2
    assert {divmod(int(s), 4)[0] for s in np.flatnonzero(first[state, up])} == {2}
    assert {divmod(int(s), 4)[1] for s in np.flatnonzero(second[state, up])} == {3}
    env = envs.make("tabular", transition=first, reward=reward, initial=initial)
    assert env.spec.observation_dim == 16


def test_an_encoder_of_one_walk_is_wrong_in_one_twin():
    """Any code of as many values as one walk has: read as well as can be, right at most (1 + 1/n) / 2 of the time."""
    n = 3
    states = list(itertools.product(range(n), range(n)))

    def accuracy(code, which):
        table = np.zeros((n, n))
        for symbol, state in zip(code, states, strict=True):
            table[symbol, state[which]] += 1
        return table.max(1).sum() / n**2

    means = [np.mean([accuracy(code, which) for which in (0, 1)]) for code in itertools.product(range(n), repeat=n**2)]
    assert max(means) == pytest.approx((1 + 1 / n) / 2)  # all 19683 codes
    first_walk = [state[0] for state in states]  # what inverse dynamics keeps in the first twin
    assert accuracy(first_walk, 0) == 1.0
    assert accuracy(first_walk, 1) == pytest.approx(1 / n)


def test_refusals():
    with pytest.raises(UserError, match="unknown noise 'white'"):
        exogenous.make("white")
    with pytest.raises(UserError, match="observation_dim=40 cannot hold 25 cells, 16 noises"):
        exogenous.make(observation_dim=40)
    with pytest.raises(UserError, match="controlled=2 must be 0 or 1"):
        exogenous.twins(4, 2)

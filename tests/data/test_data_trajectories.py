"""Windows as channels: what is scaled, where a window ends, and that every decoded row is a true transition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data
from jaxrl_reg.data.samplers import take_windows
from jaxrl_reg.data.trajectories import fit_trajectory_scaler, trajectories
from jaxrl_reg.errors import UserError

RNG = np.random.default_rng(0)
OBSERVATION = RNG.normal(2.0, 3.0, size=(13, 3)).astype(np.float32)
ACTION = np.clip(RNG.normal(size=(12, 2)), -1, 1).astype(np.float32)  # some exactly at the bounds
REWARD = RNG.normal(size=12).astype(np.float32)


def episodes(ends):
    """12 rows; ``ends`` maps the last row of an episode to whether it terminates."""
    terminated, truncated = np.zeros(12), np.zeros(12)
    for row, terminal in ends.items():
        (terminated if terminal else truncated)[row] = 1
    return data.from_arrays(OBSERVATION[:12], ACTION, REWARD, terminated, truncated, OBSERVATION[1:], name="toy")


def test_channels_are_standardised_and_constant_ones_are_left_alone():
    dataset = episodes({5: False, 11: False})
    scaler = fit_trajectory_scaler(dataset)
    assert scaler.channels == 7
    rows = np.asarray(scaler.encode(take_windows(dataset, jnp.array([0, 6]), 6))).reshape(12, 7)
    np.testing.assert_allclose(rows.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(rows[:, :-1].std(0), 1.0, atol=1e-5)
    np.testing.assert_array_equal(rows[:, -1], 0.0)  # time-outs do not terminate: the channel is constant
    assert scaler.std[-1] == 1.0
    raw = np.arctanh(np.clip(ACTION, -0.999, 0.999))
    assert np.abs(raw).max() == pytest.approx(3.8, abs=0.01)
    np.testing.assert_allclose(scaler.mean[3:5], raw.mean(0), rtol=1e-5)
    np.testing.assert_allclose(scaler.std[3:5], raw.std(0), rtol=1e-5)


@pytest.mark.parametrize("squash", [True, False])
def test_decoding_gives_back_the_transitions(squash):
    dataset = episodes({11: False})
    scaler = fit_trajectory_scaler(dataset, squash)
    rows = jax.jit(lambda start: scaler.decode(scaler.encode(take_windows(dataset, start, 6))))(jnp.array([2]))
    order = [2, 3, 4, 5, 6]  # the sixth step's successor is not in the window
    np.testing.assert_allclose(rows.observation[0], OBSERVATION[order], atol=1e-5)
    np.testing.assert_allclose(rows.next_observation[0], OBSERVATION[np.add(order, 1)], atol=1e-5)
    np.testing.assert_allclose(rows.action[0], ACTION[order], atol=1.1e-3 if squash else 1e-6)
    np.testing.assert_allclose(rows.next_action[0], ACTION[np.add(order, 1)], atol=1.1e-3 if squash else 1e-6)
    np.testing.assert_allclose(rows.reward[0], REWARD[order], atol=1e-5)
    np.testing.assert_array_equal(rows.discount[0], 1.0)
    np.testing.assert_array_equal(rows.last[0], [0, 0, 0, 0, 1])


@pytest.mark.parametrize("terminal", [3, 5])  # in the middle of what a model drew, and in a window's last step
def test_a_window_ends_where_it_terminates(terminal):
    dataset = episodes({terminal: True, 11: True})
    scaler = fit_trajectory_scaler(dataset)
    x = scaler.encode(data.samplers.take(dataset, jnp.arange(6)[None]))
    rows = scaler.decode(x)
    order = [0, 1, 2, 3, 0] if terminal == 3 else [1, 2, 3, 4, 5]
    np.testing.assert_allclose(rows.observation[0], OBSERVATION[order], atol=1e-5)
    np.testing.assert_array_equal(rows.discount[0], [0.0 if t == terminal else 1.0 for t in order])
    np.testing.assert_array_equal(rows.last[0], [1.0 if t == terminal else 0.0 for t in order])
    np.testing.assert_allclose(rows.next_action[0][order.index(terminal)], ACTION[terminal], atol=1.1e-3)


def test_windows_stay_within_an_episode_and_reach_its_end():
    views = trajectories(episodes({6: True, 11: False}), length=4, stride=2)
    np.testing.assert_array_equal(views.starts, [0, 2, 3, 7, 8])
    with pytest.raises(UserError, match="no episode has 9 rows"):
        trajectories(episodes({6: True, 11: False}), length=9)


def test_draws_without_squashing_are_clipped():
    scaler = fit_trajectory_scaler(episodes({11: False}), squash=False)
    rows = scaler.decode(50.0 * jnp.ones((1, 4, 7)))
    assert float(jnp.abs(rows.action).max()) == 1.0

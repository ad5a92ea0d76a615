"""Events as tokens, the loss of the next one, and which unit tells of which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops.pretrain import Hyper, pretrain
from jaxrl_reg.networks.events import event_network
from jaxrl_reg.representation import events

UNITS, LENGTH = 3, 6


def test_events_of_windows_by_hand():
    time, unit = np.array([0.9, 0.1, 2.0, 1.0, 1.4, 1.2]), np.array([4, 1, 3, 0, 2, 7])
    units, bins, mask = events.event_tokens(time, unit, np.array([0.0, 1.0, 5.0]), 3, 1.0, 5)
    np.testing.assert_array_equal(units, [[1, 4, 0], [0, 7, 2], [0, 0, 0]])
    np.testing.assert_array_equal(bins, [[0, 4, 0], [0, 1, 2], [0, 0, 0]])
    np.testing.assert_array_equal(mask, [[1, 1, 0], [1, 1, 1], [0, 0, 0]])
    units, _, mask = events.event_tokens(time, unit, np.array([1.0]), 2, 2.0, 4)
    np.testing.assert_array_equal(units, [[0, 7]])  # later events are cut off
    assert events.event_tokens(time[:0], unit[:0], np.zeros(2), 3, 1.0, 5)[2].sum() == 0
    with pytest.raises(UserError, match="each event has one of both"):
        events.event_tokens(time, unit[:2], np.zeros(1), 3, 1.0, 5)
    with pytest.raises(UserError, match="must be above 0"):
        events.event_tokens(time, unit, np.zeros(1), 3, 0.0, 5)


def test_the_loss_by_hand():
    logits = jnp.array([[1.0, 0, 0], [0, 2, 0]]), jnp.array([[0.0, 1], [1, 0]])
    found = quick(events.event_loss)(*logits, jnp.array([0, 2]), jnp.array([1, 0]))
    np.testing.assert_allclose(found, [0.456172, 1.469032], rtol=1e-5)


def test_no_event_is_read_for_its_own_prediction():
    network = event_network(UNITS, LENGTH, LENGTH, width=8, blocks=1)

    @quick
    def predicted(key, unit):
        bins, real = jnp.arange(LENGTH), jnp.ones(LENGTH)
        return network.apply(network.init(key), unit, bins, real)[0]

    unit = jnp.array([0, 1, 2, 0, 1, 2])
    one, other = (predicted(jax.random.key(0), each) for each in (unit, unit.at[3].set(1)))
    np.testing.assert_allclose(one[:4], other[:4], atol=1e-6)
    assert jnp.abs(one[4:] - other[4:]).min(axis=0).max() > 1e-3


def test_what_follows_is_learnt_and_a_lesion_finds_who_tells():
    """Unit 1 follows unit 0, and unit 2 comes as it likes."""
    rng = np.random.default_rng(0)
    unit = np.where(rng.random((400, LENGTH)) < 0.4, 2, 0)
    for t in range(1, LENGTH):
        unit[:, t] = np.where(unit[:, t - 1] == 0, 1, unit[:, t])
    bins, mask = np.tile(np.arange(LENGTH), (400, 1)), np.ones((400, LENGTH))
    zero = np.zeros(400)
    dataset = data.from_arrays(
        np.zeros((400, 1)), np.zeros((400, 1)), zero, zero, zero + 1.0, np.zeros((400, 1)), name="events",
        extras={"unit": unit, "bin": bins, "mask": mask},
    )  # fmt: skip
    model = events.event_model(UNITS, LENGTH, LENGTH, width=16, blocks=1)
    state, _ = quick(pretrain(model, batch_size=64, updates=200))(jax.random.key(0), Hyper(learning_rate=1e-2), dataset)

    @quick
    def asked(params, unit, bins):
        real = jnp.ones(unit.shape)
        score = model.score(params, unit, bins, real)
        later = model.score(params, unit.at[:, 3:].set(0), bins, real)
        padded = model.score(params, unit, bins, real.at[:, 4:].set(0.0))
        influence = events.lesion_influence(lambda real: model.score(params, unit, bins, real), unit, real, UNITS)
        return score, later, padded, influence

    score, later, padded, influence = asked(state.params, jnp.asarray(unit[:100]), jnp.asarray(bins[:100]))
    np.testing.assert_allclose(score[:, :3], later[:, :3], atol=1e-5)  # nothing of later events is read
    np.testing.assert_allclose(score[:, :4], padded[:, :4], atol=1e-5)
    sure = np.asarray(score)[unit[:100] == 1]
    assert sure.mean() > -0.2
    assert influence[0, 1] > 0.5
    assert influence[0, 1] > 2.0 * abs(influence[2, 1])
    with pytest.raises(UserError, match="heads=3 must divide"):
        events.event_model(2, 2, 2, width=16, heads=3)

"""Scores of tasks learnt one after another: numbers by hand, seeds side by side, a single task."""

import numpy as np
import pytest

from jaxrl_reg.evaluation import continual

SCORES = np.array([[0.9, 0.2, 0.1], [0.7, 0.8, 0.3], [0.6, 0.75, 0.85]])
BY_HAND = {
    "average_performance": 0.733333,
    "backward_transfer": -0.175,
    "forgetting": 0.175,
    "learning": 0.85,
    "average_over_time": 0.794444,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_numbers_by_hand_and_seeds_side_by_side(name):
    measure = getattr(continual, name)
    assert measure(SCORES) == pytest.approx(BY_HAND[name], abs=1e-6)
    two = measure(np.stack([SCORES, 0.5 * SCORES]))
    np.testing.assert_allclose(two, [measure(SCORES), measure(0.5 * SCORES)])


def test_forward_transfer_is_over_what_knows_nothing():
    assert continual.forward_transfer(SCORES, [np.nan, 0.1, 0.05]) == pytest.approx(0.175)
    with pytest.raises(ValueError, match=r"baseline has shape \[2\]; expected \[3\]"):
        continual.forward_transfer(SCORES, [0.1, 0.05])


def test_the_best_earlier_score_is_what_is_forgotten():
    later = SCORES.copy()
    later[1, 0] = 0.95  # better after the second task than right after its own
    assert continual.forgetting(later) == pytest.approx(((0.95 - 0.6) + 0.05) / 2)
    assert continual.backward_transfer(later) == pytest.approx(-0.175)


def test_a_single_task_is_not_forgotten_nor_transferred():
    one = np.array([[[0.3]], [[0.4]]])
    for measure in (continual.backward_transfer, continual.forgetting):
        assert np.isnan(measure(one)).tolist() == [True, True]
    assert np.isnan(continual.forward_transfer(one, [0.1])).all()
    np.testing.assert_allclose(continual.average_over_time(one), [0.3, 0.4])
    with pytest.raises(ValueError, match=r"expected \[\.\.\., N, N\]"):
        continual.learning(SCORES[:2])

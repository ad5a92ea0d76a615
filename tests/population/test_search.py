import numpy as np
import pytest

from jaxrl_reg import population
from jaxrl_reg.errors import UserError
from jaxrl_reg.population import search

from .toy import Hyper


@pytest.mark.parametrize("design", search.DESIGNS)
def test_ranges_are_covered_evenly_in_their_own_scale_and_reach_the_hyperparameters(design):
    hypers = population.sample(Hyper(), 512, design=design, learning_rate="log:0.001:10", noise="lin:-1:3")
    assert population.setting_count(hypers) == 512
    logs, noise = np.log10(np.asarray(hypers.learning_rate)), np.asarray(hypers.noise)
    assert logs.min() >= -3 - 1e-6
    assert logs.max() <= 1 + 1e-6
    most = 0.02 if design == "sobol" else 0.08  # Kolmogorov distance: 1 / n against 1.36 / sqrt(n)
    for unit in ((logs + 3) / 4, (noise + 1) / 4):
        assert np.abs(np.sort(unit) - (np.arange(512) + 0.5) / 512).max() < most


def test_sobol_fills_every_cell_of_a_lattice_and_random_points_do_not():
    cells = {
        design: {tuple(c) for c in (search.unit_points(256, 2, design) * 16).astype(int)}
        for design in ("sobol", "random")
    }
    assert len(cells["sobol"]) == 256
    assert len(cells["random"]) < 200


@pytest.mark.parametrize("design", search.DESIGNS)
def test_a_wider_search_begins_with_the_narrower_one_and_seeds_differ(design):
    np.testing.assert_array_equal(search.unit_points(5, 3, design, 1), search.unit_points(40, 3, design, 1)[:5])
    assert not np.array_equal(search.unit_points(5, 3, design, 1), search.unit_points(5, 3, design, 2))


def test_choices_are_drawn_once_each_where_they_repeat_themselves():
    one = population.parse_range("n", "2,4,8,2")
    assert one == search.Range("choice", ("2", "4", "8"))
    drawn = population.draw({"n": one}, 64)
    assert sorted(setting["n"] for setting in drawn) == ["2", "4", "8"]
    hypers = population.sample(Hyper(), 64, noise="0.5,1")
    assert sorted(np.asarray(hypers.noise).tolist()) == [0.5, 1.0]


def test_the_ends_of_a_range_are_never_passed():
    low, high = 0.1, 0.7
    assert search.Range("lin", (0.0, 1.0)).at(1 / 3) == 0.3333
    for kind in ("lin", "log"):
        values = [search.Range(kind, (low, high)).at(u) for u in (0.0, np.nextafter(1.0, 0.0))]
        assert values[0] == low
        assert values[1] <= high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: population.sample(Hyper(), 4, nois="lin:0:1"), "unknown hyperparameter 'nois'; did you mean 'noise'"),
        (lambda: population.sample(Hyper(), 4, noise="a,b"), "noise='a' is not a number"),
        (lambda: population.sample(Hyper(), 0, noise="lin:0:1"), "0 points in 1 dimensions"),
        (lambda: population.sample(Hyper(), 4, design="sobl", noise="lin:0:1"), "unknown design 'sobl'"),
        (lambda: population.sample(Hyper(), 4), "at least one range"),
        (lambda: population.parse_range("x", "log:-1:1"), "needs 0 < LOW < HIGH"),
        (lambda: population.parse_range("x", "lin:0:inf"), "needs LOW < HIGH, both finite"),
        (lambda: population.parse_range("x", ","), "is not log:LOW:HIGH"),
    ],
)
def test_bad_requests_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()

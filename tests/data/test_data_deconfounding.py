"""Rewards of a data set without a confounder: what is taken out, what is refused, and what the notes say."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data
from jaxrl_reg.errors import UserError
from tests.pointnav_data import make_pointnav


@pytest.fixture(scope="module")
def clean():
    return make_pointnav()


def with_columns(clean, reward=None, **columns):
    extras = {name: jnp.asarray(value) for name, value in columns.items()}
    return dataclasses.replace(clean, reward=clean.reward if reward is None else jnp.asarray(reward), extras=extras)


@pytest.fixture(scope="module")
def seasons(clean):
    """Rewards plus what the season of their episode brings, which better episodes tend to be in."""
    rng = np.random.default_rng(0)
    better = np.asarray(clean.return_rank) > 0.5
    season = np.where(better, 2, 0) + rng.integers(0, 2, clean.size)
    return with_columns(clean, clean.reward + np.array([0.0, 3.0, -2.0, 1.0])[season], season=season)


def test_a_season_of_whole_numbers_is_taken_out_class_by_class(clean, seasons):
    found = data.deconfound(seasons, "season")
    wrong, left = (np.asarray(part.reward - clean.reward) for part in (seasons, found))
    assert left.std() < 0.15 * wrong.std()
    np.testing.assert_allclose(found.reward.mean(), seasons.reward.mean(), rtol=1e-5)  # the level stays
    data.validate(found)  # ranks of returns were taken anew
    (note,) = found.notes
    assert note.startswith("rewards without the effect of season, by a regression on observation and action beside it")
    share = np.var(np.asarray(seasons.reward - found.reward)) / np.var(np.asarray(seasons.reward))
    assert f"{share:.1%} of their variance" in note


def test_numbers_are_a_slope_and_rewards_of_dropped_rows_are_left_out(clean):
    heat = np.random.default_rng(1).normal(size=clean.size).astype(np.float32)
    rows = with_columns(clean, clean.reward + 5 * heat, heat=heat)
    rows = dataclasses.replace(rows, dropped_reward=jnp.where(rows.last == 1, 100.0, jnp.nan))
    found = data.deconfound(rows, ["heat"])
    assert np.abs(found.reward - clean.reward - 5 * heat.mean()).max() < 0.3  # of 15
    assert found.dropped_reward is None


def test_an_instrument_tells_what_a_hidden_cause_hides(clean):
    rng = np.random.default_rng(2)
    slot, hidden = rng.normal(size=(2, clean.size)).astype(np.float32)
    popularity = slot + hidden
    rows = with_columns(clean, clean.reward + 2 * popularity + 3 * hidden, popularity=popularity, slot=slot)
    hurt = np.asarray(data.deconfound(rows, "popularity").reward)
    found = data.deconfound(rows, "popularity", instruments="slot")
    assert abs(np.corrcoef(found.reward, slot)[0, 1]) < 0.05  # nothing of the slot is left
    assert np.corrcoef(hurt, slot)[0, 1] < -0.4  # 3.5 was taken for 2
    assert "two-stage least squares with slot, first-stage F" in found.notes[-1]


@pytest.mark.parametrize(
    ("message", "columns", "asked"),
    [
        ("its rewards are not known", {}, {}),
        ("there is no 'season' beside its steps; it has no further columns", {}, {}),
        ("unknown column of pointnav-test 'season'; did you mean 'seasons'", {"seasons": 1.0}, {}),
        ("season is the same in every row", {"season": 1.0}, {}),
        ("season is the same in every row", {"season": 1}, {}),
        ("holds 600 different whole numbers", {"season": "rows"}, {}),
        ("season is given by observation and action", {"season": "seen"}, {}),
        ("season is named twice", {"season": "noise"}, {"instruments": "season"}),
        ("no confounder is named", {"season": "noise"}, {"confounders": ()}),
        ("season makes 2 columns, and slot only 1", {"season": "three", "slot": "noise"}, {"instruments": "slot"}),
        ("slot hardly moves season (first-stage F", {"season": "other", "slot": "noise"}, {"instruments": "slot"}),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_line(clean, message, columns, asked):
    rng = np.random.default_rng(3)
    made = {
        "rows": np.arange(clean.size),
        "seen": np.asarray(clean.observation) @ [1.0, -2.0] + np.asarray(clean.action)[:, 0],
        "three": np.arange(clean.size) % 3,
        "noise": rng.normal(size=clean.size).astype(np.float32),
        "other": rng.normal(size=clean.size).astype(np.float32),
    }
    columns = {name: made[what] if what in made else np.full(clean.size, what) for name, what in columns.items()}
    rows = with_columns(clean, **columns)
    rows = dataclasses.replace(rows, rewarded="not known" not in message)
    with pytest.raises(UserError) as error:
        data.deconfound(rows, **{"confounders": "season", **asked})
    assert message in str(error.value)
    assert "\n" not in str(error.value)

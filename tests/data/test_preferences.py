"""Pairs of segments: judged, read from files, and refused in one line."""

import jax.numpy as jnp
import numpy as np
import pandas
import pytest

from jaxrl_reg import data
from jaxrl_reg.data import preferences
from jaxrl_reg.errors import UserError


def walks(lengths=(6, 4, 5), reward=None, repeat=()):
    """Episodes of the given lengths; those in ``repeat`` are copies of the first."""
    generator = np.random.default_rng(0)
    total = sum(lengths)
    observation, action = generator.normal(size=(total, 2)), generator.uniform(-1, 1, size=(total, 1))
    starts = np.cumsum([0, *lengths])
    for number in repeat:
        rows = slice(starts[number], starts[number] + lengths[0])
        observation[rows], action[rows] = observation[: lengths[0]], action[: lengths[0]]
    reward = generator.normal(size=total) if reward is None else reward(observation)
    end = np.zeros(total)
    end[starts[1:] - 1] = 1
    return data.from_arrays(observation, action, reward, 0 * end, end, observation, name="walks")


def written(tmp_path, *rows, columns=preferences.COLUMNS):
    path = tmp_path / "pairs.parquet"
    pandas.DataFrame(list(rows), columns=list(columns)).to_parquet(path)
    return str(path)


def test_a_judge_who_never_errs_prefers_the_higher_return_and_a_noisy_one_as_often_as_it_says():
    rows = walks((40, 50, 30), lambda seen: seen[:, 0])
    reward = np.asarray(rows.reward, np.float64)
    returns = {start: reward[start : start + 5].sum() for start in data.window_starts(rows, 5)}
    for temperature in (0.0, 1.0):
        pairs = preferences.judged(rows, 5, 4000, temperature=temperature)
        lead = np.array(
            [returns[a] - returns[b] for a, b in zip(*map(np.asarray, (pairs.first, pairs.second)), strict=True)]
        )
        said = np.asarray(pairs.preference)
        if temperature == 0.0:
            np.testing.assert_array_equal(said, lead > 0)
        else:
            likely = 1 / (1 + np.exp(-lead / np.std(list(returns.values()))))
            assert abs(said.mean() - likely.mean()) < 0.03
            assert abs(said[lead > 1].mean() - likely[lead > 1].mean()) < 0.05


def test_segments_that_are_the_same_when_cut_are_left_out_and_counted(tmp_path):
    """The second episode begins as the first one goes on for ever: only a longer look would tell them apart."""
    rows = walks((3, 5, 4), repeat=(1,))
    twins, other = (0, 0, 1, 0, 1.0), (0, 0, 2, 0, 0.0)
    with pytest.warns(UserWarning, match=r"pairs\.parquet: 1 of 2 pairs left out"):
        pairs = preferences.read(written(tmp_path, twins, other), rows, 3)
    assert [np.asarray(part).tolist() for part in (pairs.first, pairs.second, pairs.preference)] == [[0], [8], [0.0]]
    with pytest.raises(UserError, match="in all 1 pairs the two segments are the same within 3 steps"):
        preferences.read(written(tmp_path, twins), rows, 3)
    assert preferences.read(written(tmp_path, twins), rows, 4).first.shape == (1,), "four steps tell them apart"


def test_what_is_written_is_read(tmp_path):
    rows = walks()
    pairs = preferences.judged(rows, 3, 20)
    preferences.table_of(pairs, rows).to_parquet(tmp_path / "pairs.parquet")
    again = preferences.read(str(tmp_path / "pairs.parquet"), rows, 3)
    for name in ("first", "second", "preference"):
        np.testing.assert_array_equal(getattr(again, name), getattr(pairs, name))


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ((0, 0, 1, 0, 1.5), "row 1: preference 1.5 is not in [0, 1]"),
        ((0, 0, 1, 0, np.nan), "row 1: preference nan is not in [0, 1]"),
        ((3, 0, 1, 0, 1.0), "row 1: first_episode 3 is not in the data, whose episodes are 0 to 2"),
        ((0, 0, 1, 4, 1.0), "row 1: second_step 4 is not in its episode, which is shorter"),
        ((0, 0.5, 1, 0, 1.0), "row 1: first_step 0.5 is not a whole number"),
        ((0, -1, 1, 0, 1.0), "row 1: first_step -1 is not in its episode"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, line):
    with pytest.raises(UserError) as error:
        preferences.read(written(tmp_path, (0, 0, 1, 0, 1.0), row), walks(), 3)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_file_is_one_line(tmp_path):
    rows, text = walks(), tmp_path / "text.parquet"
    text.write_text("no table", encoding="utf-8")
    words = written(tmp_path, (0, 0, 1, 0, "first"))
    cases = {
        str(text): "cannot be read as Parquet",
        words: "'preference' does not hold numbers",
        "none.parquet": "does not exist",
    }
    for path, line in cases.items():
        with pytest.raises(UserError, match=line) as error:
            preferences.read(path, rows, 3)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no column 'second_step'"):
        preferences.read(written(tmp_path, (0, 0, 1, 1.0), columns=np.delete(preferences.COLUMNS, 3)), rows, 3)


def test_best_and_worst_and_all_pairs_of_scores():
    score = jnp.array([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]])
    chosen, rejected, valid = preferences.best_worst(score)
    assert chosen.tolist() == [1, 0]
    assert rejected.tolist() == [0, 0]
    assert valid.tolist() == [1, 0]
    chosen, rejected, valid = preferences.all_pairs(score)
    assert chosen[0].tolist() == [1, 2, 1]
    assert rejected[0].tolist() == [0, 0, 2]
    assert valid.tolist() == [[1, 1, 1], [0, 0, 0]]

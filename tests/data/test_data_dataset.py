import dataclasses
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_reg import data
from jaxrl_reg.data.columns import Source
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Dataset, Transition


def assert_same(left: Dataset, right: Dataset) -> None:
    """Every array equal bit for bit, with the same types, names and extras."""
    assert left.name == right.name
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_structure_of_the_hand_made_data(dataset, columns):
    np.testing.assert_array_equal(dataset.episode, [0, 0, 0, 0, 1, 1, 1, 1, 1, 2])
    np.testing.assert_array_equal(dataset.step, [0, 1, 2, 3, 0, 1, 2, 3, 4, 0])
    np.testing.assert_array_equal(dataset.start, [0, 0, 0, 0, 4, 4, 4, 4, 4, 9])
    np.testing.assert_array_equal(dataset.end, [4, 4, 4, 4, 9, 9, 9, 9, 9, 10])
    np.testing.assert_array_equal(dataset.last, [0, 0, 0, 1, 0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(dataset.discount, [1, 1, 1, 0, 1, 1, 1, 1, 1, 1])  # time-outs keep 1
    np.testing.assert_array_equal(dataset.next_observation, columns["next_observation"])
    following = columns["action"][[1, 2, 3, 3, 5, 6, 7, 8, 8, 9]]  # an episode's last row repeats its own action
    np.testing.assert_array_equal(dataset.next_action, following)
    assert dataset.size == 10
    assert (dataset.spec.observation_dim, dataset.spec.action_dim) == (3, 2)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(dataset)} == {"float32", "int32"}
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(dataset))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(dataset))


def test_return_rank_with_ties():
    reward = np.array([1.0, 2.0, 0.0, 3.0, -1.0, 3.0])  # six episodes of one row
    built = data.from_arrays(
        np.zeros((6, 1)), np.zeros((6, 1)), reward, np.ones(6), np.zeros(6), np.zeros((6, 1)), name="ties"
    )
    np.testing.assert_allclose(built.return_rank, [3 / 6, 4 / 6, 2 / 6, 1, 1 / 6, 1], rtol=1e-6)
    same = data.from_arrays(
        np.zeros((4, 1)), np.zeros((4, 1)), np.ones(4), [0, 1, 0, 1], np.zeros(4), np.zeros((4, 1)), name="all"
    )
    np.testing.assert_array_equal(same.return_rank, np.ones(4))


def test_missing_next_observation_shifts_and_drops_rows_as_d4rl_does(columns):
    columns.pop("next_observation")
    built = data.from_arrays(**columns, name="shifted", extras={"tag": np.arange(10)})
    # Row 8 (timed out) and row 9 (an episode of one timed-out row) have no successor; row 3 terminates and stays.
    np.testing.assert_array_equal(built.extras["tag"], np.arange(8))
    np.testing.assert_array_equal(built.observation, columns["observation"][:8])
    np.testing.assert_array_equal(built.next_observation, columns["observation"][[1, 2, 3, 3, 5, 6, 7, 8]])
    np.testing.assert_array_equal(built.last, [0, 0, 0, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(built.discount, [1, 1, 1, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(built.end, [4, 4, 4, 4, 8, 8, 8, 8])
    # A termination right before an episode of one timed-out row stays a termination.
    pair = data.from_arrays(np.ones((2, 1)), np.zeros((2, 1)), [1, 2], [1, 0], [0, 1], name="pair")
    assert (pair.size, float(pair.discount[0]), float(pair.last[0])) == (1, 0.0, 1.0)


def test_both_flags_count_as_terminated_and_an_unfinished_episode_as_truncated():
    zeros = np.zeros((4, 1))
    built = data.from_arrays(zeros, zeros, np.zeros(4), [0, 1, 0, 0], [0, 1, 0, 0], zeros, name="both")
    np.testing.assert_array_equal(built.discount, [1, 0, 1, 1])
    np.testing.assert_array_equal(built.last, [0, 1, 0, 1])
    without = data.from_arrays(zeros, zeros, np.zeros(4), [0, 1, 0, 0], [0, 1, 0, 0], name="both")
    np.testing.assert_array_equal(without.discount, [1, 0, 1])  # the last row of the file has no successor
    np.testing.assert_array_equal(without.last, [0, 1, 1])


def test_actions_are_rescaled_and_clipped_within_rounding(columns):
    raw = columns["action"] * 3.0 + 1.0
    built = data.from_arrays(**{**columns, "action": raw}, name="s", action_low=-2.0, action_high=[4.0, 4.0])
    np.testing.assert_allclose(built.action, columns["action"], atol=1e-6)
    columns["action"][2, 1] = np.float32(1 + 5e-7)
    built = data.from_arrays(**columns, name="rounding")
    assert float(built.action[2, 1]) == 1.0


def test_the_callers_arrays_are_copied(columns):
    # On the CPU, device_put may share memory with a NumPy array.
    big = {key: np.repeat(value, 500, axis=0) for key, value in columns.items()}
    built = data.from_arrays(**big, name="big", extras={"more": big["observation"]})
    before = jax.device_get(jax.tree.map(lambda x: x + 0, built))
    for value in big.values():
        value[...] = 0
    for a, b in zip(jax.tree.leaves(built), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(a, b)


def bad(key, value, row=None):
    def change(columns):
        if row is None:
            columns[key] = value(columns[key])
        else:
            columns[key] = np.array(columns[key], np.float64)
            columns[key][row] = value
        return columns

    return change


CASES = {
    "nan": (bad("observation", math.nan, (7, 2)), "observations", "row 7", "NaN"),
    "infinity": (bad("reward", -math.inf, 4), "rewards", "row 4", "infinite"),
    "overflow": (bad("reward", 1e300, 4), "rewards", "row 4", "infinite in float32"),
    "next nan": (bad("next_observation", math.nan, (1, 0)), "nexts", "row 1", "NaN"),
    "bounds": (bad("action", 1.5, (6, 1)), "actions", "row 6", "column 1 is 1.5, outside [-1, 1]"),
    "just outside": (bad("action", -1.00001, (6, 0)), "actions", "row 6", "action_low"),
    "flag": (bad("terminated", 2.0, 5), "terminals", "row 5", "is 2, expected 0 or 1"),
    "nan flag": (bad("truncated", math.nan, 5), "timeouts", "row 5", "expected 0 or 1"),
    "length": (bad("reward", lambda x: x[:-1]), "rewards", "has 9 rows", "observations has 10"),
    "flag length": (bad("truncated", lambda x: x[:-2]), "timeouts", "has 8 rows", "observations has 10"),
    "rank": (bad("observation", lambda x: x[:, 0]), "observations", "shape (10,)", "[rows, size]"),
    "reward rank": (bad("reward", lambda x: x[:, None]), "rewards", "shape (10, 1)", "[rows]"),
    "width": (bad("next_observation", lambda x: x[:, :2]), "nexts", "2 columns", "have 3"),
    "strings": (bad("action", lambda x: x.astype(str)), "actions", "holds", "numbers"),
    "ragged": (bad("action", lambda x: [[0.0], [0.0, 1.0]]), "actions", "holds object", "numbers"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_with_file_key_and_row(columns, case):
    change, *parts = CASES[case]
    keys = dict(zip(columns, ["observations", "actions", "rewards", "terminals", "timeouts", "nexts"], strict=True))
    with pytest.raises(UserError) as error:
        data.from_arrays(**change(columns), name="x", source=Source("file.hdf5", keys))
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"file.hdf5: {parts[0]}")
    for part in parts[1:]:
        assert part in message


def test_no_rows_no_end_no_successor_and_bad_bounds(columns):
    with pytest.raises(UserError, match=r"^empty\.npz: observation has no rows$"):
        data.from_arrays(**{key: value[:0] for key, value in columns.items()}, name="x", source="empty.npz")
    endless = {**columns, "terminated": np.zeros(10), "truncated": np.zeros(10)}
    with pytest.raises(UserError, match=r"^arrays: terminated and truncated mark no episode end"):
        data.from_arrays(**endless, name="x")
    zero = np.zeros((2, 1))
    with pytest.raises(UserError, match="no row with a successor"):
        data.from_arrays(zero, zero, [0, 0], [0, 0], [1, 1], name="x")
    with pytest.raises(UserError, match="both action_low and action_high"):
        data.from_arrays(**columns, name="x", action_low=-1)
    with pytest.raises(UserError, match="action_low < action_high"):
        data.from_arrays(**columns, name="x", action_low=1, action_high=-1)
    with pytest.raises(UserError, match=r"a bound has shape \(3,\)"):
        data.from_arrays(**columns, name="x", action_low=-np.ones(3), action_high=np.ones(3))
    with pytest.raises(UserError, match=r"extra row 3 does not fit into 32 bits"):
        data.from_arrays(**columns, name="x", extras={"extra": np.array([0, 1, 2, 2**40] + [0] * 6)})
    with pytest.raises(UserError, match=r"extra has 4 rows, but observation has 10"):
        data.from_arrays(**columns, name="x", extras={"extra": np.zeros(4)})


ENDS = st.sampled_from(["terminated", "truncated", "both"])


@given(st.lists(st.tuples(st.integers(1, 5), ENDS), min_size=1), st.data())
def test_from_arrays_against_a_loop(episodes, draw):
    rows = sum(length for length, _ in episodes)
    reward = draw.draw(st.lists(st.integers(-3, 3), min_size=rows, max_size=rows))
    seed = draw.draw(st.integers(0, 100))
    observation = np.random.default_rng(seed).normal(size=(rows, 2)).astype(np.float32)
    following = np.random.default_rng(seed + 1).normal(size=(rows, 2)).astype(np.float32)
    action = np.random.default_rng(seed + 2).uniform(-1, 1, (rows, 1)).astype(np.float32)
    flags = {"terminated": np.zeros(rows), "truncated": np.zeros(rows)}
    names = ("episode", "step", "start", "end", "last", "discount", "next", "return")
    wanted: dict[str, list] = {key: [] for key in names}
    row = 0
    for number, (length, how) in enumerate(episodes):
        final = row + length - 1
        for key in flags:
            flags[key][final] = how in (key, "both")
        total = sum(reward[row : final + 1])
        for step in range(length):
            wanted["episode"].append(number)
            wanted["step"].append(step)
            wanted["start"].append(row)
            wanted["end"].append(final + 1)
            wanted["last"].append(step == length - 1)
            wanted["discount"].append(not (step == length - 1 and how != "truncated"))
            wanted["next"].append(action[min(row + step + 1, final)])
            wanted["return"].append(total)
        row += length
    totals = [wanted["return"][start] for start in sorted(set(wanted["start"]))]
    rank = [sum(other <= mine for other in totals) / len(totals) for mine in wanted["return"]]
    built = data.from_arrays(observation, action, reward, **flags, next_observation=following, name="any")
    for key in ("episode", "step", "start", "end", "last", "discount"):
        np.testing.assert_array_equal(getattr(built, key), wanted[key])
    np.testing.assert_array_equal(built.next_action, wanted["next"])
    np.testing.assert_allclose(built.return_rank, rank, rtol=1e-6)
    np.testing.assert_array_equal(built.observation, observation)
    np.testing.assert_array_equal(built.next_observation, following)
    data.validate(built)


def test_validate_finds_what_was_edited(dataset):
    data.validate(dataset)
    edits = {
        "step": (dataset.step.at[5].set(3), "step row 5 is 3, but the episodes give 1"),
        "next_action": (dataset.next_action.at[2].set(0.0), "next_action row 2"),
        "return_rank": (dataset.return_rank * 0.5, "return_rank row 0"),
        "last": (dataset.last.at[3].set(0.0), "discount row 3 is 0 although the episode goes on"),
        "discount": (dataset.discount * 0.99, "discount row 0 is 0.99, expected 0 or 1"),
        "reward": (dataset.reward.at[6].set(np.nan), "reward row 6 is NaN"),
        "end": (dataset.end[:4], r"end has shape \(4,\), expected \(10,\)"),
    }
    for field, (value, message) in edits.items():
        with pytest.raises(UserError, match=f"data set 'hand': {message}"):
            data.validate(dataclasses.replace(dataset, **{field: value}))


def test_subset_truncates_where_rows_are_left_out(dataset, columns):
    rows = [0, 1, 3, 4, 5, 7, 8]
    part = data.subset(dataset, rows)
    np.testing.assert_array_equal(part.extras["tag"], rows)
    np.testing.assert_array_equal(part.last, [0, 1, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(part.discount, [1, 1, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(part.next_observation, columns["next_observation"][rows])
    np.testing.assert_array_equal(part.episode, [0, 0, 1, 2, 2, 3, 3])
    data.validate(part)
    assert_same(data.subset(dataset, np.ones(10, bool)), dataset)
    assert_same(data.first_episodes(dataset, 2), data.subset(dataset, np.arange(9)))
    assert_same(data.head(dataset, 6), data.subset(dataset, np.arange(6)))
    assert_same(data.head(dataset, 99), dataset)
    for wrong in ([2, 1], [1, 1], [-1], [10], [], [0.5], np.ones(4, bool), np.zeros(10, bool)):
        with pytest.raises(UserError, match="hand"):
            data.subset(dataset, wrong)


def test_top_fraction_keeps_whole_best_episodes():
    returns = np.array([3.0, 1.0, 3.0, 2.0, 0.0])
    zeros = np.zeros((10, 1))
    built = data.from_arrays(zeros, zeros, np.repeat(returns / 2, 2), [0, 1] * 5, [0] * 10, zeros, name="top")
    np.testing.assert_allclose(data.episode_returns(built), returns)
    for fraction, wanted in ((0.01, [3]), (0.2, [3]), (0.4, [3, 3]), (0.6, [3, 3, 2]), (1.0, list(returns))):
        best = data.top_fraction(built, fraction)
        np.testing.assert_allclose(data.episode_returns(best), wanted)
        assert best.size == 2 * len(wanted)
    for fraction in (0.0, 1.1):
        with pytest.raises(UserError, match="fraction"):
            data.top_fraction(built, fraction)


def test_concatenate(dataset):
    twice = data.concatenate([dataset, dataset])
    assert twice.name == "hand"
    np.testing.assert_array_equal(twice.episode, np.concatenate([dataset.episode, dataset.episode + 3]))
    np.testing.assert_array_equal(twice.start, np.concatenate([dataset.start, dataset.start + 10]))
    np.testing.assert_array_equal(twice.next_action, np.concatenate([dataset.next_action] * 2))
    assert float(twice.score_expert) == 3.25
    data.validate(twice)
    assert_same(data.concatenate([dataset]), dataset)
    other = dataclasses.replace(dataset, name="other", score_random=dataset.score_random + 1)
    mixed = data.concatenate([dataset, other])
    assert mixed.name == "hand+other"
    assert math.isnan(float(mixed.score_random))
    assert float(mixed.score_expert) == 3.25
    with pytest.raises(UserError, match="at least one"):
        data.concatenate([])
    with pytest.raises(UserError, match="extras"):
        data.concatenate([dataset, dataclasses.replace(dataset, extras={})])
    narrow = dataclasses.replace(dataset, observation=dataset.observation[:, :2])
    with pytest.raises(UserError, match="observation_dim=2"):
        data.concatenate([dataset, narrow])


def test_from_transitions_lays_environments_out_one_after_the_other(columns):
    # Two environments, five steps: the first terminates at step 1 and times out at step 4, the second never ends.
    time, envs = 5, 2
    grid = np.arange(time)[:, None] * 10.0 + np.arange(envs)
    last, discount = np.zeros((time, envs)), np.ones((time, envs))
    last[1, 0], discount[1, 0], last[4, 0] = 1, 0, 1
    trajectory = Transition(
        observation=grid[..., None],
        action=np.zeros((time, envs, 1)),
        reward=grid,
        discount=discount,
        next_observation=grid[..., None] + 0.5,
        last=last,
        extras={"id": grid},
    )
    built = data.from_transitions(trajectory, name="rollout", score_expert=7.0)
    np.testing.assert_array_equal(built.reward, [0, 10, 20, 30, 40, 1, 11, 21, 31, 41])
    np.testing.assert_array_equal(built.extras["id"], built.reward)
    np.testing.assert_array_equal(built.next_observation[:, 0], built.reward + 0.5)
    np.testing.assert_array_equal(built.last, [0, 1, 0, 0, 1, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(built.discount, [1, 0, 1, 1, 1, 1, 1, 1, 1, 1])
    assert float(built.score_expert) == 7.0
    with pytest.raises(UserError, match="last"):
        data.from_transitions(dataclasses.replace(trajectory, last=None), name="x")
    with pytest.raises(UserError, match=r"\[T, E\]"):
        data.from_transitions(dataclasses.replace(trajectory, reward=grid[0]), name="x")


def test_scores_returns_to_go_and_summary(dataset, columns):
    np.testing.assert_allclose(data.normalised_score(dataset, np.array([-1.5, 3.25, 0.875])), [0, 100, 50], rtol=1e-6)
    unknown = dataclasses.replace(dataset, score_random=dataset.score_random * np.nan)
    assert np.isnan(data.normalised_score(unknown, 1.0))
    reward = columns["reward"].astype(np.float64)
    for gamma in (1.0, 0.9):
        found = data.add_returns_to_go(dataset, gamma)
        for row in range(10):
            end = int(dataset.end[row])
            wanted = sum(gamma**k * reward[row + k] for k in range(end - row))
            np.testing.assert_allclose(found.extras["return_to_go"][row], wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found.extras["tag"], dataset.extras["tag"])
    assert "return_to_go" not in dataset.extras
    facts = data.summary(dataset)
    returns = [reward[:4].sum(), reward[4:9].sum(), reward[9]]
    assert (facts["rows"], facts["episodes"], facts["terminated"], facts["truncated"]) == (10, 3, 1, 2)
    assert (facts["length_min"], facts["length_max"]) == (1, 5)
    np.testing.assert_allclose(
        [facts["return_mean"], facts["return_min"], facts["return_max"], facts["return_std"]],
        [np.mean(returns), np.min(returns), np.max(returns), np.std(returns)],
        rtol=1e-6,
    )
    np.testing.assert_allclose(facts["score_mean"], 100 * (np.mean(returns) + 1.5) / 4.75, rtol=1e-5)

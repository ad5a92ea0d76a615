import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data
from jaxrl_reg.errors import UserError

BATCH = 256
FIELDS = ("observation", "action", "reward", "discount", "next_observation", "last", "next_action", "return_rank")


def draw(sampler, dataset, seed=0, size=BATCH):
    key = seed if isinstance(seed, jax.Array) else jax.random.key(seed)
    return jax.device_get(jax.jit(sampler, static_argnums=2)(dataset, key, size))


def rows_of(batch):
    return batch.observation[..., 0].astype(int)  # the hand-made observations begin with the row number


def test_uniform_gathers_whole_rows_evenly(dataset):
    batch = draw(data.uniform, dataset)
    rows = rows_of(batch)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(batch, field), np.asarray(getattr(dataset, field))[rows])
    np.testing.assert_array_equal(batch.extras["physics"], np.asarray(dataset.extras["physics"])[rows])
    counts = np.bincount(rows, minlength=10)
    assert np.abs(counts - BATCH / 10).max() < 5 * np.sqrt(BATCH * 0.09)
    assert not np.array_equal(rows, rows_of(draw(data.uniform, dataset, seed=1)))


@pytest.mark.parametrize("n", [3, 7])
def test_n_step_against_a_loop(dataset, columns, n):
    gamma = 0.9
    batch = draw(data.n_step(n, gamma), dataset)
    for index, row in enumerate(rows_of(batch)):
        end = int(dataset.end[row])
        total, weight, used = 0.0, 1.0, 0
        while used < n and row + used < end:
            total += weight * float(columns["reward"][row + used])
            weight *= gamma
            used += 1
        final = row + used - 1
        terminal = columns["terminated"][final]
        np.testing.assert_allclose(batch.reward[index], total, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(batch.discount[index], 0 if terminal else gamma ** (used - 1), rtol=1e-6)
        np.testing.assert_array_equal(batch.next_observation[index], columns["next_observation"][final])
        np.testing.assert_array_equal(batch.next_action[index], np.asarray(dataset.next_action)[final])
        assert batch.last[index] == dataset.last[final]
        np.testing.assert_array_equal(batch.action[index], columns["action"][row])
    assert set(rows_of(batch)) == set(range(10))


def test_one_step_is_uniform_and_gamma_may_be_traced(dataset):
    one, plain = draw(data.n_step(1, 0.9), dataset), draw(data.uniform, dataset)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(a, b)

    @jax.jit
    def many(dataset, key, gammas):
        return jax.vmap(lambda gamma: data.n_step(3, gamma)(dataset, key, 32).reward)(gammas)

    found = many(dataset, jax.random.key(0), jnp.array([0.0, 0.9]))
    alone = jax.jit(data.n_step(3, 0.9), static_argnums=2)(dataset, jax.random.key(0), 32)
    np.testing.assert_allclose(found[1], alone.reward, rtol=1e-6)
    np.testing.assert_allclose(found[0], draw(data.uniform, dataset, size=32).reward)
    with pytest.raises(UserError, match="n >= 1"):
        data.n_step(0, 0.9)


@pytest.mark.parametrize(("length", "pad"), [(1, "left"), (3, "left"), (3, "right"), (6, "right")])
def test_windows_against_a_loop(dataset, length, pad):
    batch = draw(data.windows(length, pad), dataset)
    assert batch.observation.shape == (BATCH, length, 3)
    mask = batch.extras["mask"]
    starts = batch.extras["tag"][np.arange(BATCH), mask.argmax(axis=1)]
    assert set(starts) == set(range(10))
    for index, start in enumerate(starts):
        real = np.arange(start, min(start + length, int(dataset.end[start])))
        place = slice(length - len(real), length) if pad == "left" else slice(0, len(real))
        wanted = np.zeros(length)
        wanted[place] = 1
        np.testing.assert_array_equal(mask[index], wanted)
        for field in FIELDS:
            column = np.asarray(getattr(dataset, field))
            padded = np.zeros((length, *column.shape[1:]), column.dtype)
            padded[place] = column[real]
            np.testing.assert_array_equal(getattr(batch, field)[index], padded)
        steps = np.zeros(length, int)
        steps[place] = np.asarray(dataset.step)[real]
        np.testing.assert_array_equal(batch.extras["step"][index], steps)
        assert len(set(batch.observation[index, mask[index] > 0, 1])) == 1  # one episode only


def test_windows_refuse_nonsense_and_do_not_touch_the_data_set(dataset):
    with pytest.raises(UserError, match="'left' or 'right'"):
        data.take_windows(dataset, jnp.arange(2), 3, "centre")
    with pytest.raises(UserError, match="at least 1"):
        data.take_windows(dataset, jnp.arange(2), 0)
    assert set(dataset.extras) == {"physics", "tag"}


def test_returns_to_go_are_those_of_the_host_and_stay_within_an_episode(dataset):
    known, returns = np.asarray(data.add_returns_to_go(dataset).extras["return_to_go"]), data.episode_returns(dataset)
    batch = draw(data.returns_to_go(data.uniform), dataset)
    np.testing.assert_allclose(batch.extras["return_to_go"], known[rows_of(batch)], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch.extras["return_mean"], returns.mean(), rtol=1e-5)
    np.testing.assert_allclose(batch.extras["return_best"], returns.max(), rtol=1e-5)
    np.testing.assert_allclose(batch.extras["return_scale"], np.abs(known).max(), rtol=1e-5)
    padded = draw(data.returns_to_go(data.windows(6, "right")), dataset)
    np.testing.assert_array_equal(padded.extras["return_to_go"][padded.extras["mask"] == 0], 0.0)
    following = padded.extras["return_to_go"] - padded.reward
    last = (padded.extras["mask"] > 0) & (padded.last > 0)
    np.testing.assert_allclose(following[last], 0.0, atol=1e-6)
    nothing = dataclasses.replace(dataset, reward=0.0 * dataset.reward)
    assert draw(data.returns_to_go(data.uniform), nothing).extras["return_scale"] == 1.0
    assert set(dataset.extras) == {"physics", "tag"}


def test_window_starts_cover_whole_windows_only(dataset):
    np.testing.assert_array_equal(data.window_starts(dataset, 3), [0, 1, 4, 5, 6])
    np.testing.assert_array_equal(data.window_starts(dataset, 2, stride=2), [0, 2, 4, 6, 7])  # 7: the episode's end
    np.testing.assert_array_equal(data.window_starts(dataset, 1, stride=9), [0, 3, 4, 8, 9])
    rows = data.window_starts(dataset, 4)
    mask = jax.jit(data.take_windows, static_argnums=2)(dataset, rows, 4).extras["mask"]
    assert np.asarray(mask).all()
    with pytest.raises(UserError, match="no episode has 6 rows"):
        data.window_starts(dataset, 6)
    with pytest.raises(UserError, match="stride"):
        data.window_starts(dataset, 2, stride=0)


def check_goals(dataset, batch):
    """Goals are the successors of their rows; returns (rows, goal rows)."""
    rows, goal_rows = rows_of(batch), batch.extras["goal_row"]
    np.testing.assert_array_equal(batch.extras["goal"], np.asarray(dataset.next_observation)[goal_rows])
    np.testing.assert_array_equal(batch.extras["goal_reached"], goal_rows == rows)
    np.testing.assert_array_equal(batch.reward, np.asarray(dataset.reward)[rows])
    return rows, goal_rows


def check_future(dataset, rows, goal_rows):
    assert (goal_rows >= rows).all()
    assert (goal_rows < np.asarray(dataset.end)[rows]).all()
    ahead = (goal_rows - rows)[rows == 4]  # the first of five rows
    return np.bincount(ahead, minlength=5) / len(ahead)


def test_geometric_goals(dataset):
    @jax.jit
    def many(dataset, key, gammas):
        return jax.vmap(lambda gamma: data.hindsight(gamma)(dataset, key, 20_000))(gammas)

    batches = jax.device_get(many(dataset, jax.random.key(3), jnp.array([0.0, 0.7, 1.0])))
    none, some, far = (check_goals(dataset, jax.tree.map(lambda x, i=i: x[i], batches)) for i in range(3))
    wanted = np.array([0.3 * 0.7**k for k in range(4)] + [0.7**4])  # what lies past the end falls on the last row
    np.testing.assert_allclose(check_future(dataset, *some), wanted, atol=0.05)
    np.testing.assert_array_equal(none[1], none[0])
    np.testing.assert_array_equal(far[1], np.asarray(dataset.end)[far[0]] - 1)


def test_uniform_goals(dataset):
    batch = draw(data.hindsight(geometric=0.0, uniform=1.0), dataset, size=20_000)
    np.testing.assert_allclose(check_future(dataset, *check_goals(dataset, batch)), np.full(5, 0.2), atol=0.05)


def test_a_mixture_of_random_goals_and_own_successors(dataset):
    batch = draw(data.hindsight(geometric=0.0, random=0.6, current=0.4), dataset, size=2000)
    rows, goal_rows = check_goals(dataset, batch)
    assert set(goal_rows[rows == 5]) == set(range(10))
    assert abs((goal_rows == rows).mean() - 0.46) < 5 * np.sqrt(0.25 / 2000)
    for wrong in ({"random": 0.5}, {"geometric": -1.0, "random": 2.0}):
        with pytest.raises(UserError, match="sum to 1"):
            data.hindsight(**wrong)


def test_goals_beyond_a_plan(dataset):
    plan = 3

    def gather(dataset, rows):
        return data.take_chunks(dataset, rows, plan)

    sampler = data.hindsight(geometric=0.0, uniform=1.0, ahead=plan - 1, gather=gather)
    batch = draw(sampler, dataset, size=2000)
    rows, goal_rows = rows_of(batch)[:, 0], batch.extras["goal_row"]
    last = np.minimum(rows + plan, np.asarray(dataset.end)[rows]) - 1
    assert batch.action.shape == (2000, plan, 2)
    assert ((goal_rows >= last) & (goal_rows < np.asarray(dataset.end)[rows])).all()
    assert set(goal_rows[rows == 4]) == {6, 7, 8}
    np.testing.assert_array_equal(batch.extras["goal_reached"], goal_rows == last)


@pytest.mark.parametrize(("length", "history"), [(1, 1), (3, 1), (1, 3), (4, 2)])
def test_chunks_against_a_loop(dataset, length, history):
    batch = draw(data.chunks(length, history), dataset)
    rows = rows_of(batch)[:, history - 1]
    assert set(rows) == set(range(10))
    for index, row in enumerate(rows):
        start, end = int(dataset.start[row]), int(dataset.end[row])
        for place, wanted in enumerate(range(row - history + 1, row + length)):
            held = min(max(wanted, start), end - 1)
            np.testing.assert_array_equal(batch.action[index, place], np.asarray(dataset.action)[held])
            np.testing.assert_array_equal(batch.observation[index, place], np.asarray(dataset.observation)[held])
            assert batch.extras["mask"][index, place] == (start <= wanted < end)
    assert "mask" not in dataset.extras
    for wrong in ((0, 1), (1, 0)):
        with pytest.raises(UserError, match="at least 1"):
            draw(data.chunks(*wrong), dataset)


SAMPLERS = {
    "uniform": data.uniform,
    "n_step": data.n_step(3, 0.99),
    "windows": data.windows(4),
    "chunks": data.chunks(3, 2),
    "hindsight": data.hindsight(geometric=0.5, random=0.5),
    "returns_to_go": data.returns_to_go(data.windows(4)),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_inside_a_scan_vmapped_over_keys(dataset, name):
    sampler = SAMPLERS[name]

    def run(dataset, key):
        def body(carry, index):
            batch = sampler(dataset, jax.random.fold_in(key, index), 8)
            return carry + batch.reward.sum(), batch.reward

        return jax.lax.scan(body, 0.0, jnp.arange(3))

    keys = jax.random.split(jax.random.key(0), 4)
    total, rewards = jax.jit(jax.vmap(run, in_axes=(None, 0)))(dataset, keys)
    single = draw(sampler, dataset, jax.random.fold_in(keys[2], 1), 8)
    np.testing.assert_allclose(rewards[2, 1], single.reward, rtol=1e-6)
    assert total.shape == (4,)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_program_does_not_contain_the_data(name):
    rows = 100_000
    zeros = np.zeros((rows, 3), np.float32)
    end = np.arange(rows) % 1000 == 999
    big = data.from_arrays(zeros, zeros, np.zeros(rows), np.zeros(rows), end, zeros, name="big")
    shapes = jax.eval_shape(lambda: big)
    lowered = jax.jit(lambda dataset, key: SAMPLERS[name](dataset, key, 256)).lower(shapes, jax.random.key(0))
    assert len(lowered.as_text()) < 100_000


def test_gathers_that_nobody_reads_are_removed(dataset):
    def count(fields):
        def program(dataset, key):
            batch = data.uniform(dataset, key, 16)
            return [getattr(batch, field) for field in fields]

        text = jax.jit(program).lower(dataset, jax.random.key(0)).compile().as_text()
        return text.count(" gather(") + text.count("dynamic-slice(")

    assert count(["reward"]) < count(FIELDS)


def test_rewards_ahead_against_a_loop_through_a_time_out_and_a_termination():
    rows = 11
    reward = np.arange(1.0, rows + 1)
    terminated, truncated = np.arange(rows) == 3, np.isin(np.arange(rows), [7, 10])
    made = data.from_arrays(
        np.zeros((rows, 1)), np.zeros((rows, 1)), reward, terminated, truncated, np.zeros((rows, 1)), name="made"
    )
    batch = jax.jit(data.samplers.ahead(4), static_argnums=2)(made, jax.random.key(0), 200)
    for i, first in enumerate(np.asarray(batch.reward) - 1):
        end = next(end for end in (4, 8, 11) if end > first)
        left, known = reward[int(first) : int(end)][:4], end - first <= 4
        np.testing.assert_array_equal(batch.extras["reward_ahead"][i], np.pad(left, (0, 4 - len(left))))
        assert batch.extras["steps_ahead"][i] == len(left)
        assert batch.extras["known"][i] == known
        assert batch.extras["cut_reward"][i] == (reward[int(end) - 1] if known and end != 4 else 0.0)

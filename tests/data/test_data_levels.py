"""Scores of levels, the buffer that keeps them, and who is drawn from it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.data import levels
from jaxrl_reg.errors import UserError
from jaxrl_reg.losses import level_scores

BEST = -np.inf


def buffer_of(score, best, age, filled, pinned):
    count = len(score)
    arrays = {"score": score, "best_return": best, "age": age, "born": [0] * count, "filled": filled, "pinned": pinned}
    kinds = {"age": jnp.int32, "born": jnp.int32, "filled": bool, "pinned": bool}
    made = {name: jnp.asarray(values, kinds.get(name, jnp.float32)) for name, values in arrays.items()}
    return levels.LevelBuffer(jnp.arange(10.0, 10.0 + count), **made)


@pytest.fixture(scope="module")
def golden():
    """Numbers of the written-out example: one program."""

    def made():
        advantage = jnp.array([[0.5, -1], [0.2, 0.4], [-0.3, 0.8], [1, -0.6]])
        last = jnp.array([[0.0, 0], [1, 0], [0, 0], [0, 1]])
        value = jnp.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]])
        score, support = jnp.array([0.2, 0.9, 0.5, 0.7]), jnp.array([True, True, False, True])
        buffer = buffer_of(score, [1.0] * 4, [0, 3, 5, 1], [True] * 4, support)
        none = jnp.zeros(4, bool)
        return {
            "finished": level_scores.finished_steps(last),
            "running": level_scores.running_return(advantage, last),
            "value_l1": level_scores.value_loss_score(advantage, last),
            "positive": level_scores.value_loss_score(advantage, last, positive=True),
            "max_mc": level_scores.max_mc_score(value, jnp.array([1.0, 0.5]), last),
            "learnability": level_scores.learnability(jnp.array([0.25, 1.0, -jnp.inf])),
            "unfinished": level_scores.value_loss_score(advantage * jnp.nan, 0 * last),
            "rank_1": levels.rank_weights(score, support, 1.0),
            "rank_03": levels.rank_weights(score, support, 0.3),
            "rank_inf": levels.rank_weights(score, support, jnp.inf),
            "stale": levels.staleness_weights(buffer.age, support),
            "fresh": levels.staleness_weights(0 * buffer.age, support),
            "mixture": levels.mixture(buffer, 0.5, 0.3, 0.3, 1.0),
            "nobody": levels.rank_weights(score, none, 0.3) + levels.staleness_weights(buffer.age, none),
            "unsolved": levels.mixture(buffer_of(score, [BEST] * 4, [0] * 4, [True] * 4, support), 1.0, 0.0, 1.0, 1.0),
        }

    return jax.device_get(jax.jit(made)())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("finished", [[1, 1], [1, 1], [0, 1], [0, 1]]),
        ("running", [[0.5, -1], [0.7, -0.6], [-0.3, 0.2], [0.7, -0.4]]),
        ("value_l1", [0.35, 0.7]),
        ("positive", [0.35, 0.3]),
        ("max_mc", [0.8, 0.0]),
        ("learnability", [0.1875, 0.0, -np.inf]),
        ("unfinished", [-np.inf, -np.inf]),
        ("rank_1", [0.181818, 0.545455, 0, 0.272727]),
        ("rank_03", [0.022829, 0.888974, 0, 0.088197]),
        ("rank_inf", [1 / 3, 1 / 3, 0, 1 / 3]),
        ("stale", [0, 0.75, 0, 0.25]),
        ("fresh", [1 / 3, 1 / 3, 0, 1 / 3]),
        ("mixture", [0.049990, 0.704141, 0.056, 0.189869]),
        ("nobody", [0, 0, 0, 0]),
        ("unsolved", [0.181818, 0.545455, 0, 0.272727]),  # nothing was solved yet: the given levels
    ],
)
def test_scores_and_weights_are_those_worked_out_by_hand(golden, name, expected):
    np.testing.assert_allclose(golden[name], expected, rtol=2e-5, atol=1e-6)


def test_a_level_without_a_finished_episode_keeps_score_and_age():
    buffer = buffer_of([1.0, 2, 3, 4], [0.5, 0.6, BEST, 0.8], [7, 8, 9, 6], [True] * 4, [False] * 4)
    slot = jnp.array([1, 0, 0, 2, -1])
    score = jnp.array([-jnp.inf, 5.0, 7.0, -jnp.inf, 100.0])
    best = jnp.array([-jnp.inf, 0.1, 0.9, -jnp.inf, 100.0])
    after = jax.jit(levels.visited)(buffer, slot, score, best)
    np.testing.assert_array_equal(after.score, [6, 2, 3, 4])  # of a level that was played twice the mean
    np.testing.assert_array_equal(after.age, [0, 8, 9, 6])
    np.testing.assert_array_equal(after.best_return, np.float32([0.9, 0.6, BEST, 0.8]))
    np.testing.assert_array_equal(jax.jit(levels.aged)(after).age, [1, 9, 10, 7])


@pytest.fixture(scope="module")
def inserted():
    def made(rule, ground):
        pinned = [True, True, False, False, False]
        score, best = [0.1, 0.2, 0.9, 0.3, 0.8], [BEST, 1.0, 1.0, 1.0, BEST]
        buffer = buffer_of(score, best, [3] * 5, [True, True, True, True, False], pinned)
        new = {"score": jnp.array([0.5, -jnp.inf, 0.05, 0.6]), "best_return": jnp.array([0.4, BEST, 0.4, BEST])}
        return levels.insert(buffer, jnp.array([20.0, 21, 22, 23]), **new, iteration=5, rule=rule, ground=ground)

    return jax.jit(lambda: {key: made(*key) for key in (("score", False), ("score", True), ("recent", True))})()


@pytest.mark.parametrize(
    ("key", "level"),
    [
        (("score", False), [10, 11, 12, 23, 20]),  # pinned first and in place, then by score; 13 and 22 are out
        (("score", True), [10, 11, 12, 20, 13]),  # 23 has the better score and was never solved
        (("recent", True), [10, 11, 20, 22, 12]),
    ],
)
def test_the_best_stay_and_given_levels_are_never_evicted(inserted, key, level):
    after = inserted[key]
    np.testing.assert_array_equal(after.level, level)
    assert after.filled.all()
    np.testing.assert_array_equal(after.pinned, [True, True, False, False, False])
    new = np.asarray(after.level) >= 20
    assert (np.asarray(after.born)[new] == 5).all()
    assert (np.asarray(after.age)[new] == 0).all()


def test_old_levels_leave_and_given_ones_stay():
    buffer = buffer_of([1.0] * 3, [1.0] * 3, [0] * 3, [True, True, True], [True, False, False])
    buffer = dataclasses.replace(buffer, born=jnp.array([0, 4, 5]))
    np.testing.assert_array_equal(levels.since(buffer, jnp.int32(5)).filled, [True, False, True])


def test_draws_follow_the_weights_and_never_take_a_slot_of_weight_0():
    weights = jnp.array([0.0, 0.2, 0.0, 0.8, 0.0])
    slot = np.asarray(jax.jit(levels.draw, static_argnums=2)(weights, jax.random.key(0), 4000))
    assert set(slot) == {1, 3}
    assert abs((slot == 3).mean() - 0.8) < 0.03


def test_a_buffer_that_is_too_small_is_refused():
    with pytest.raises(UserError, match="needs a capacity of at least 3, got 2"):
        levels.init(jnp.float32(0), 2, jnp.zeros(3))

"""What resembles a task: scores against NumPy, the two thresholds and where they part, and a data set cut by them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data
from jaxrl_reg.data import curation
from jaxrl_reg.errors import UserError

ROWS, TASK = 700, 9


def table(rows, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=(rows, width)), jnp.float32) for width in (3, 2))


def distances(left, right, weight):
    left, right = (np.concatenate([np.asarray(part, np.float64) for part in parts], -1) for parts in (left, right))
    return np.sqrt((np.asarray(weight) * (left[:, None] - right[None]) ** 2).sum(-1))


WEIGHT = jnp.array([4.0, 0.25, 1.0, 1.0, 0.5])


def test_the_score_is_minus_the_distance_to_the_nearest_row_of_the_task():
    expected = -distances(table(ROWS), table(TASK, 1), WEIGHT).min(1)
    for chunk in (4, 8192):  # 9 is no multiple of 4
        found = curation.similarity(table(ROWS), table(TASK, 1), WEIGHT, chunk=chunk)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    many = table(9000, 2)  # more rows than a block
    np.testing.assert_allclose(curation.similarity(many, many), 0.0, atol=1e-6)


def test_density_against_numpy_and_its_limit_of_a_small_kernel():
    query, rows = table(40, 1), table(ROWS)
    distance = distances(query, rows, WEIGHT)
    for chunk in (128, 4096):
        found = curation.log_density(jnp.concatenate(query, -1), rows, 0.7, WEIGHT, chunk=chunk)
        np.testing.assert_allclose(found, np.log(np.exp(-(distance**2) / (2 * 0.7**2)).mean(1)), rtol=1e-4, atol=1e-4)
    h = 0.02
    small = curation.log_density(jnp.concatenate(query, -1), rows, h, WEIGHT)
    np.testing.assert_allclose(-2 * h**2 * (small + np.log(ROWS)), distance.min(1) ** 2, atol=2e-3)


def test_only_the_ratio_minds_how_common_a_row_is():
    """Ten copies of a row near the task and one of another just as near: the distance cannot tell them apart."""
    rows = (jnp.concatenate([jnp.full((10, 1), 1.0), jnp.full((1, 1), -1.0), jnp.full((5, 1), 9.0)]),)
    task = (jnp.zeros((1, 1)),)
    near, ratio = curation.similarity(rows, task), curation.density_ratio(rows, task, 0.3)
    assert near[0] == near[10]
    np.testing.assert_allclose(ratio[10] - ratio[0], np.log(10), rtol=1e-3)


def test_one_outlier_moves_the_published_threshold_and_no_quantile():
    score = -jnp.arange(10.0)
    spoilt = score.at[9].set(-1e4)
    assert int(curation.keep(score, 0.75).sum()) == 3
    assert int(curation.keep(spoilt, 0.75).sum()) == 9  # all but the outlier
    for scores in (score, spoilt):
        assert int(curation.keep(scores, 0.7, "quantile").sum()) == 3


@pytest.mark.parametrize("rule", ["minmax", "quantile"])
def test_zero_keeps_all_and_so_do_equal_scores(rule):
    assert curation.keep(-jnp.arange(10.0), 0.0, rule).all()
    assert curation.keep(jnp.full(5, -2.0), 0.9, rule).all()
    found = jax.jit(jax.vmap(lambda delta: curation.keep(-jnp.arange(10.0), delta, rule)))(jnp.array([0.0, 0.5, 1.0]))
    assert found.sum(1).tolist() == [10, 5, 1]


def walks(episodes, seed, direction=None):
    """Episodes of ten steps on the line; the actions are random, or all ``direction``."""
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (episodes * 10, 1)) if direction is None else np.full((episodes * 10, 1), direction)
    last = np.tile(np.arange(10) == 9, episodes)
    position = np.tile(np.linspace(0, 1, 10), episodes)[:, None]
    return data.from_arrays(position, action, last, 0 * last, last, position, name="walks")


def test_retrieval_cuts_a_data_set_where_rows_are_left_out():
    prior = data.concatenate([walks(5, 0), walks(5, 1, 0.5)])
    found = curation.retrieve(prior, walks(1, 2, 0.5), 0.95)
    data.validate(found)
    assert np.abs(np.asarray(found.action) - 0.5).max() < 0.1
    assert found.size >= 50
    windows = np.asarray(found.end) - np.asarray(found.start)
    assert windows[-50:].min() == 10  # whole episodes stay whole
    blind = curation.retrieve(prior, walks(1, 2, 0.5), 0.95, lambda observation, action: observation)
    assert blind.size == prior.size  # every position is on the way to everywhere
    halved = curation.retrieve(prior, walks(1, 2, 0.5), 0.5, rule="quantile")
    assert halved.size == 50


def test_refusals():
    with pytest.raises(UserError, match="unknown rule 'min'; did you mean 'minmax'"):
        curation.keep(jnp.zeros(3), 0.5, "min")
    with pytest.raises(UserError, match=r"threshold=1.5: expected a number in \[0, 1\]"):
        curation.keep(jnp.zeros(3), 1.5)
    with pytest.raises(UserError, match="do not fit a table"):
        curation.similarity(table(5), table(4)[:1])


def test_half_of_each_batch_from_either_set(dataset):
    batch = jax.jit(data.mixture(7, 0.5), static_argnums=2)(dataset, jax.random.key(0), 64)
    rows = np.asarray(batch.observation[:, 0]).astype(int)
    assert set(rows[:32]) == set(range(7))
    assert set(rows[32:]) == {7, 8, 9}
    assert (np.asarray(data.mixture(7, 0.25)(dataset, jax.random.key(1), 64).observation[:, 0]) < 7).sum() == 16
    with pytest.raises(UserError, match="a mixture of the first 10 rows and the others of 10"):
        data.mixture(10)(dataset, jax.random.key(0), 4)
    with pytest.raises(UserError, match="share"):
        data.mixture(3, 1.5)


def test_pairs_ahead_stay_within_their_episode(dataset):
    batch = jax.jit(data.future(3), static_argnums=2)(dataset, jax.random.key(0), 512)
    rows, ahead = np.asarray(batch.observation[:, 0]).astype(int), np.asarray(batch.extras["ahead"])
    left = np.asarray(dataset.end)[rows] - rows
    assert (ahead <= np.minimum(left, 3)).all()
    np.testing.assert_array_equal(batch.next_observation, np.asarray(dataset.next_observation)[rows + ahead - 1])
    np.testing.assert_array_equal(batch.extras["episode"], np.asarray(dataset.episode)[rows])
    free = ahead[left >= 3]  # uniform where nothing cuts it
    assert np.abs(np.bincount(free)[1:] / len(free) - 1 / 3).max() < 0.1
    with pytest.raises(UserError, match="at least 1 step"):
        data.future(0)

"""Statistics against SciPy, double loops, enumeration and an independent NumPy bootstrap."""

import itertools
import types

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given

from jaxrl_reg import evaluation
from jaxrl_reg.evaluation import statistics

KEY = jax.random.key(0)
GRID = st.integers(-64, 64).map(lambda i: i / 32)  # exact in float32, often tied
SCORES = hnp.arrays(np.float64, (7, 2), elements=GRID)


def test_submodules_are_found_lazily():
    assert isinstance(evaluation.statistics, types.ModuleType)
    assert "statistics" in dir(evaluation)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = evaluation.nonsense


@given(SCORES)
def test_iqm_is_the_quarter_trimmed_mean(scores):
    expected = scipy.stats.trim_mean(scores, 0.25, axis=None)
    assert float(statistics.iqm(scores)) == pytest.approx(expected, abs=1e-6)


@given(SCORES)
def test_mean_median_and_gap(scores):
    assert float(statistics.mean(scores)) == pytest.approx(scores.mean(), abs=1e-6)
    assert float(statistics.median(scores)) == pytest.approx(np.median(scores.mean(0)), abs=1e-6)
    gap = 0.5 - np.minimum(scores, 0.5).mean()
    assert float(statistics.optimality_gap(scores, 0.5)) == pytest.approx(gap, abs=1e-6)


def test_aggregates_by_hand():
    scores = jnp.array([[0.0, 1.0], [2.0, 100.0]])
    assert statistics.iqm(scores) == 1.5  # 0 and 100 are cut
    assert statistics.mean(scores) == 25.75
    assert statistics.median(scores) == pytest.approx((1.0 + 50.5) / 2)
    assert statistics.optimality_gap(scores) == 0.25
    assert statistics.optimality_gap(scores, 4.0) == pytest.approx((4 + 3 + 2 + 0) / 4)


@given(hnp.arrays(np.float64, (4, 2), elements=GRID), hnp.arrays(np.float64, (3, 2), elements=GRID))
def test_probability_of_improvement_is_the_double_loop(x, y):
    wins = [(a > b) + 0.5 * (a == b) for t in range(2) for a in x[:, t] for b in y[:, t]]
    assert float(statistics.probability_of_improvement(x, y)) == pytest.approx(np.mean(wins), abs=1e-6)
    u = np.mean([scipy.stats.mannwhitneyu(x[:, t], y[:, t]).statistic for t in range(2)]) / 12
    assert float(statistics.probability_of_improvement(x, y)) == pytest.approx(u, abs=1e-6)
    assert float(statistics.probability_of_improvement(y, x)) == pytest.approx(1 - np.mean(wins), abs=1e-6)


def test_performance_profile_counts_what_is_above():
    scores = jnp.array([[0.0, 1.0], [2.0, 3.0]])
    np.testing.assert_allclose(
        statistics.performance_profile(scores, jnp.array([-1.0, 0.0, 1.5, 3.0])), [1.0, 0.75, 0.5, 0.0]
    )


def numpy_bootstrap(scores, statistic, reps, seed):
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(reps):
        columns = [generator.choice(column, len(column)) for column in scores.T]
        found.append(statistic(np.stack(columns, 1)))
    return np.quantile(found, [0.025, 0.975], axis=0)


def test_bootstrap_agrees_with_an_independent_one():
    scores = np.random.default_rng(0).normal(size=(12, 4)) + np.arange(4)
    found = statistics.stratified_bootstrap(KEY, scores, statistics.iqm, reps=4000)
    expected = numpy_bootstrap(scores, lambda s: scipy.stats.trim_mean(s, 0.25, axis=None), 2000, 1)
    np.testing.assert_allclose(found, expected, atol=0.1 * (expected[1] - expected[0]))


def test_bootstrap_interval_covers_as_often_as_it_says():
    experiments, runs, tasks = 300, 20, 2
    keys = jax.random.split(KEY, experiments)
    draws = jax.random.normal(jax.random.key(1), (experiments, runs, tasks)) + jnp.array([0.0, 5.0])

    @jax.jit
    def interval(key, scores):
        return jnp.stack(statistics.stratified_bootstrap(key, scores, statistics.mean, reps=200, confidence=0.8))

    low, high = jax.lax.map(lambda pair: interval(*pair), (keys, draws)).T
    coverage = float(((low <= 2.5) & (high >= 2.5)).mean())
    # The percentile interval of 20 runs is a little short: about 0.78 rather than 0.80; 0.07 is three standard errors.
    assert coverage == pytest.approx(0.78, abs=0.07)
    assert float((low > 2.5).mean() - (high < 2.5).mean()) == pytest.approx(0.0, abs=0.09)


def test_bootstrap_resamples_within_tasks():
    scores = jnp.tile(jnp.array([0.0, 100.0, 1000.0]), (10, 1))  # tasks differ, runs do not
    low, high = statistics.stratified_bootstrap(KEY, scores, statistics.mean, reps=50)
    assert low == high == pytest.approx(1100 / 3)
    # Each task is resampled by itself: the sum of opposite columns must vary.
    opposite = jnp.stack([jnp.arange(10.0), -jnp.arange(10.0)], 1)
    low, high = statistics.stratified_bootstrap(KEY, opposite, statistics.mean, reps=200)
    assert high - low > 0.5


def test_bootstrap_is_repeatable_and_chunks_change_nothing():
    scores = jax.random.normal(KEY, (6, 3))
    first = statistics.stratified_bootstrap(KEY, scores, reps=50)
    np.testing.assert_array_equal(first, statistics.stratified_bootstrap(KEY, scores, reps=50))
    np.testing.assert_allclose(first, statistics.stratified_bootstrap(KEY, scores, reps=50, chunk=7), rtol=1e-6)
    other = statistics.stratified_bootstrap(jax.random.key(9), scores, reps=50)
    assert not np.array_equal(first, other)
    narrow = statistics.stratified_bootstrap(KEY, scores, reps=50, confidence=0.5)
    assert first[0] < narrow[0] < narrow[1] < first[1]


def test_bootstrap_of_two_methods():
    x = jax.random.normal(KEY, (8, 2)) + 1.0
    y = jax.random.normal(jax.random.key(1), (6, 2))
    low, high = statistics.stratified_bootstrap(KEY, (x, y), statistics.probability_of_improvement, reps=200)
    assert 0.5 < low < statistics.probability_of_improvement(x, y) < high <= 1.0


def test_profile_band_holds_the_profile():
    scores, thresholds = jax.random.normal(KEY, (10, 3)), jnp.linspace(-2, 2, 9)
    low, high = statistics.performance_profile_band(KEY, scores, thresholds, reps=200)
    profile = statistics.performance_profile(scores, thresholds)
    assert low.shape == high.shape == (9,)
    assert ((low <= profile) & (profile <= high)).all()
    assert (high - low).max() > 0.1
    expected = numpy_bootstrap(
        np.asarray(scores), lambda s: (s[..., None] > np.asarray(thresholds)).mean((0, 1)), 500, 0
    )
    np.testing.assert_allclose([low, high], expected, atol=0.08)


def enumerate_best(scores, evaluated, k):
    """Average over all subsets of the score kept, ties kept with equal probability."""
    kept = []
    for subset in itertools.combinations(range(len(scores)), k):
        best = max(evaluated[i] for i in subset)
        kept.append(np.mean([scores[i] for i in subset if evaluated[i] == best]))
    return np.mean(kept)


@given(
    hnp.arrays(np.float64, 6, elements=GRID),
    hnp.arrays(np.float64, 6, elements=st.integers(0, 3).map(float)),
)
def test_expected_best_online_is_the_enumeration(scores, evaluated):
    by_truth = [enumerate_best(scores, scores, k) for k in range(1, 7)]
    np.testing.assert_allclose(statistics.expected_best_online(scores), by_truth, atol=1e-5)
    by_evaluation = [enumerate_best(scores, evaluated, k) for k in range(1, 7)]
    np.testing.assert_allclose(statistics.expected_best_online(scores, evaluated), by_evaluation, atol=1e-5)


def test_expected_best_online_shares_ties_equally():
    scores, tied = np.array([1.0, 2.0, 6.0]), np.zeros(3)
    np.testing.assert_allclose(statistics.expected_best_online(scores, tied), [3.0, 3.0, 3.0], rtol=1e-6)
    # Two tied for best: the worst is kept only if it is drawn alone.
    np.testing.assert_allclose(
        statistics.expected_best_online(scores, np.array([0.0, 1.0, 1.0])), [3.0, 4.0, 4.0], rtol=1e-6
    )


def test_expected_best_online_ends_and_noise():
    scores = np.random.default_rng(0).normal(size=40)
    curve = statistics.expected_best_online(scores)
    assert curve[0] == pytest.approx(scores.mean(), abs=1e-5)
    assert curve[-1] == pytest.approx(scores.max(), abs=1e-5)
    assert (np.diff(curve) > 0).all()
    noise = jax.random.normal(KEY, (200, 40))
    noisy = jax.vmap(statistics.expected_best_online, (None, 0))(scores, scores + noise).mean(0)
    assert noisy[0] == pytest.approx(scores.mean(), abs=1e-5)
    assert (noisy[4:] < curve[4:] - 0.1).all()
    against = statistics.expected_best_online(scores, -scores)
    assert against[-1] == pytest.approx(scores.min(), abs=1e-5)


def test_expected_best_online_of_many_policies_stays_accurate():
    scores = np.arange(1000.0)
    curve = statistics.expected_best_online(scores)
    k = np.arange(1, 1001)
    np.testing.assert_allclose(curve, k * 1001 / (k + 1) - 1, rtol=1e-4)  # the mean of a maximum of ranks, less one


def test_bandit_without_noise_is_the_closed_form():
    scores = jnp.array([0.0, 1.0, 3.0, 4.0, 10.0])
    chosen = statistics.bandit_evaluation(KEY, jnp.tile(scores[:, None], (1, 4)), pulls=5, repeats=4000)
    closed = statistics.expected_best_online(scores)
    np.testing.assert_allclose(chosen.mean(0), closed, atol=4 * float(scores.std()) / 4000**0.5)
    assert (chosen[:, -1] == 10.0).all()


def test_bandit_learns_which_policy_is_best():
    returns = jnp.array([[0.0], [1.0], [1.5]]) + jax.random.normal(KEY, (3, 50))
    truth = returns.mean(1)
    chosen = statistics.bandit_evaluation(jax.random.key(1), returns, pulls=300, repeats=100)
    assert chosen.shape == (100, 300)
    assert chosen[:, 0].mean() == pytest.approx(truth.mean(), abs=0.25)
    assert (chosen[:, -1] == truth.max()).mean() > 0.85
    assert (chosen[:, 20] == truth.max()).mean() < 0.8  # and it is not handed the answer
    assert set(np.unique(chosen)) <= set(np.asarray(truth).tolist())


def test_bandit_does_not_depend_on_units_and_takes_subsets():
    returns = jax.random.normal(KEY, (6, 10))
    plain = statistics.bandit_evaluation(KEY, returns, pulls=12, repeats=20, policies=3)
    shifted = statistics.bandit_evaluation(KEY, 1024.0 * returns, pulls=12, repeats=20, policies=3)
    np.testing.assert_allclose(shifted, 1024.0 * plain, rtol=1e-5)
    one = statistics.bandit_evaluation(KEY, returns, pulls=12, repeats=2000, policies=1)
    assert (one == one[:, :1]).all()
    assert one[:, 0].mean() == pytest.approx(float(returns.mean()), abs=0.05)
    constant = statistics.bandit_evaluation(KEY, jnp.ones((6, 10)), pulls=12, repeats=20, policies=3)
    assert (constant == 1.0).all()


def test_nan_is_never_hidden():
    scores = jnp.array([[1.0, 2.0], [jnp.nan, 3.0], [0.0, 1.0], [5.0, 6.0]])
    for statistic in (statistics.mean, statistics.median, statistics.iqm, statistics.optimality_gap):
        assert np.isnan(statistic(scores))
    assert np.isnan(statistics.probability_of_improvement(scores, scores))
    assert np.isnan(statistics.performance_profile(scores, jnp.zeros(2))).all()
    assert np.isnan(statistics.expected_best_online(scores[:, 0])).all()
    returns = jnp.ones((6, 10)).at[2, 3].set(jnp.nan)
    assert np.isnan(statistics.bandit_evaluation(KEY, returns, pulls=12, repeats=20, policies=3)).all()


def test_bad_input_is_refused_in_one_line():
    good = jnp.ones((3, 2))
    for call, message in [
        (lambda: statistics.iqm(jnp.ones(3)), r"scores has shape \[3\]; expected \[runs, tasks\]"),
        (lambda: statistics.mean(jnp.ones((0, 2))), r"scores has shape \[0, 2\]"),
        (lambda: statistics.probability_of_improvement(good, jnp.ones((3, 1))), "2 tasks .* 1 tasks"),
        (lambda: statistics.stratified_bootstrap(KEY, good, confidence=1.0), r"confidence is 1\.0"),
        (lambda: statistics.stratified_bootstrap(KEY, good, reps=0), "reps is 0"),
        (lambda: statistics.expected_best_online(good), r"scores \[3, 2\]"),
        (lambda: statistics.expected_best_online(jnp.ones(3), jnp.ones(2)), r"evaluated \[2\]"),
        (lambda: statistics.bandit_evaluation(KEY, jnp.ones(3), 2), r"returns has shape \[3\]"),
        (lambda: statistics.bandit_evaluation(KEY, good, 2, policies=4), "policies is 4"),
        (lambda: statistics.bandit_evaluation(KEY, good, 0), "pulls is 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()

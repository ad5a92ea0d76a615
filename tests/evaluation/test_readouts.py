"""Readouts against NumPy and SciPy; what groups protect from; the correction for noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation import readouts

RNG = np.random.default_rng(0)
X = RNG.normal(2.0, [1.0, 5.0, 0.2, 1.0], (60, 4))
GROUP = np.arange(60) // 6


def f32(x):
    return jnp.asarray(x, jnp.float32)


@jax.jit
def ridge(features, targets, group, penalties):
    return readouts.ridge_cv(features, targets, group, penalties)


@jax.jit
def logistic(features, targets, group, penalties):
    return readouts.logistic_cv(features, targets, group, penalties)


def test_ridge_equals_the_normal_equations_of_the_chosen_penalty():
    y = X @ RNG.normal(size=(4, 2)) + 1.0 + 0.5 * RNG.normal(size=(60, 2))
    penalties = np.array([1e-4, 1e-2, 1.0])
    found, errors = ridge(f32(X), f32(y), jnp.asarray(GROUP), f32(penalties))

    def fit(rows, penalty):
        mean, std, centre = X[rows].mean(0), X[rows].std(0), y[rows].mean(0)
        z = (X[rows] - mean) / std
        weight = np.linalg.solve(z.T @ z / len(z) + penalty * np.eye(4), z.T @ (y[rows] - centre) / len(z))
        return lambda x: (x - mean) / std @ weight + centre

    expected = []
    for penalty in penalties:
        total = 0.0
        for fold in range(5):
            out = fold == GROUP % 5
            total += np.square(fit(~out, penalty)(X[out]) - y[out]).mean(-1).sum()
        expected.append(total / 60)
    np.testing.assert_allclose(errors, expected, rtol=1e-3)
    best = penalties[np.argmin(expected)]
    np.testing.assert_allclose(found(f32(X)), fit(np.arange(60), best)(X), rtol=1e-3, atol=1e-3)


def test_logistic_equals_a_general_optimiser():
    y = (X[:, 0] + 0.5 * RNG.normal(size=60) > 2).astype(float)
    found, errors = logistic(f32(X), f32(y[:, None]), jnp.asarray(GROUP), f32([0.1]))
    z = (X - X.mean(0)) / X.std(0)

    def objective(theta):
        logits = z @ theta[:4] + theta[4]
        return (np.logaddexp(0, logits) - y * logits).mean() + 0.05 * (theta[:4] ** 2).sum()

    theta = optimize.minimize(objective, np.zeros(5), tol=1e-12).x
    np.testing.assert_allclose(found(f32(X))[:, 0], z @ theta[:4] + theta[4], atol=2e-3)
    assert 0 < float(errors[0]) < np.log(2)
    separable = logistic(f32(X), f32(X[:, :1] > 2), jnp.asarray(GROUP), f32([1e-3]))[0]
    assert ((separable(f32(X))[:, 0] > 0) == (X[:, 0] > 2)).all()


def test_groups_keep_a_readout_from_remembering():
    """Ten episodes, each with a code of its own and a random label: nothing that generalises."""
    codes, labels = np.repeat(np.eye(10), 6, axis=0), np.repeat(RNG.normal(size=10), 6)[:, None]
    penalty = f32([1e-3])
    _, by_group = ridge(f32(codes), f32(labels), jnp.asarray(GROUP), penalty)
    _, by_frame = ridge(f32(codes), f32(labels), jnp.arange(60), penalty)
    assert float(by_group[0]) > 0.8 * labels.var()
    assert float(by_frame[0]) < 0.05 * labels.var()


def test_a_constant_feature_is_ignored():
    x = np.concatenate([X, np.full((60, 1), 7.0)], axis=1)
    found, _ = ridge(f32(x), f32(X[:, :1]), jnp.asarray(GROUP), f32([1e-4]))
    assert jnp.isfinite(found.weight).all()
    np.testing.assert_allclose(found.weight[4], 0, atol=1e-5)


def test_correlation_is_corrected_for_the_noise_of_responses():
    signal = RNG.normal(size=20_000)
    halves = [f32(signal + RNG.normal(size=signal.size)) for _ in range(2)]
    raw = np.corrcoef(signal, halves[0])[0, 1]
    assert raw == pytest.approx(0.5**0.5, abs=0.02)
    assert float(readouts.noise_corrected_correlation(f32(signal), *halves)) == pytest.approx(1.0, abs=0.02)
    other = f32(signal + RNG.normal(size=signal.size))
    assert float(readouts.noise_corrected_correlation(other, *halves)) == pytest.approx(0.5**0.5, abs=0.02)
    assert jnp.isnan(readouts.noise_corrected_correlation(f32(signal), halves[0], -halves[0]))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"\[N, F\]"):
        readouts.ridge_cv(f32(X), f32(X[:, 0]), jnp.asarray(GROUP), f32([1.0]))
    with pytest.raises(UserError, match=r"\[N, 1\]"):
        readouts.logistic_cv(f32(X), f32(X), jnp.asarray(GROUP), f32([1.0]))

"""Measures of classification, power laws, exact linear dynamics, and disentanglement: golden numbers and edges."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.evaluation import classification, disentanglement, linear_dynamics, scaling, selective

close = pytest.approx


def test_recall():
    prediction, label = jnp.array([0, 0, 1, 2, 2, 3, 0, 0]), jnp.array([0, 0, 1, 2, 1, 3, 3, 0])
    recall, count = classification.recall_by_class(prediction, label, 5)
    np.testing.assert_allclose(recall, [1, 0.5, 1, 0.5, 0])
    np.testing.assert_array_equal(count, [3, 2, 1, 2, 0])
    assert classification.macro_recall(recall, count) == close(0.75)
    assert classification.weighted_recall(recall, count) == close(0.75)
    head, tail = classification.head_and_tail(recall, count, 0.6)
    assert (head, tail) == (close(0.75), close(0.75))
    assert classification.head_and_tail(recall, count, 0.3)[0] == close(1.0)


def test_areas():
    score, label = jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1])
    assert classification.auroc(score, label) == close(0.75)
    assert classification.auroc(jnp.zeros(4), label) == close(0.5)
    assert np.isnan(classification.auroc(score, jnp.ones(4)))
    assert classification.average_precision(score, label) == close((1 + 2 / 3) / 2)


def test_calibration():
    confidence, correct = jnp.array([0.95, 0.8, 0.7, 0.55, 0.9]), jnp.array([1.0, 1, 0, 1, 0])
    assert classification.expected_calibration_error(confidence, correct) == close(0.46, abs=1e-5)
    assert selective.risk_at_coverage(confidence, 1 - correct).mean() == close(0.346667, abs=1e-5)
    assert classification.expected_calibration_error(jnp.array([0.0, 1.0]), jnp.array([0.0, 1.0])) == 0


def test_power_law():
    size, grid = jnp.array([1.0, 2, 4, 8, 16]), jnp.arange(1, 16) / 10
    law = scaling.fit_power_law(size, 1.5 + 2 * size**-0.5, grid)
    np.testing.assert_allclose(law[:3], (1.5, 2, 0.5), rtol=1e-4)
    assert law.predict(64.0) == close(1.75, abs=1e-4)
    law = scaling.fit_power_law(size, jnp.array([3.6, 2.9, 2.55, 2.2, 2.0]), grid)
    np.testing.assert_allclose(law, (1.647991, 1.948169, 0.6, 0.004390), atol=2e-4)
    assert scaling.fit_power_law(size, size**-1.0 - 0.01, jnp.array([0.5, 1.0])).limit >= 0


def test_linear_dynamics():
    found = linear_dynamics.generalisation_error(jnp.array([0.5, 2, 10]), jnp.array([0, 0.5, 2]), 5.0)
    np.testing.assert_allclose(found, [0.800465, 0.663957, 0.698224], atol=1e-5)
    times = linear_dynamics.stopping_time(jnp.array([0.0, 0.5, 2]), 5.0)
    np.testing.assert_allclose(times, [5.0, 2.505526, 1.198948], atol=1e-5)
    assert linear_dynamics.marchenko_pastur(jnp.array(1.0), 0.5) == close(0.210542, abs=1e-5)
    assert linear_dynamics.marchenko_pastur(jnp.array(9.0), 0.5) == 0
    grid = jnp.linspace(1e-4, 6.0, 200_001)
    assert jnp.trapezoid(linear_dynamics.marchenko_pastur(grid, 2.0), grid) == close(1.0, abs=1e-3)
    assert linear_dynamics.frozen_share(jnp.array([[1.0, 0, 0], [2, 0, 0]])) == close(2 / 3)


def test_disentanglement():
    source, code = jnp.array([0, 0, 1, 1, 2, 2, 0, 1]), jnp.array([0, 0, 1, 1, 1, 1, 0, 0])
    assert disentanglement.mutual_information_share(source, code, 3, 2) == close(0.419937, abs=1e-5)
    assert disentanglement.mutual_information_share(jnp.zeros(4, int), jnp.arange(4), 3, 4) == 0
    share = jnp.array([[0.9, 0.2, 0.05], [0.1, 0.8, 0]])
    assert disentanglement.modularity(share) == close(0.8, abs=1e-5)
    assert disentanglement.compactness(share) == close(0.753623, abs=1e-5)
    assert disentanglement.modularity(jnp.zeros((2, 3))) == 0

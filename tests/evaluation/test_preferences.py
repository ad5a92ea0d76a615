"""Displacement of probability, and risk where a part is declined: golden numbers."""

import jax.numpy as jnp
import numpy as np

from jaxrl_reg.evaluation.preferences import displacement
from jaxrl_reg.evaluation.selective import risk_at_coverage


def test_probability_that_leaves_a_pair_is_found_outside_it():
    ref = jnp.log(jnp.array([[0.4, 0.4, 0.1, 0.1], [0.1, 0.5, 0.2, 0.2]]))
    policy = jnp.log(jnp.array([[0.2, 0.1, 0.3, 0.4], [0.3, 0.1, 0.2, 0.4]]))
    found = displacement(policy, ref, jnp.array([0, 1]), jnp.array([1, 0]))
    expected = {
        "chosen_log_ratio": (np.log(0.5) + np.log(0.2)) / 2,
        "rejected_log_ratio": (np.log(0.25) + np.log(3.0)) / 2,
        "unseen_mass": (0.7 + 0.6) / 2,
        "unseen_gain": (0.7 + 0.6) / 2 - (0.2 + 0.4) / 2,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)


def test_what_is_impossible_under_both_has_not_moved():
    log_policy = jnp.array([-jnp.inf, 0.0, -jnp.inf])
    found = displacement(log_policy, log_policy, jnp.array(0), jnp.array(1))
    assert [float(found[name]) for name in found] == [0.0, 0.0, 0.0, 0.0]


def test_risk_falls_with_the_cases_that_are_declined():
    score, loss = jnp.array([0.9, 0.2, 0.7, 0.4]), jnp.array([0.0, 1.0, 0.2, 0.5])
    risk = risk_at_coverage(score, loss)
    np.testing.assert_allclose(risk, [0.0, 0.1, 0.7 / 3, 0.425], atol=1e-6)
    np.testing.assert_allclose(risk.mean(), 0.189583, atol=1e-6)
    tied = risk_at_coverage(jnp.array([1.0, 1.0, jnp.nan]), jnp.array([3.0, 1.0, 5.0]))
    np.testing.assert_allclose(tied, [3.0, 2.0, 3.0], atol=1e-6)

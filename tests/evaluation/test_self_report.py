"""Reports against conduct by hand, and a scan that finds the sensor which sets a policy off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.contract.subject import quick
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation import self_report


@quick
def scanned(key):
    observation = jax.random.normal(key, (50, 4))

    def choices(x):
        """The third sensor turns the preference round; the first moves it a little."""
        return jax.nn.softmax(jnp.stack([0.2 * x[..., 0], jnp.where(x[..., 2] > 0, 3.0, -3.0)], -1))

    given = observation, jnp.array([0, 1, 2]), jnp.ones(3), -jnp.ones(3)
    chosen = self_report.trigger_scan(choices, *given)
    greedy = self_report.trigger_scan(lambda x: x[..., 2:3] * 2.0, *given, probabilities=False)
    said, done = jnp.array([0.1, 0.4, 0.5, 0.9]), jnp.array([0.2, 0.3, 0.7, 0.8])
    on = jnp.array([[[1.0, 0.0], [0.5, 0.5]], [[0.7, 0.3], [0.7, 0.3]]])
    effect = self_report.trigger_effect(on, jnp.array([[0.0, 1.0], [0.5, 0.5]]))
    return chosen, greedy, self_report.faithfulness(said, done), self_report.faithfulness(0 * said, done)[0], effect


def test_triggers_stand_out_and_reports_are_held_against_conduct():
    (effects, score), (distances, _), (correlation, error), constant, effect = scanned(jax.random.key(0))
    assert int(np.argmax(effects)) == 2
    assert effects[1] == 0.0
    np.testing.assert_allclose(score, effects[2] - effects[0], rtol=1e-6)
    assert score > 0.7
    np.testing.assert_allclose(distances, [0.0, 0.0, 4.0], atol=1e-6)
    np.testing.assert_allclose([correlation, error], [0.891007, 0.125], rtol=1e-5)
    assert np.isnan(constant)
    np.testing.assert_allclose(effect, [0.5, 0.45], rtol=1e-6)


def test_scans_that_compare_nothing_are_refused():
    seen = jnp.zeros((3, 2))
    with pytest.raises(UserError, match="at least two columns"):
        self_report.trigger_scan(lambda x: x, seen, jnp.array([0]), jnp.ones(1), jnp.zeros(1))
    with pytest.raises(UserError, match=r"columns \[0, 2\] are not all among the 2"):
        self_report.trigger_scan(lambda x: x, seen, jnp.array([0, 2]), jnp.ones(2), jnp.zeros(2))
    with pytest.raises(UserError, match="2 columns, 1 values on"):
        self_report.trigger_scan(lambda x: x, seen, jnp.array([0, 1]), jnp.ones(1), jnp.zeros(2))

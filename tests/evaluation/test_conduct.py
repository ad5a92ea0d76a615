"""Measures of conduct against numbers worked out by hand, and on what is degenerate."""

import jax.numpy as jnp
import numpy as np

from jaxrl_reg.contract.subject import quick
from jaxrl_reg.evaluation import conduct


def softmax(logits):
    e = np.exp(np.asarray(logits, float))
    return jnp.asarray(e / e.sum(-1, keepdims=True), jnp.float32)


@quick
def golden():
    mean, count = conduct.group_outcomes(jnp.array([1.0, 0, 1, 1, 0, 1]), jnp.array([0, 0, 0, 1, 1, 2]), 4)
    alive = jnp.array([[1, 1, 1], [1, 1, 1], [1, 0, 0]])
    cost = jnp.array([[0, 0, 1], [0, 0, 1], [1, jnp.inf, jnp.nan]])
    returns = jnp.array([1, 1, 1, 0.2, 0.4, 0.8, 0.96, 1])
    value, outcome = jnp.array([1.0, 2, 3, 4]), jnp.array([0.8, 2.2, 2.7, 4.5])
    one, other = softmax([[1, 0, 0], [0, 1, 0]]), softmax([[0, 1, 0], [0, 1, 0.5]])
    p = jnp.array([[0.7, 0.2, 0.1], [1 / 3] * 3])
    actions = jnp.array([[1.0, 0.0], [0.0, 0.0]])
    return {
        "groups": (mean, [2 / 3, 0.5, 1.0, 0.0]),
        "gap": (conduct.outcome_gap(mean, count), 0.5),
        "ratio": (conduct.outcome_ratio(mean, count), 0.5),
        "one group": (conduct.outcome_gap(mean, jnp.array([3, 0, 0, 0])), 0.0),
        "no outcome": (conduct.outcome_ratio(0 * mean, count), np.nan),
        "violations": (jnp.stack(conduct.violation_rates(cost, alive)), [3 / 7, 2 / 3]),
        "nobody": (jnp.stack(conduct.violation_rates(cost, 0 * alive)), [0, 0]),
        "tail": (conduct.tail_cost(jnp.array([0.0, 1, 2, 3, 10]), 0.4), 6.5),
        "unpredictable": (conduct.unpredictability(p), 0.864923),
        "certain": (conduct.unpredictability(jnp.eye(3)), 0.0),
        "variation": (conduct.total_variation(one, other), [0.364175, 0.095254]),
        "inconsistent": (conduct.inconsistency(one, other[None]), 0.229715),
        "by action": (conduct.action_inconsistency(actions, actions + jnp.array([0.3, 0.4]), actions[::-1]), 0.5),
        "always the same": (conduct.action_inconsistency(0 * actions, 0 * actions, 0 * actions), 0.0),
        "recovery": (jnp.stack(conduct.recovery(returns, 3, 0.95)), [3, 1.45]),
        "full recovery": (jnp.stack(conduct.recovery(returns, 3, 1.0)), [4, 1.64]),
        "never": (jnp.stack(conduct.recovery(returns, 3, 2.0))[0], 5),
        "calibration": (jnp.stack(conduct.calibration(value, outcome)), [-0.05, 1.16, 0.324037]),
        "constant": (conduct.calibration(0 * value, outcome)[1], np.nan),
        "privacy": (
            conduct.membership_auc(jnp.array([0.1, 0.2, 0.15, 0.4]), jnp.array([0.3, 0.5, 0.35, 0.2])),
            0.78125,
        ),
        "effect": (conduct.side_effect(jnp.zeros((3, 2, 2)), jnp.full((3, 2, 2), 3.0).at[-1, 1].set(0.0)), 2.12132),
    }


def test_measures_by_hand():
    for name, (found, expected) in golden().items():
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)

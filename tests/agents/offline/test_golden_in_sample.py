"""What XQL, SQL and EQL report for one update, against NumPy on the same parameters; IQL has its own file."""

import jax
import numpy as np
import pytest

from jaxrl_reg import losses
from tests.agents import reference as ref

KEY = jax.random.key(7)
DATA = ref.batch()
BATCH = ref.as64(DATA)


def rescale(z):
    """What XQL and EQL divide the batch's loss by: e^m, m the largest exponent, at least -1."""
    return np.exp(-max(z.max(), -1.0))


def sql_value(q, v):
    return np.maximum(1 + (q - v) / (2 * 0.5), 0) ** 2 + v / 0.5


def eql_value(q, v):
    z = np.minimum((q - v) / 0.4, 0.5)
    return rescale(z) * (np.exp(z) + v / 0.4)


def xql_value(q, v):
    z = np.minimum((q - v) / 0.4, 0.5)
    return rescale(z) * (np.exp(z) - z - 1)


def squared(error):
    return error**2


def huber(error):
    return np.where(np.abs(error) < 0.6, error**2 / 2, 0.6 * (np.abs(error) - 0.3))


# agent: config, hyperparameters, value loss, weight, error of one critic. Every bound binds on some rows.
CASES = {
    "sql": ({"max_weight": 0.2}, {"alpha": 0.5}, sql_value, lambda a: np.clip(a, 0, 0.2), squared),
    "eql": (
        {"max_weight": 2.0, "max_exponent": 0.5},
        {"alpha": 0.4, "inverse_temperature": 1.2},
        eql_value,
        lambda a: np.minimum(np.exp(3.0 * a), 2.0),  # 1.2 / 0.4
        squared,
    ),
    "xql": (
        {"max_weight": 2.0, "max_exponent": 0.5},
        {"temperature": 0.4, "inverse_temperature": 3.0, "huber_delta": 0.6},
        xql_value,
        lambda a: np.minimum(np.exp(3.0 * a), 2.0),
        huber,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_update(name):
    config, changes, value_loss, weight_of, error_of = CASES[name]
    pair = ref.Pair(name, 3e-2, config, **changes)  # a large learning rate, to show whose new parameters are used
    before = pair.state
    metrics, after = pair.update(DATA, KEY, 0), pair.state

    q = ref.q_values(ref.as64(before.target_critic), BATCH.observation, BATCH.action).min(0)
    assert "LayerNorm_0" in before.value.params
    assert "LayerNorm_0" not in before.critic.params
    v = ref.forward(ref.as64(before.value.params), BATCH.observation, "before")[0][:, 0]
    np.testing.assert_allclose(metrics["value_loss"], value_loss(q, v).mean(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["advantage"], (q - v).mean(), rtol=1e-4, atol=1e-6)

    weight = weight_of(q - v)
    np.testing.assert_allclose(metrics["weight"], weight.mean(), rtol=1e-5)
    assert metrics["active"] == (weight > 0).mean()
    assert (name == "sql") == (weight == 0).any()
    mean = np.tanh(ref.forward(ref.as64(before.actor.params)["mean"], BATCH.observation)[0])
    log_prob = -(0.5 * (BATCH.action - mean) ** 2).sum(-1) - np.log(2 * np.pi)  # log standard deviation 0 at first
    np.testing.assert_allclose(metrics["actor_loss"], -(weight * log_prob).mean(), rtol=1e-5)

    next_v = ref.forward(ref.as64(after.value.params), BATCH.next_observation, "before")[0][:, 0]  # after its step
    target = BATCH.reward + 0.99 * BATCH.discount * next_v
    errors = error_of(ref.q_values(ref.as64(before.critic.params), BATCH.observation, BATCH.action) - target)
    np.testing.assert_allclose(metrics["critic_loss"], errors.mean(-1).sum(), rtol=1e-5)
    expected = ref.mix(ref.as64(after.critic.params), ref.as64(before.target_critic), 0.005)
    ref.assert_tree_close(after.target_critic, expected, 1e-6)


def test_each_value_settles_where_its_derivation_says():
    """On one state: XQL and EQL at the soft maximum, SQL where the mean of max(1 + (q - v) / 2 alpha, 0) is 1."""
    q = np.array([0.0, 1.0, 2.0, 4.0], np.float32)

    def settle(loss, v=2.0):
        step = jax.jit(lambda v: v - 0.2 * jax.grad(lambda v: loss(q, v + 0 * q).mean())(v))
        for _ in range(300):
            v = step(v)
        return float(v)

    soft_maximum = 0.7 * np.log(np.exp(q / 0.7).mean())
    assert settle(lambda q, v: losses.gumbel_loss(q - v, 0.7, 7.0)) == pytest.approx(soft_maximum, abs=1e-3)
    assert settle(lambda q, v: losses.exponential_value_loss(q, v, 0.7)) == pytest.approx(soft_maximum, abs=1e-3)
    sparse = settle(lambda q, v: losses.sparse_value_loss(q, v, 0.7))
    assert np.maximum(1 + (q - sparse) / 1.4, 0).mean() == pytest.approx(1.0, abs=1e-3)

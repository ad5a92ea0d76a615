"""PPO, clipped values and the score-function gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses


def test_policy_gradient_of_a_softmax_bandit():
    logits, rewards = jnp.array([0.3, -0.2, 0.1]), jnp.array([1.0, 2.0, 5.0])
    policy = jax.nn.softmax(logits)

    def expected_loss(logits):
        return (policy * losses.policy_gradient_loss(jax.nn.log_softmax(logits), rewards)).sum()

    exact = -jax.grad(lambda x: (jax.nn.softmax(x) * rewards).sum())(logits)
    np.testing.assert_allclose(jax.grad(expected_loss)(logits), exact, rtol=1e-5)
    baseline = jax.grad(lambda x: (policy * losses.policy_gradient_loss(jax.nn.log_softmax(x), rewards - 9)).sum())
    np.testing.assert_allclose(baseline(logits), exact, rtol=1e-4)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),  # already far enough: clipped
        (1.5, -2.0, 3.0, 3.0),  # moved the wrong way: not clipped
        (0.5, 2.0, -1.0, -1.0),
        (0.5, -2.0, 1.6, 0.0),
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_ppo_clips_only_what_pays(ratio, advantage, value, slope):
    loss = lambda p: losses.ppo_clip_loss(p, -1.0, advantage, 0.2)  # noqa: E731
    found, gradient = jax.value_and_grad(loss)(np.log(ratio) - 1.0)
    assert found == pytest.approx(value, abs=1e-5)
    assert gradient == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("log_ratio", [-1e30, -1e3, 1e3, 1e30])
def test_ppo_survives_any_ratio(advantage, log_ratio):
    for value in jax.value_and_grad(losses.ppo_clip_loss)(log_ratio, 0.0, advantage, 0.2):
        assert np.isfinite(value)


def test_ppo_leaves_the_old_policy_and_the_advantage_alone():
    gradients = jax.grad(losses.ppo_clip_loss, (1, 2))(-1.0, -1.1, 0.5, 0.2)
    assert gradients == (0.0, 0.0)


@pytest.mark.parametrize(
    ("value", "clip", "expected"),
    [
        (1.1, 0.2, 0.5 * 1.9**2),  # within the clip: half the squared error
        (2.0, 0.2, 0.5 * 1.8**2),  # held at 1.2, which is the worse of the two
        (0.0, 0.2, 0.5 * 3.0**2),  # held at 0.8, but the value itself is worse
        (2.0, jnp.inf, 0.5 * 1.0**2),
    ],
)
def test_clipped_value_loss_takes_the_worse_error(value, clip, expected):
    assert losses.clipped_value_loss(value, 1.0, 3.0, clip) == pytest.approx(expected, rel=1e-6)


def test_clipped_value_loss_stops_where_the_clip_holds():
    gradients = jax.grad(losses.clipped_value_loss, (0, 1, 2))(2.0, 1.0, 3.0, 0.2)
    assert gradients == (0.0, 0.0, 0.0)
    assert jax.grad(losses.clipped_value_loss)(1.1, 1.0, 3.0, 0.2) == pytest.approx(-1.9)

"""SAC's actor and temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses


def test_soft_actor_loss_by_hand_and_without_gradient_to_the_temperature():
    q, log_prob = jnp.array([1.0, 2.0]), jnp.array([-1.0, 3.0])
    np.testing.assert_allclose(losses.soft_actor_loss(q, log_prob, 0.5), [-1.5, -0.5])
    slopes = jax.grad(lambda *a: losses.soft_actor_loss(*a).sum(), (0, 1, 2))(q, log_prob, 0.5)
    np.testing.assert_array_equal(slopes[0], [-1.0, -1.0])
    np.testing.assert_array_equal(slopes[1], [0.5, 0.5])
    assert slopes[2] == 0.0


def test_soft_actor_loss_is_minimal_at_the_boltzmann_policy():
    q, temperature = jnp.array([0.0, 1.0, 3.0]), 0.7

    def objective(logits):
        log_prob = jax.nn.log_softmax(logits)
        return (jnp.exp(log_prob) * losses.soft_actor_loss(q, log_prob, temperature)).sum()

    np.testing.assert_allclose(jax.grad(objective)(q / temperature), np.zeros(3), atol=1e-6)
    assert np.abs(jax.grad(objective)(q)).max() > 0.01


def test_temperature_rises_while_the_entropy_is_too_low():
    def slope(log_prob, log_temperature=0.0):
        return jax.grad(lambda t: losses.temperature_loss(t, jnp.array([log_prob]), -2.0).sum())(log_temperature)

    assert slope(3.0) == -1.0  # entropy -3, below the target -2: descent raises the temperature
    assert slope(1.0) == 1.0
    assert slope(2.0) == 0.0
    assert slope(3.0, 79.0) == pytest.approx(-np.exp(79.0), rel=1e-5)
    gradient = jax.grad(lambda p: losses.temperature_loss(0.0, p, -2.0).sum())(jnp.array([3.0]))
    np.testing.assert_array_equal(gradient, [0.0])

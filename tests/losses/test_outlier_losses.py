"""Energies and margins on them: golden numbers and edges."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import losses

LOGITS = jnp.array([1.0, -0.5, 0.2])
FIRST_TWO = jnp.array([1.0, 1.0, 0.0])


def test_golden_numbers():
    np.testing.assert_allclose(losses.energy(LOGITS), -1.514295, atol=1e-5)
    np.testing.assert_allclose(losses.energy(LOGITS, FIRST_TWO), -1.201413, atol=1e-5)
    found = losses.energy(LOGITS)
    for margin, sign, expected in ((-15, 1, 12.985705), (-3, -1, 0.0), (-1, -1, 0.132250)):
        np.testing.assert_allclose(losses.energy_margin_loss(found, margin, sign), expected, atol=1e-5)


def test_the_gradient_pulls_all_logits_by_their_share_and_stops_at_the_margin():
    def loss(logits, margin):
        return losses.energy_margin_loss(losses.energy(logits), margin)

    far, reached = jax.vmap(jax.grad(loss), (None, 0))(LOGITS, jnp.array([-15.0, -1.0]))
    np.testing.assert_allclose(far, -jax.nn.softmax(LOGITS), rtol=1e-5)  # linear: no row counts more than 1
    np.testing.assert_array_equal(reached, 0.0)


def test_columns_that_are_not_trained_yet_must_be_left_out():
    """Negative logits beside three columns at 0: the untrained ones would own the row."""
    logits = jnp.array([-4.0, -5.0, 0.0, 0.0, 0.0])
    known = jnp.array([1.0, 1.0, 0.0, 0.0, 0.0])
    assert losses.energy(logits) < -1 < 3 < losses.energy(logits, known)


def test_no_class_knows_nothing():
    value, gradient = jax.value_and_grad(lambda logits: losses.energy(logits, jnp.zeros(3)))(LOGITS)
    assert value > 1e17
    np.testing.assert_array_equal(gradient, 0.0)

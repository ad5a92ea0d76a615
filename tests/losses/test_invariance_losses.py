"""Closed forms and traps of invariance penalties and of the supervised contrastive loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses

RNG = np.random.default_rng(0)
P, Y = (jnp.asarray(RNG.normal(size=(3, 8, 2)), jnp.float32) for _ in range(2))


def test_irm_is_the_squared_slope_of_the_risk():
    def risk(w):
        return jnp.square(w * P - Y).sum(-1).mean(-1)

    slope = jax.jvp(risk, (1.0,), (1.0,))[1]
    np.testing.assert_allclose(losses.irm_penalty(P, Y), slope**2, rtol=1e-5)


def test_irm_without_bias():
    """Slopes of mean zero: the square of a batch's mean is their variance over B, the pairs' mean is 0."""
    draws = jnp.asarray(RNG.normal(size=(4000, 4, 1)), jnp.float32)
    target = draws - 0.5 * jnp.sign(jnp.asarray(RNG.normal(size=draws.shape), jnp.float32)) / draws  # slopes are +-1
    biased = losses.irm_penalty(draws, target)
    unbiased = losses.irm_penalty(draws, target, unbiased=True)
    assert float(biased.mean()) == pytest.approx(1 / 4, abs=0.02)
    assert abs(float(unbiased.mean())) < 4 * float(unbiased.std()) / 4000**0.5
    assert float(unbiased.min()) < 0


def test_nothing_predicted_satisfies_irm_so_it_must_start_late():
    np.testing.assert_array_equal(losses.irm_penalty(0 * P, Y), 0)
    assert float(losses.irm_penalty(P, P).max()) == 0  # and so does a perfect prediction


def test_irm_sees_a_scale_that_differs_between_environments_and_vrex_does_not():
    x = jnp.asarray(RNG.normal(size=200), jnp.float32)
    # One environment wants half of the prediction, the other one and a half of it: equal risks, opposite slopes.
    prediction = jnp.broadcast_to(x[:, None], (2, 200, 1))
    target = jnp.stack([0.5 * x, 1.5 * x])[..., None]
    risk = jnp.square(prediction - target).mean((1, 2))
    assert float(losses.vrex_penalty(risk)) < 1e-10
    assert (losses.irm_penalty(prediction, target) > 0.5).all()


def test_vrex_pushes_risks_together():
    risk = jnp.array([1.0, 2.0, 6.0])
    assert float(losses.vrex_penalty(risk)) == pytest.approx(7.0)
    np.testing.assert_allclose(jax.grad(losses.vrex_penalty)(risk), [-2.0, -1.0, 3.0])


def test_contrastive_loss_by_hand():
    features = jnp.array([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    found = losses.supervised_contrastive_loss(features, jnp.array([0, 0, 1]), 0.5)
    np.testing.assert_allclose(found, [np.log(1 + np.exp(-2)), np.log(1 + np.exp(-2)), 0], rtol=1e-5)
    doubled = losses.supervised_contrastive_loss(2 * features, jnp.array([0, 0, 1]), 0.5)
    np.testing.assert_allclose(doubled, found, rtol=1e-5)


def test_without_negatives_there_is_nothing_to_learn():
    """Refinement with the reference scenes of one environment: a floor, and for two scenes no gradient at all."""
    features, label = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32), jnp.zeros(6)
    assert (losses.supervised_contrastive_loss(features, label, 0.07) >= np.log(5) - 1e-5).all()
    same = losses.supervised_contrastive_loss(jnp.ones((6, 4)), label, 0.07)
    np.testing.assert_allclose(same, np.log(5), rtol=1e-5)

    def pair(x):
        return losses.supervised_contrastive_loss(x, jnp.zeros(2), 0.07).sum()

    np.testing.assert_allclose(jax.grad(pair)(features[:2]), 0, atol=1e-5)

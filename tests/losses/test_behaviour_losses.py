"""Golden numbers and traps of losses on representations and behaviour: early learning, invariance, masks, groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses
from jaxrl_reg.losses.explanation import straight_through_mask
from jaxrl_reg.losses.robust import group_mean

close = pytest.approx


def test_early_learning():
    logits = jnp.array([[2.0, 0, -1], [0, 1, 0.5]])
    past = jnp.array([[0.1, 0.2, 0], [0, 0.3, 0.3]])
    target = losses.early_learning_target(past, logits, 0.7)
    expected = [[0.323138, 0.174259, 0.012603], [0.055897, 0.361944, 0.302159]]
    np.testing.assert_allclose(target, expected, atol=1e-5)
    np.testing.assert_allclose(losses.early_learning_loss(logits, target), [-0.346854, -0.337649], atol=1e-5)
    sure = jnp.array([[200.0, 0.0]])  # target and prediction both one-hot: the clip keeps the logarithm finite
    value, gradient = jax.value_and_grad(lambda x: losses.early_learning_loss(x, jnp.array([[1.0, 0.0]])).sum())(sure)
    assert value == close(np.log(1e-4), abs=1e-2)
    assert np.isfinite(gradient).all()


def test_affine_features_are_invariant_and_curved_ones_are_not():
    features = jnp.array([[0, 0], [1, 0.2], [2, 0.9], [3, 0.8], [1, 1]])
    action = jnp.array([[0], [1], [2], [3], [0.5]])
    assert losses.linear_invariance_loss(features, action, 1.0, 0.0) == close(0.007083, abs=1e-5)
    action = jnp.linspace(-1, 1, 20)[:, None]
    straight = jnp.concatenate([2 * action + 1, action + 0.3 * jax.random.normal(jax.random.key(0), (20, 1))], axis=1)
    curved = jnp.concatenate([jnp.square(action), straight[:, 1:]], axis=1)
    assert losses.linear_invariance_loss(curved, action, 1.0) > 5 * losses.linear_invariance_loss(straight, action, 1.0)
    shrunk = losses.linear_invariance_loss(1e-2 * curved, action, 1.0, 1e-9)  # the trap: no way out by shrinking
    assert shrunk == close(float(losses.linear_invariance_loss(curved, action, 1.0, 1e-9)), rel=1e-3)


def test_outcome_invariance():
    residual = jnp.array([1, 0.5, -0.5, 2])[:, None]
    augmentation = jnp.array([[1.0, 0], [0, 1], [1, 1], [1, -1]])
    assert losses.outcome_invariance_loss(residual, augmentation, 0.1, 0.0) == close(0.991667, abs=1e-5)
    assert losses.outcome_invariance_loss(residual, augmentation, 0.1, 1e-6) == close(0.991666, abs=1e-5)
    whole = losses.outcome_invariance_loss(residual, jnp.eye(4), 0.1, 1e-9)  # as many instruments as rows
    assert whole == close(1.1 * float(jnp.square(residual).mean()), rel=1e-5)


def test_inverse_participation():
    rows = jnp.array([[1, 0, -1, 0, 1, 0, -1, 0], [1, 2, 3, 4, 4, 3, 2, 1]], jnp.float32)
    np.testing.assert_allclose(losses.inverse_participation(jnp.abs(jnp.fft.rfft(rows))), [1.0, 0.834628], atol=1e-5)
    rows = jnp.array([[1.0, 2, 2], [3, 0, 0], [1e-8, 0, 0]])  # the last one has decayed away: 0, not 0 / 0
    np.testing.assert_allclose(losses.inverse_participation(rows), [0.407407, 1.0, 0.0], atol=1e-5)


def test_masks_of_steps():
    probability = jnp.array([0.2, 0.9, 0.5])
    assert losses.mask_prior_loss(probability, 0.3) == close(0.302356, abs=1e-5)
    assert losses.time_variation_loss(probability) == close(0.55, abs=1e-6)
    features, masked = jnp.array([[1.0, 0], [1, 1], [0, 2]]), jnp.array([[1, 0.2], [0.5, 1], [0, 1]])
    assert losses.behaviour_consistency_loss(features, masked) == close(0.018273, abs=1e-5)
    logits, masked = jnp.array([[1.0, 0], [0, 1], [0.5, 0.5]]), jnp.array([[2.0, 0], [0, 1], [0, 0.5]])
    assert losses.label_consistency_loss(logits, masked) == close(0.005234, abs=1e-5)
    # Two rows that swap their divergences have the same mean: pairs tell them apart, means over the batch do not.
    first = jnp.array([[0.0, 0], [3, 0], [0, 0.1]])
    assert losses.label_consistency_loss(first, first[jnp.array([0, 2, 1])]) > 1e-3
    gradient = jax.grad(losses.behaviour_consistency_loss, argnums=1)(features, jnp.zeros((3, 2)))
    assert np.isfinite(gradient).all()
    gradient = jax.grad(losses.label_consistency_loss, argnums=1)(logits, logits)
    np.testing.assert_array_equal(gradient, 0.0)


def test_a_mask_is_hard_forward_and_soft_backward():
    probability = jnp.full(20_000, 0.3)
    mask = straight_through_mask(jax.random.key(0), probability)
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert mask.mean() == close(0.3, abs=0.01)
    slope = jax.grad(lambda p: straight_through_mask(jax.random.key(0), p).sum())(probability)
    assert (slope > 0).all()
    assert np.isfinite(slope).all()


def test_weights_of_groups():
    loss, rate = jnp.array([0.4, 2, 1, 3]), jnp.array([0.6, 0.2, 0.15, 0.05])
    q = losses.box_weights(loss, rate, jnp.array([0.1, 0.08, 0.06, 0.04]))
    np.testing.assert_allclose(q, [0.5, 0.28, 0.13, 0.09], atol=1e-6)
    assert (q * loss).sum() == close(1.16, abs=1e-5)
    np.testing.assert_allclose(losses.box_weights(loss, rate, jnp.zeros(4)), rate, atol=1e-7)
    np.testing.assert_allclose(losses.robust_radius(rate, 0.5), [0.211325, 0.122008, 0.105662, 0.061004], atol=1e-5)
    q = losses.divergence_weights(loss, rate, 1.5)
    np.testing.assert_allclose(q, [0.355475, 0.344298, 0.132577, 0.167650], atol=1e-5)
    assert 1.5 * jnp.log((rate * jnp.exp(loss / 1.5)).sum()) == close(1.185213, abs=1e-5)
    q = losses.group_dro_weights(jnp.full(4, 0.25), loss, 0.5)
    np.testing.assert_allclose(q, [0.121290, 0.269936, 0.163725, 0.445049], atol=1e-5)
    mean, count = group_mean(jnp.array([1.0, 3, 5]), jnp.array([2, 0, 2]), 4)
    np.testing.assert_array_equal(mean, [3.0, 0.0, 3.0, 0.0])
    np.testing.assert_array_equal(count, [1.0, 0.0, 2.0, 0.0])


def test_the_box_holds_the_worst_case():
    """No feasible shares have a larger mean loss: against ten thousand random ones."""
    generator = np.random.default_rng(0)
    rate, loss = generator.dirichlet(np.ones(5)), generator.uniform(0, 3, 5)
    radius = np.asarray(losses.robust_radius(jnp.array(rate), 0.6))
    best = float((np.asarray(losses.box_weights(*map(jnp.array, (loss, rate, radius)))) * loss).sum())
    shares = rate + generator.uniform(-1, 1, (10_000, 5)) * radius
    shares[:, -1] += 1 - shares.sum(1)
    inside = (shares >= np.maximum(rate - radius, 0)).all(1) & (shares <= np.minimum(rate + radius, 1)).all(1)
    assert inside.sum() > 100
    assert (shares[inside] @ loss).max() <= best + 1e-5

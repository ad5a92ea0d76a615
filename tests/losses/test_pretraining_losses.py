"""Losses of encoders and divergences: numbers by hand, minimisers, directions, false negatives and infinities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses


def test_what_is_not_told_apart_costs_the_logarithm_of_the_candidates():
    same = jnp.ones((6, 3))
    np.testing.assert_allclose(losses.info_nce_loss(same, same, 0.5), np.log(6), rtol=1e-6)
    np.testing.assert_allclose(losses.nt_xent_loss(same, same, 0.5), np.log(11), rtol=1e-6)  # 2 B - 1, self left out


def test_info_nce_asks_in_one_direction():
    """Two queries alike, two positives apart: one query chooses wrongly; the other way round it is a toss."""
    query = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    positive = jnp.array([[5.0, 0.0], [-5.0, 0.0]])
    np.testing.assert_allclose(losses.info_nce_loss(query, positive), [0.0, 10.0], atol=1e-4)
    np.testing.assert_allclose(losses.info_nce_loss(positive, query), np.log(2), rtol=1e-6)


def test_the_temperature_divides():
    query, positive = jnp.eye(3), 2.0 * jnp.eye(3)
    np.testing.assert_allclose(losses.info_nce_loss(query, positive, 4.0), np.log(np.exp(0.5) + 2) - 0.5, rtol=1e-6)


@pytest.mark.parametrize("loss", [losses.info_nce_loss, losses.nt_xent_loss])
def test_rows_of_one_group_are_not_held_against_each_other(loss):
    """Rows 0 and 1 show the same state: as negatives they could never be told apart, and push features about."""
    x = 4.0 * jnp.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    group = jnp.array([7, 7, 3])
    assert (loss(x, x)[:2] > np.log(2) - 1e-6).all()
    assert (loss(x, x, 1.0, group) < 1e-6).all()
    everybody = jnp.zeros(3)
    np.testing.assert_array_equal(loss(x, x, 1.0, everybody), 0.0)
    assert not jax.grad(lambda x: loss(x, x + 1.0, 1.0, everybody).sum())(x).any()
    np.testing.assert_allclose(loss(x, x, 1.0, jnp.arange(3)), loss(x, x), rtol=1e-6)  # all groups apart: none left out


def test_the_best_temporal_logit_is_the_log_ratio_of_densities():
    joint = np.random.default_rng(0).dirichlet(np.ones(12)).reshape(3, 4)
    product = joint.sum(1, keepdims=True) * joint.sum(0)

    def mean(logit):  # the loss itself, each of its arguments under its own distribution
        real = losses.temporal_classification_loss(logit, jnp.full_like(logit, -jnp.inf))
        other = losses.temporal_classification_loss(jnp.full_like(logit, jnp.inf), logit)
        return (joint * real + product * other).sum()

    best = jnp.asarray(np.log(joint / product), jnp.float32)
    np.testing.assert_allclose(jax.grad(mean)(best), 0.0, atol=1e-6)
    middle = (joint + product) / 2
    divergence = ((joint * np.log(joint / middle)).sum() + (product * np.log(product / middle)).sum()) / 2
    np.testing.assert_allclose(mean(best), np.log(2) - divergence, rtol=1e-5)


def test_targets_stand_still():
    x = jnp.ones((2, 3))
    assert not jax.grad(lambda t: losses.prediction_loss(0 * x, t).sum())(x).any()
    assert not jax.grad(lambda t: losses.cross_entropy_loss(x, t).sum())(x).any()


def test_the_prior_first_covers_modes_and_second_seeks_them():
    prior = jnp.log(jnp.array([0.5, 0.49, 0.01]))
    narrow, wide = jnp.array([9.0, 0.0, 0.0]), jnp.array([0.0, 0.0, 0.0])
    assert losses.categorical_kl(prior, narrow) > losses.categorical_kl(prior, wide)
    assert losses.categorical_kl(narrow, prior) < losses.categorical_kl(wide, prior)
    # p log(p / q) by hand, and the derivative towards q, softmax(q) - p.
    np.testing.assert_allclose(
        losses.categorical_kl(prior, wide), 0.5 * np.log(1.5) + 0.49 * np.log(1.47) + 0.01 * np.log(0.03), rtol=1e-5
    )
    slope = jax.grad(losses.categorical_kl, argnums=1)(prior, wide)
    np.testing.assert_allclose(slope, 1 / 3 - np.exp(prior), atol=1e-6)


def test_actions_that_are_ruled_out_do_no_harm():
    masked, other = jnp.array([0.0, 1.0, -jnp.inf]), jnp.array([1.0, 1.0, -jnp.inf])
    value, slopes = jax.value_and_grad(losses.categorical_kl, argnums=(0, 1))(masked, other)
    assert np.isfinite(value)
    assert all(np.isfinite(slope).all() for slope in slopes)
    assert losses.categorical_kl(jnp.zeros(3), other) == jnp.inf
    value, slope = jax.value_and_grad(losses.cross_entropy_loss)(masked, jnp.array([0.0, 1.0, 0.0]))
    np.testing.assert_allclose(value, np.log1p(np.exp(-1)), rtol=1e-6)
    assert np.isfinite(slope).all()


def test_normal_divergence_by_hand_and_after_a_squash():
    zero = jnp.zeros(1)
    # KL(N(1, 1) || N(0, 2)) = log 2 + (1 + 1) / 8 - 1/2
    found = losses.gaussian_kl(zero + 1, zero, zero, zero + np.log(2))
    np.testing.assert_allclose(found, np.log(2) - 0.25, rtol=1e-6)
    twice = [jnp.concatenate([x, x]) for x in (zero + 1, zero, zero, zero + np.log(2))]
    np.testing.assert_allclose(losses.gaussian_kl(*twice), 2 * found, rtol=1e-6)  # a sum, not a mean
    # The densities of tanh(x), integrated: the squash changes both alike.
    y = np.tanh(np.linspace(-9, 9, 200_001))
    x, slope = np.arctanh(y), 1 / (1 - y**2)
    p = np.exp(-((x - 1) ** 2) / 2) / np.sqrt(2 * np.pi) * slope
    q = np.exp(-(x**2) / 8) / np.sqrt(8 * np.pi) * slope
    np.testing.assert_allclose(np.trapezoid(p * np.log(p / q), y), found, rtol=1e-3)

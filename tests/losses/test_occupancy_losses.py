"""Losses over occupancies: golden numbers, the traps of the released code, and the bound on random processes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses
from jaxrl_reg.losses import discriminator_loss, occupancy_divergence, occupancy_penalty, true_gain_bound

SCORE = np.array([0.5, -1.0, 2.0, 0.0])


def test_golden_numbers():
    policy, reference = discriminator_loss([0.5, -1.0], [0.2, -0.3, 1.5])
    np.testing.assert_allclose(policy, [0.474077, 1.313262], atol=1e-6)
    np.testing.assert_allclose(reference, [0.798139, 0.554355, 1.701413], atol=1e-6)
    np.testing.assert_allclose(occupancy_penalty(SCORE, "chi2"), [0.648721, -0.632121, 6.389056, 0], atol=2e-6)
    half = occupancy_penalty(SCORE, "sqrt_chi2", trim=0.0)
    np.testing.assert_allclose(half, [0.512633, -0.499514, 5.048762, 0], atol=2e-6)
    np.testing.assert_allclose(occupancy_divergence(SCORE, "chi2", trim=0.0), 1.601414, atol=1e-6)
    np.testing.assert_allclose(losses.categorical_chi2([1.0, 0, 0], [0, 0, 0.5]), 0.474356, atol=1e-6)
    np.testing.assert_allclose(losses.categorical_kl([1.0, 0, 0], [0, 0, 0.5]), 0.213078, atol=1e-6)
    chi2 = losses.gaussian_chi2(np.array([0.3, -0.2]), np.log([0.5, 0.8]), np.array([0, 0.1]), np.log([1, 0.7]))
    np.testing.assert_allclose(chi2, 1.178578, atol=1e-5)
    np.testing.assert_allclose(true_gain_bound(0.8, 0.25, 0.6), 0.666667, atol=1e-6)
    np.testing.assert_array_equal(occupancy_penalty(SCORE, "kl"), SCORE)
    np.testing.assert_array_equal(occupancy_penalty(SCORE, "tv"), [1, -1, 1, 0])
    np.testing.assert_allclose(occupancy_divergence(SCORE, "kl"), 0.375)
    np.testing.assert_allclose(occupancy_divergence(SCORE, "tv"), (2 - np.exp(-0.5) - np.exp(-2)) / 4, rtol=1e-6)
    np.testing.assert_allclose(occupancy_divergence(SCORE, "sqrt_chi2", trim=0.0), np.sqrt(1.601414), rtol=1e-6)


def test_few_rows_are_not_trimmed_to_nothing():
    """The released slice ``[0:-0]`` is empty below a hundred rows."""
    assert np.isfinite(occupancy_penalty(SCORE, "sqrt_chi2", trim=0.01)).all()
    rows = np.concatenate([np.zeros(198), [-3.0, 5.0]])
    np.testing.assert_allclose(occupancy_divergence(rows, "chi2", trim=0.01), 0.0, atol=1e-6)
    assert float(occupancy_divergence(rows, "chi2", trim=0.0)) > 0.5


def test_large_scores_are_held_before_they_are_exponentiated():
    penalty = occupancy_penalty(np.array([500.0, 0.0]), "chi2")
    np.testing.assert_allclose(penalty, [np.exp(8) - 1, 0], rtol=1e-6)
    np.testing.assert_allclose(occupancy_penalty(np.array([500.0, 0.0]), "chi2", log_clip=2.0), [np.exp(2) - 1, 0])


def test_policies_that_are_one_are_not_divided_by_their_distance():
    """Near the start X is about 0 or below; something under the root would blow the penalty up instead."""
    np.testing.assert_array_equal(occupancy_penalty(np.zeros(4)), np.zeros(4))
    small = np.array([-1e-3, -2e-3, 1e-3, -1e-3])
    np.testing.assert_allclose(occupancy_penalty(small), np.expm1(small), rtol=1e-4)


def test_no_gradient_flows_through_a_penalty_and_slopes_are_finite_at_the_edges():
    np.testing.assert_array_equal(jax.grad(lambda d: occupancy_penalty(d).sum())(SCORE), np.zeros(4))
    slopes = jax.grad(true_gain_bound, (0, 1, 2))(0.5, 0.0, 0.6)
    assert np.isfinite(slopes).all()
    wide = losses.gaussian_chi2(np.zeros(1), np.full(1, 0.5), np.zeros(1), np.zeros(1))  # s_p^2 = e s_q^2 > 2 s_q^2
    np.testing.assert_allclose(wide, np.expm1(8.0), rtol=1e-5)
    slope = jax.grad(lambda x: losses.gaussian_chi2(jnp.zeros(1), x, jnp.zeros(1), jnp.zeros(1)))(jnp.full(1, 0.5))
    np.testing.assert_array_equal(slope, [0.0])
    impossible = losses.categorical_chi2(np.array([0.0, 0.0]), np.array([0.0, -np.inf]))
    np.testing.assert_allclose(impossible, np.expm1(8.0), rtol=1e-5)
    np.testing.assert_allclose(losses.categorical_chi2(np.array([0, 0, -np.inf]), np.array([0, 0, -np.inf])), 0.0)


def test_a_proxy_that_is_not_correlated_promises_nothing():
    for correlation in (0.0, -0.5):
        assert float(true_gain_bound(0.8, 0.25, correlation)) == -np.inf
    assert float(losses.reward_correlation(np.ones(4), SCORE)) == 0.0
    np.testing.assert_allclose(losses.reward_correlation(3 * SCORE + 1, SCORE), 1.0, rtol=1e-6)


@pytest.mark.parametrize("wrong", [{"divergence": "chi"}, {"trim": 0.5}, {"trim": -0.1}])
def test_refusals(wrong):
    for loss in (occupancy_penalty, occupancy_divergence):
        with pytest.raises(ValueError, match="must be"):
            loss(SCORE, **wrong)


def test_the_bound_holds_for_random_policies_rewards_and_processes():
    """A thousand processes of six states with their policies, in NumPy and float64; the bound itself is the loss."""
    rng, states, actions, discount = np.random.default_rng(0), 6, 3, 0.9
    size = (1000, states, actions)
    transition = rng.dirichlet(np.full(states, 0.5), size)
    initial = rng.dirichlet(np.ones(states), 1000)
    noise = rng.uniform(0, 2, (1000, 1, 1))
    true = rng.normal(size=size)
    proxy = true + noise * rng.normal(size=size)

    def occupancy(policy):
        chain = np.einsum("nsa,nsat->nst", policy, transition)
        matrix = np.eye(states) - discount * chain.transpose(0, 2, 1)
        return np.linalg.solve(matrix, (1 - discount) * initial[..., None])[..., 0][..., None] * policy

    base = rng.dirichlet(np.ones(actions), size[:2])
    other = rng.dirichlet(np.full(actions, 0.3), size[:2])
    mu0, mu = occupancy(base), occupancy(0.5 * base + 0.5 * other)

    def mean(weight, values):
        return (weight * values).sum((1, 2))

    def standard(reward):
        centred = reward - mean(mu0, reward)[:, None, None]
        return centred / np.sqrt(mean(mu0, centred**2))[:, None, None]

    true, proxy = standard(true), standard(proxy)
    correlation = mean(mu0, true * proxy)
    chi2 = mean(mu0, (mu / mu0 - 1) ** 2)
    with jax.enable_x64(True):
        bounds = jax.vmap(true_gain_bound)(mean(mu, proxy), chi2, correlation)
    slack = mean(mu, true) - np.asarray(bounds)
    assert (slack[correlation > 0] > -1e-9).all()
    assert np.isfinite(slack[correlation > 0]).sum() > 800
    assert slack[correlation > 0.9].min() < 0.5, "a bound that is never near the truth would hold for anything"

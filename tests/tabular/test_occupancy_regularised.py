"""Exact occupancy-regularised policies: divergences by sums, an optimum by scanning, a bucket that is not hacked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.envs import tomato
from jaxrl_reg.errors import UserError
from jaxrl_reg.losses import true_gain_bound
from jaxrl_reg.tabular import discounted
from jaxrl_reg.tabular.occupancy_regularised import DIVERGENCES, divergence_of, proxy_statistics, regularised_policy


def test_divergences_are_their_sums():
    rng = np.random.default_rng(0)
    states0, states = rng.dirichlet(np.ones(4), 2)
    base, policy = rng.dirichlet(np.ones(3), (2, 4))
    mu0, mu = states0[:, None] * base, states[:, None] * policy
    logs = [jnp.asarray(np.log(x), jnp.float32) for x in (policy, base)]
    chi2 = sum((mu[s, a] / mu0[s, a] - 1) ** 2 * mu0[s, a] for s in range(4) for a in range(3))
    wanted = {
        "chi2": chi2,
        "sqrt_chi2": np.sqrt(chi2),
        "sqrt_chi2_state": np.sqrt(sum((states / states0 - 1) ** 2 * states0)),
        "kl": (mu * np.log(mu / mu0)).sum(),
        "kl_state": (states * np.log(states / states0)).sum(),
        "action_kl": (states * (policy * np.log(policy / base)).sum(1)).sum(),
        "sqrt_action_chi2": (states * np.sqrt(((policy - base) ** 2 / base).sum(1))).sum(),
    }
    assert set(wanted) == set(DIVERGENCES)
    for name, value in wanted.items():
        np.testing.assert_allclose(divergence_of(name, mu, mu0, *logs), value, rtol=1e-5, err_msg=name)
    with pytest.raises(UserError, match="did you mean 'chi2'"):
        divergence_of("chi", mu, mu0, *logs)


def test_nothing_is_divided_by_states_that_nobody_visits():
    mu0 = jnp.array([[0.5, 0.5], [0.0, 0.0]])
    log = jnp.log(jnp.full((2, 2), 0.5))
    for name in DIVERGENCES:
        value, slope = jax.value_and_grad(lambda mu, name=name: divergence_of(name, mu, mu0, log, log))(mu0)
        assert (float(value), np.isfinite(slope).all()) == (0.0, True), name


def test_the_optimum_of_one_state_is_that_of_a_scan():
    """One state and two actions: the occupancy is the policy, and the best probability can be looked for."""
    transition, proxy, reference = jnp.ones((1, 2, 1)), jnp.array([[0.0, 1.0]]), jnp.array([[0.8, 0.2]])
    p = np.linspace(1e-4, 1 - 1e-4, 20_001)
    costs = {
        "sqrt_chi2": np.sqrt((p - 0.2) ** 2 / 0.16),
        "kl": p * np.log(p / 0.2) + (1 - p) * np.log((1 - p) / 0.8),
    }
    for name, coefficient in (("sqrt_chi2", 0.5), ("kl", 0.5), ("sqrt_chi2", 0.3)):
        found, mu = regularised_policy(transition, proxy, reference, jnp.ones(1), 0.9, coefficient, name)
        wanted = p[np.argmax(p - coefficient * costs[name])]
        np.testing.assert_allclose(found[0, 1], wanted, atol=0.03, err_msg=name)
        np.testing.assert_allclose(mu, found, atol=1e-6)


def test_the_garden_is_watered_where_the_theory_holds_and_hacked_without():
    transition, true, proxy, initial = tomato.matrices("tt..O", dry_distance=1.0)
    discount = 0.95
    _, q = discounted.optimal_values(transition, true, discount)
    base = 0.9 * jax.nn.softmax(q / 0.35) + 0.1 / 4
    mu0 = discounted.occupancy(transition, base, discount, initial)
    sigma, sigma_true, r = proxy_statistics(mu0, proxy, true)
    share = np.asarray(mu0, np.float64).ravel()
    rows = np.random.default_rng(0).choice(mu0.size, 200_000, p=share / share.sum())
    sampled = [np.asarray(reward).ravel()[rows] for reward in (proxy, true)]
    np.testing.assert_allclose([sigma, sigma_true], [reward.std() for reward in sampled], rtol=0.02)
    np.testing.assert_allclose(r, np.corrcoef(*sampled)[0, 1], atol=0.02)

    solve = jax.jit(
        lambda coefficient: regularised_policy(
            transition, proxy, base, initial, discount, coefficient, "sqrt_chi2", iterations=200
        )[1]
    )
    held, free = solve(sigma * jnp.sqrt(1 - r**2)), solve(0.0)
    gain = [float(((mu - mu0) * true).sum()) for mu in (held, free)]
    assert gain[0] > 0.01
    assert gain[1] < -0.1
    chi2 = (jnp.square(held - mu0) / jnp.where(mu0 > 0, mu0, 1)).sum()
    bound = true_gain_bound(((held - mu0) * proxy).sum() / sigma, chi2, r)
    assert 0 < float(bound) <= gain[0] / float(sigma_true) + 1e-4


def test_rewards_that_do_not_vary_are_not_correlated():
    mu0 = jnp.full((2, 2), 0.25)
    assert [float(x) for x in proxy_statistics(mu0, jnp.ones((2, 2)), mu0)] == [0.0, 0.0, 0.0]

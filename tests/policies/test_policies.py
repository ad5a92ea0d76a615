"""Policies: densities against SciPy and numerical integration, the edges of the action range, sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl_reg.policies import categorical, deterministic, gaussian
from jaxrl_reg.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (16, 3))
MAKERS = {"squashed": gaussian.squashed, "clipped": gaussian.clipped}


def test_normal_log_prob_and_entropy_equal_scipy():
    mean, log_std = np.array([[0.3, -1.0]]), np.array([[-0.7, 0.4]])
    x = np.array([[0.9, -2.0]])
    expected = scipy.stats.norm(mean, np.exp(log_std)).logpdf(x).sum(-1)
    np.testing.assert_allclose(gaussian.normal_log_prob(mean, log_std, x), expected, rtol=1e-5)
    expected = scipy.stats.norm(mean, np.exp(log_std)).entropy().sum(-1)
    np.testing.assert_allclose(gaussian.normal_entropy(jnp.asarray(log_std)), expected, rtol=1e-6)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.8, -1.5), (-1.5, 0.3)])
def test_tanh_normal_density_integrates_to_one(mean, log_std):
    # In u = arctanh(a) the integrand is smooth, so Simpson's rule is exact to rounding; da = (1 - a^2) du.
    u = np.linspace(-7.0, 7.0, 4001)
    a = np.tanh(u)
    density = np.exp(gaussian.tanh_normal_log_prob(jnp.array([mean]), jnp.array([log_std]), jnp.asarray(a)[:, None]))
    inside = np.abs(a) < gaussian.EDGE
    total = scipy.integrate.simpson(np.where(inside, density * (1.0 - a**2), 0.0), x=u)
    assert abs(total - 1.0) < 2e-3
    expected = scipy.stats.norm(mean, np.exp(log_std)).pdf(np.arctanh(0.5)) / 0.75
    value = gaussian.tanh_normal_log_prob(jnp.array([mean]), jnp.array([log_std]), jnp.array([0.5]))
    np.testing.assert_allclose(np.exp(value), expected, rtol=1e-5)


def test_tanh_normal_at_the_edges():
    edges = jnp.array([[1.0, -1.0], [1.0, 0.0], [1.0 - 1e-7, -1.0 + 1e-7]])

    def total(mean, log_std, action):
        return gaussian.tanh_normal_log_prob(mean, log_std, action).sum()

    mean, log_std = jnp.zeros((3, 2)), jnp.full((3, 2), -1.0)
    assert np.isfinite(total(mean, log_std, edges))
    for gradient in jax.grad(total, argnums=(0, 1, 2))(mean, log_std, edges):
        assert np.all(np.isfinite(gradient))
    # The mean is pulled towards the recorded action, not left alone.
    pull = jax.grad(total)(mean, log_std, edges)
    assert pull[0, 0] > 0
    assert pull[0, 1] < 0


def test_sampled_log_prob_is_stable_far_outside():
    """At u = +-15 tanh(u) rounds to +-1 and ``log(1 - a^2)`` would be -inf."""
    mean = jnp.array([[15.0, -15.0]])
    action, log_prob = gaussian.tanh_normal_sample(KEY, mean, jnp.full((1, 2), -5.0))
    assert np.all(np.abs(action) == 1.0)
    noise = np.asarray(jax.random.normal(KEY, (1, 2)), np.float64)
    u = np.asarray(mean, np.float64) + np.exp(-5.0) * noise
    slope = 2 * (np.log(2.0) - np.abs(u) - np.log1p(np.exp(-2 * np.abs(u))))
    expected = (scipy.stats.norm.logpdf(noise) + 5.0 - slope).sum(-1)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)
    gradient = jax.grad(lambda m: gaussian.tanh_normal_sample(KEY, m, jnp.full((1, 2), -5.0))[1].sum())(mean)
    np.testing.assert_allclose(gradient, [[2.0, -2.0]], rtol=1e-5)  # d(-log slope)/du = 2 tanh(u)


@pytest.mark.parametrize("name", MAKERS)
def test_sample_scores_as_log_prob_does(name):
    policy = MAKERS[name](SPEC, (8, 8))
    params = policy.init(KEY)
    action, log_prob = policy.sample(params, X, jax.random.key(3), (5,))
    assert action.shape == (5, 16, 2)
    assert log_prob.shape == (5, 16)
    scored = jnp.stack([policy.log_prob(params, X, a) for a in action])
    np.testing.assert_allclose(scored, log_prob, atol=2e-4)
    assert policy.mode(params, X).shape == (16, 2)
    assert np.all(np.abs(policy.mode(params, X)) <= 1.0)
    if name == "squashed":
        assert np.all(np.abs(action) <= 1.0)
        with pytest.raises((ValueError, TypeError)):
            policy.log_prob(params, X, action[0, :4])


@pytest.mark.parametrize("name", MAKERS)
def test_sampling_is_reparameterised(name):
    """d E[a] / d bias of the mean head, by the pathwise gradient and by finite differences with the same noise."""
    policy = MAKERS[name](SPEC, (8,), tanh_mean=False) if name == "clipped" else MAKERS[name](SPEC, (8,))
    params = policy.init(KEY)

    def mean_action(shift):
        moved = jax.tree.map(lambda leaf: leaf, params)
        head = moved["mean"]["Dense_1"] if name == "clipped" else moved["Dense_1"]
        head["bias"] = head["bias"].at[0].add(shift)
        return policy.sample(moved, X, KEY, (50,))[0][..., 0].mean()

    slope = (mean_action(1e-2) - mean_action(-1e-2)) / 2e-2
    np.testing.assert_allclose(jax.grad(mean_action)(0.0), slope, rtol=1e-3)


def test_log_std_is_clipped():
    policy = gaussian.clipped(SPEC, (8,), initial_log_std=10.0)
    assert np.all(policy.apply(policy.init(KEY), X)[1] == 2.0)
    policy = gaussian.squashed(SPEC, (8,), log_std_range=(-0.01, 0.01))
    log_std = policy.apply(jax.tree.map(lambda leaf: 9.0 * leaf, policy.init(KEY)), X)[1]
    assert float(jnp.abs(log_std).max()) == pytest.approx(0.01)


def test_clipped_gaussian_moments_and_entropy():
    policy = gaussian.clipped(SPEC, (8,), initial_log_std=-1.0)
    params = policy.init(KEY)
    action, _ = policy.sample(params, X, KEY, (4000,))
    mean, log_std = policy.apply(params, X)
    np.testing.assert_allclose(action.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(action.std(0), jnp.exp(log_std), rtol=0.06)
    np.testing.assert_allclose(policy.entropy(params, X), np.full(16, 2 * (-1.0 + 1.4189385)), rtol=1e-5)


def test_policies_under_vmap_equal_single_ones():
    policy = gaussian.squashed(SPEC, (8, 8))
    keys = jax.random.split(KEY, 3)
    params = jax.vmap(policy.init)(keys)
    action, log_prob = jax.jit(jax.vmap(policy.sample, in_axes=(0, None, 0)))(params, X, keys)
    one = policy.sample(policy.init(keys[1]), X, keys[1])
    np.testing.assert_allclose(action[1], one[0], atol=1e-6)
    np.testing.assert_allclose(log_prob[1], one[1], atol=1e-5)


def test_deterministic_policy_and_its_noise():
    actor = deterministic.make(SPEC, (8, 8))
    action = actor.apply(actor.init(KEY), 100.0 * X)
    assert action.shape == (16, 2)
    assert np.all(np.abs(action) <= 1.0)
    zeros, ones = jnp.zeros((1000, 2)), jnp.ones((1000, 2))
    smoothed = deterministic.smoothed(zeros, KEY, 0.2, 0.5)
    assert float(jnp.abs(smoothed).max()) == 0.5  # 2.5 standard deviations: reached by 1% of 2000 draws
    assert abs(float(smoothed.std()) - 0.2) < 0.01
    assert float(deterministic.smoothed(ones, KEY, 0.2, 0.5).max()) == 1.0
    assert float(deterministic.smoothed(ones, KEY, 0.2, 0.5).min()) >= 0.5
    np.testing.assert_array_equal(deterministic.smoothed(zeros, KEY, 0.2, 0.0), zeros)
    explored = deterministic.explore(zeros, KEY, 0.6)
    assert float(jnp.abs(explored).max()) == 1.0
    assert abs(float(explored[:, 0].mean())) < 0.08


def test_categorical():
    policy = categorical.make(SPEC, (8,))
    params = policy.init(KEY)
    logits = np.asarray(policy.apply(params, X), np.float64)
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    action, log_prob = policy.sample(params, X, KEY, (2000,))
    assert action.dtype == jnp.int32
    assert action.shape == (2000, 16)
    np.testing.assert_allclose(policy.log_prob(params, X, jnp.ones(16, jnp.int32)), log_softmax[:, 1], atol=1e-6)
    np.testing.assert_allclose(
        log_prob[0], np.take_along_axis(log_softmax, np.asarray(action[0])[:, None], 1)[:, 0], atol=1e-6
    )
    np.testing.assert_allclose((action == 1).mean(0), np.exp(log_softmax[:, 1]), atol=0.05)
    np.testing.assert_allclose(policy.entropy(params, X), -(np.exp(log_softmax) * log_softmax).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(params, X), logits.argmax(-1))

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
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 3)).astype(np.float32)
log_prob_of = jax.jit(gaussian.tanh_normal_log_prob)
MAKERS = {"squashed": gaussian.squashed, "clipped": gaussian.clipped}


def test_normal_log_prob_and_entropy_equal_scipy():
    mean, log_std = np.array([[0.3, -1.0]]), np.array([[-0.7, 0.4]])
    x = np.array([[0.9, -2.0]])
    expected = scipy.stats.norm(mean, np.exp(log_std)).logpdf(x).sum(-1)
    np.testing.assert_allclose(jax.jit(gaussian.normal_log_prob)(mean, log_std, x), expected, rtol=1e-5)
    expected = scipy.stats.norm(mean, np.exp(log_std)).entropy().sum(-1)
    np.testing.assert_allclose(jax.jit(gaussian.normal_entropy)(log_std), expected, rtol=1e-6)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.8, -1.5), (-1.5, 0.3)])
def test_tanh_normal_density_integrates_to_one(mean, log_std):
    # In u = arctanh(a) the integrand is smooth, so Simpson's rule is exact to rounding; da = (1 - a^2) du.
    u = np.linspace(-7.0, 7.0, 4001)
    a = np.tanh(u)
    mean_, log_std_ = np.full((1, 1), mean, np.float32), np.full((1, 1), log_std, np.float32)
    density = np.exp(log_prob_of(mean_, log_std_, a.astype(np.float32)[:, None]))
    inside = np.abs(a) < gaussian.EDGE
    total = scipy.integrate.simpson(np.where(inside, density * (1.0 - a**2), 0.0), x=u)
    assert abs(total - 1.0) < 2e-3
    value = density[np.argmin(np.abs(a - 0.5))]
    near = a[np.argmin(np.abs(a - 0.5))]
    expected = scipy.stats.norm(mean, np.exp(log_std)).pdf(np.arctanh(near)) / (1.0 - near**2)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_tanh_normal_at_the_edges():
    edges = np.array([[1.0, -1.0], [1.0, 0.0], [1.0 - 1e-7, -1.0 + 1e-7]], np.float32)

    def total(mean, log_std, action):
        return gaussian.tanh_normal_log_prob(mean, log_std, action).sum()

    mean, log_std = np.zeros((3, 2), np.float32), np.full((3, 2), -1.0, np.float32)
    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(mean, log_std, edges)
    assert np.isfinite(value)
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))
    pull = gradients[0]  # the mean is pulled towards the recorded action, not left alone
    assert pull[0, 0] > 0
    assert pull[0, 1] < 0


def test_sampled_log_prob_is_stable_far_outside():
    """At u = +-15 tanh(u) rounds to +-1 or next to it: ``log(1 - a^2)`` would be -inf or -15, and should be -29."""
    mean, log_std = np.array([[15.0, -15.0]], np.float32), np.full((1, 2), -5.0, np.float32)

    def total(mean):
        action, log_prob = gaussian.tanh_normal_sample(KEY, mean, log_std)
        return log_prob.sum(), (action, log_prob)

    (_, (action, log_prob)), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(mean)
    assert np.all(np.abs(action) > 1.0 - 1e-6)
    noise = np.asarray(jax.random.normal(KEY, (1, 2)), np.float64)
    u = np.asarray(mean, np.float64) + np.exp(-5.0) * noise
    slope = 2 * (np.log(2.0) - np.abs(u) - np.log1p(np.exp(-2 * np.abs(u))))
    expected = (scipy.stats.norm.logpdf(noise) + 5.0 - slope).sum(-1)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, [[2.0, -2.0]], rtol=1e-5)  # d(-log slope)/du = 2 tanh(u)


@pytest.mark.parametrize("name", MAKERS)
def test_sample_scores_as_log_prob_does(name):
    policy = MAKERS[name](SPEC, (8, 8))

    @jax.jit
    def everything(key):
        params = policy.init(key)
        action, log_prob = policy.sample(params, X, key, (5,))
        scored = jax.vmap(policy.log_prob, in_axes=(None, None, 0))(params, X, action)
        return action, log_prob, scored, policy.mode(params, X), policy.apply(params, X)[0]

    action, log_prob, scored, mode, mean = everything(KEY)
    assert action.shape == (5, 16, 2)
    assert log_prob.shape == (5, 16)
    np.testing.assert_allclose(scored, log_prob, atol=2e-4)
    np.testing.assert_allclose(mode, np.tanh(mean) if name == "squashed" else mean, atol=1e-6)
    if name == "squashed":
        assert np.all(np.abs(action) <= 1.0)
    with pytest.raises((ValueError, TypeError)):
        jax.eval_shape(lambda: policy.log_prob(policy.init(KEY), X, action[0, :4]))


@pytest.mark.parametrize("name", MAKERS)
def test_sampling_is_reparameterised(name):
    """d E[a] / d bias of the mean head, by the pathwise gradient and by finite differences with the same noise."""
    policy = MAKERS[name](SPEC, (8,), tanh_mean=False) if name == "clipped" else MAKERS[name](SPEC, (8,))

    def mean_action(shift):
        params = policy.init(KEY)
        head = params["mean"]["Dense_1"] if name == "clipped" else params["Dense_1"]
        head["bias"] = head["bias"].at[0].add(shift)
        return policy.sample(params, X, KEY, (50,))[0][..., 0].mean()

    value_and_slope = jax.jit(jax.value_and_grad(mean_action))
    difference = (value_and_slope(1e-2)[0] - value_and_slope(-1e-2)[0]) / 2e-2
    assert abs(difference) > 0.3
    np.testing.assert_allclose(value_and_slope(0.0)[1], difference, rtol=1e-3)


def test_log_std_is_clipped():
    clipped = gaussian.clipped(SPEC, (8,), initial_log_std=10.0)
    squashed = gaussian.squashed(SPEC, (8,), log_std_range=(-0.01, 0.01))

    @jax.jit
    def everything(key):
        large = jax.tree.map(lambda leaf: 9.0 * leaf, squashed.init(key))
        return clipped.apply(clipped.init(key), X)[1], squashed.apply(large, X)[1]

    of_clipped, of_squashed = everything(KEY)
    assert np.all(of_clipped == 2.0)
    assert np.abs(of_squashed).max() == pytest.approx(0.01)


def test_clipped_gaussian_moments_and_entropy():
    policy = gaussian.clipped(SPEC, (8,), initial_log_std=-1.0)

    @jax.jit
    def everything(key):
        params = policy.init(key)
        action, _ = policy.sample(params, X, key, (4000,))
        return action.mean(0), action.std(0), policy.apply(params, X)[0], policy.entropy(params, X)

    mean, std, expected_mean, entropy = everything(KEY)
    np.testing.assert_allclose(mean, expected_mean, atol=0.03)
    np.testing.assert_allclose(std, np.exp(-1.0), rtol=0.06)
    np.testing.assert_allclose(entropy, np.full(16, 2 * (-1.0 + 1.4189385)), rtol=1e-5)


def test_policies_under_vmap_equal_single_ones():
    policy = gaussian.squashed(SPEC, (8, 8))

    def run(key):
        return policy.sample(policy.init(key), X, key)

    keys = jax.random.split(KEY, 3)
    together, alone = jax.jit(lambda keys: (jax.vmap(run)(keys), run(keys[1])))(keys)
    np.testing.assert_allclose(together[0][1], alone[0], atol=1e-6)
    np.testing.assert_allclose(together[1][1], alone[1], atol=1e-5)


def test_deterministic_policy_and_its_noise():
    actor = deterministic.make(SPEC, (8, 8))
    zeros, ones = np.zeros((1000, 2), np.float32), np.ones((1000, 2), np.float32)

    @jax.jit
    def everything(key):
        return (
            actor.apply(actor.init(key), 100.0 * X),
            deterministic.smoothed(zeros, key, 0.2, 0.5),
            deterministic.smoothed(ones, key, 0.2, 0.5),
            deterministic.smoothed(zeros, key, 0.2, 0.0),
            deterministic.explore(zeros, key, 0.6),
        )

    action, smoothed, at_edge, without, explored = (np.asarray(array) for array in everything(KEY))
    assert action.shape == (16, 2)
    assert np.all(np.abs(action) <= 1.0)
    assert np.abs(smoothed).max() == 0.5  # 2.5 standard deviations: reached by 1% of 2000 draws
    assert abs(smoothed.std() - 0.2) < 0.01
    assert at_edge.max() == 1.0
    assert at_edge.min() == 0.5
    np.testing.assert_array_equal(without, zeros)
    assert np.abs(explored).max() == 1.0
    assert abs(explored[:, 0].mean()) < 0.08


def test_categorical():
    policy = categorical.make(SPEC, (8,))

    @jax.jit
    def everything(key):
        params = policy.init(key)
        of_ones = policy.log_prob(params, X, jnp.ones(16, jnp.int32))
        sample = policy.sample(params, X, key, (2000,))
        return policy.apply(params, X), *sample, of_ones, policy.entropy(params, X), policy.mode(params, X)

    logits, action, log_prob, of_ones, entropy, mode = (np.asarray(array) for array in everything(KEY))
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert action.dtype == mode.dtype == np.int32
    assert action.shape == (2000, 16)
    np.testing.assert_allclose(of_ones, log_softmax[:, 1], atol=1e-6)
    np.testing.assert_allclose(log_prob[0], log_softmax[np.arange(16), action[0]], atol=1e-6)
    np.testing.assert_allclose((action == 1).mean(0), np.exp(log_softmax[:, 1]), atol=0.05)
    np.testing.assert_allclose(entropy, -(np.exp(log_softmax) * log_softmax).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(mode, logits.argmax(-1))


def test_coded_choices_have_the_probabilities_and_the_entropy_of_the_softmax():
    spec = Spec(observation_dim=3, action_dim=3, discrete=True)
    policy = categorical.coded(spec, (8,), gain=3.0)

    @jax.jit
    def everything(key):
        params = policy.init(key)
        sample = policy.sample(params, X, key, (4000,))
        return policy.apply(params, X), *sample, policy.mode(params, X), policy.entropy(params, X)

    logits, action, log_prob, mode, entropy = (np.asarray(array) for array in everything(KEY))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert p.max() > 0.5, "a policy that prefers something"
    assert action.dtype == np.float32
    assert action.shape == (4000, 16, 3)
    np.testing.assert_array_equal(np.sort(action, -1), np.broadcast_to([-1.0, -1.0, 1.0], action.shape))
    taken = action.argmax(-1)
    np.testing.assert_allclose((action > 0).mean(0), p, atol=0.04)
    np.testing.assert_allclose(log_prob, np.log(p)[np.arange(16), taken], atol=1e-5)
    np.testing.assert_array_equal(mode.argmax(-1), p.argmax(-1))
    np.testing.assert_allclose(entropy, -(p * np.log(p)).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy_of(logits, KEY), entropy, rtol=1e-6)


def test_a_coded_choice_is_the_largest_component_and_of_equals_the_first():
    policy = categorical.coded(Spec(3, 3, discrete=True), (8,))
    logits = jnp.log(jnp.array([0.2, 0.3, 0.5]))
    actions = jnp.array([[-1.0, -1.0, 1.0], [0.1, 0.3, -0.9], [-0.5, -0.7, -0.6], [-1.0, 0.4, 0.4], [0.0, 0.0, 0.0]])
    expected = np.log([0.5, 0.3, 0.2, 0.3, 0.2])
    np.testing.assert_allclose(policy.log_prob_of(jnp.broadcast_to(logits, (5, 3)), actions), expected, rtol=1e-6)


def test_the_entropy_of_a_choice_that_is_all_but_certain_is_zero_with_a_gradient():
    policy = categorical.coded(Spec(3, 3, discrete=True), (8,))
    value, gradient = jax.value_and_grad(lambda x: policy.entropy_of(x, KEY))(jnp.array([0.0, -200.0, -1e4]))
    assert float(value) == 0.0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["squashed", "clipped", "coded"])
def test_what_is_read_off_a_distribution_is_what_the_policy_says(name):
    make = {**MAKERS, "coded": categorical.coded}[name]
    policy = make(SPEC, (8,))

    @jax.jit
    def both(key):
        params = policy.init(key)
        action, log_prob = policy.sample(params, X, key)
        distribution = policy.apply(params, X)
        entropy = policy.entropy_of(distribution, key)
        exact = -log_prob if policy.entropy is None else policy.entropy(params, X)
        return policy.log_prob_of(distribution, action), policy.log_prob(params, X, action), entropy, exact

    of_distribution, log_prob, entropy, expected = both(KEY)
    np.testing.assert_allclose(of_distribution, log_prob, atol=1e-6)
    np.testing.assert_allclose(entropy, expected, atol=1e-5)  # a tanh-normal's is that of the sample with this key

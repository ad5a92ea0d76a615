import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import generative as g
from tests.generative.targets import bimodal, log_density


@pytest.mark.usefixtures("x64")
def test_log_density_of_the_flow():
    x = np.linspace(-1.6, 1.5, 15)[:, None]
    sigmas = np.append(np.geomspace(80.0, 0.05, 60), 0.0)

    @jax.jit
    def run():
        target = bimodal()
        return g.flow_log_prob(target.velocity, x, g.flow_times(50)), g.diffusion_log_prob(target.denoise, x, sigmas)

    flow, diffusion = run()
    assert np.abs(flow - log_density(x)).max() < 3e-4
    assert np.abs(diffusion - log_density(x, 0.05)).max() < 1e-2  # sampling stops there; the rest is the prior's


@pytest.mark.usefixtures("x64")
def test_divergence_and_log_density_in_several_dimensions():
    rng = np.random.default_rng(0)
    matrix, x = rng.normal(size=(3, 3)), rng.normal(size=(5, 3))

    @jax.jit
    def run(keys):
        def field(x):
            return jnp.sin(x) @ matrix.T

        estimate = jax.vmap(lambda key: g.divergence(field, jnp.asarray(x), key)[1])(keys).mean(0)
        ring = g.ring(8, std=0.3)
        z = 0.8 * x[:, :2]
        return g.divergence(field, jnp.asarray(x)), estimate, g.flow_log_prob(ring.velocity, z, g.flow_times(50))

    (value, exact), estimate, log_prob = run(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(value, np.sin(x) @ matrix.T, atol=1e-12)
    trace = (np.cos(x) * np.diag(matrix)).sum(1)
    np.testing.assert_allclose(exact, trace, atol=1e-12)
    np.testing.assert_allclose(estimate, trace, atol=0.15)
    angle = 2 * np.pi * np.arange(8) / 8
    means, z = np.stack([np.cos(angle), np.sin(angle)], 1), 0.8 * x[:, :2]
    square = np.square(z[:, None] - means).sum(-1)
    np.testing.assert_allclose(log_prob, np.log(np.exp(-square / 0.18).mean(1) / (2 * np.pi * 0.09)), atol=2e-3)
    with pytest.raises(ValueError, match="give a key"):
        g.divergence(lambda x: x, jnp.zeros((2, 33)))
    with pytest.raises(ValueError, match="shape"):
        g.divergence(lambda x: x, jnp.zeros(3))


def test_estimated_flow_density_is_exact_for_a_field_with_a_scalar_slope():
    x = jnp.array([[0.3, -0.5]])

    @jax.jit
    def run(key):
        return [g.flow_log_prob(lambda z, t: 0.7 * z, x, g.flow_times(10), key=k) for k in (None, key)]

    exact, estimated = run(jax.random.key(0))
    end = np.asarray(x) * math.exp(0.7)  # from data at t = 0 to noise at t = 1
    by_hand = -0.5 * (end**2).sum() - math.log(2 * math.pi) + 2 * 0.7
    np.testing.assert_allclose(exact, by_hand, rtol=1e-4)
    np.testing.assert_allclose(estimated, exact, rtol=1e-5)


def chain(theta, times):
    def velocity(z, t):
        return jnp.tanh(theta[0] * z + t[:, None])

    def std(z, t):
        return 0.1 + 0.1 * jax.nn.sigmoid(theta[1] * z + t[:, None])

    return g.flow_transition(velocity, std, times)


@pytest.mark.usefixtures("x64")
def test_chain_log_prob_by_hand_and_its_gradient():
    times, theta = np.array([1.0, 0.6, 0.25, 0.0]), np.array([0.7, -0.3])

    @jax.jit
    def run(theta, z):
        path = g.sample_chain(jax.random.key(0), chain(jnp.array([0.7, -0.3]), times), z, 3)
        total, slope = jax.value_and_grad(lambda theta: g.chain_log_prob(chain(theta, times), path).sum())(theta)
        return (
            path,
            g.chain_log_prob(chain(theta, times), path),
            g.chain_log_prob(chain(theta, times), path, prior=False),
            total,
            slope,
        )

    z = np.random.default_rng(0).normal(size=(6, 2))
    path, joint, steps, _, slope = jax.tree.map(np.asarray, run(theta, z))
    assert path.shape == (4, 6, 2)
    np.testing.assert_array_equal(path[0], z)

    def normal(x, mean, std):
        return (-0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum(1)

    by_hand = np.zeros(6)
    for k, t in enumerate(times[:-1]):
        mean = path[k] + (times[k + 1] - t) * np.tanh(0.7 * path[k] + t)
        by_hand += normal(path[k + 1], mean, 0.1 + 0.1 / (1 + np.exp(0.3 * path[k] - t)))
    np.testing.assert_allclose(steps, by_hand, rtol=1e-10)
    np.testing.assert_allclose(joint, by_hand + normal(z, 0.0, 1.0), rtol=1e-10)
    for i, h in enumerate(1e-5 * np.eye(2)):
        finite = (run(theta + h, z)[3] - run(theta - h, z)[3]) / 2e-5
        assert slope[i] == pytest.approx(float(finite), rel=1e-5)


def test_probability_ratio_is_one_before_any_update():
    times, theta = jnp.linspace(1.0, 0.0, 5), jnp.array([0.7, -0.3])

    @jax.jit
    def act(theta, key):
        key_start, key_chain = jax.random.split(key)
        path = g.sample_chain(key_chain, chain(theta, times), jax.random.normal(key_start, (64, 3)), 4)
        return path, g.chain_log_prob(chain(theta, times), path)

    @jax.jit
    def learn(theta, path, old):
        return jnp.exp(g.chain_log_prob(chain(theta, times), path) - old)

    path, old = act(theta, jax.random.key(0))
    np.testing.assert_allclose(learn(theta, path, old), 1.0, atol=1e-5)
    assert np.abs(learn(theta + 0.1, path, old) - 1.0).max() > 1e-2


def test_ddpm_chain_matches_the_ddpm_sampler():
    betas = g.vp_betas(5)
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)

    @jax.jit
    def run(key, x):
        def predict(x, t):
            return jnp.tanh(x)

        quiet = g.ddpm_transition(predict, betas)
        floored = g.ddpm_transition(predict, betas, variance="large", min_std=0.5)
        path = g.sample_chain(key, quiet, x, 5)

        def total(scale):
            return g.sample_chain(key, g.ddpm_transition(lambda x, t: scale * x, betas), x, 5).sum()

        last = jnp.int32(4)
        return path[-1], g.ddpm(key, predict, x, betas), quiet(x, last), floored(x, last), jax.grad(total)(1.0)

    end, sampled, (mean, std), (_, floor), slope = run(jax.random.key(0), x)
    np.testing.assert_allclose(end, sampled, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean, np.tanh(x), rtol=1e-5)
    np.testing.assert_allclose(std, 0.0)
    assert floor.shape == x.shape
    assert np.all(floor >= 0.5)
    assert np.isfinite(slope)

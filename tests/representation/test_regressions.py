"""Regressions that see through confounding, bottlenecks of scalar codes, and tables of rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses, representation
from jaxrl_reg.data import bins, samplers
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops import pretrain
from jaxrl_reg.loops.pretrain import Hyper
from jaxrl_reg.networks import mlp
from tests.pointnav_data import make_pointnav


def test_invariant_regression_minimises_its_loss_and_sees_through_confounding():
    """A weak augmentation along two directions: plain least squares keeps the confounder there, this does not."""
    key = jax.random.split(jax.random.key(0), 4)
    hidden, noise = jax.random.normal(key[0], (20_000, 1)), jax.random.normal(key[1], (20_000, 4))
    augmentation = jax.random.normal(key[2], (20_000, 2))
    true = jnp.array([[0.0], [0], [1], [-1]])  # the augmentation moves the first two
    outcome = (noise + hidden) @ true + 2 * hidden
    augmented = (noise + hidden).at[:, :2].add(0.5 * augmentation)
    weights = representation.invariant_regression(augmented, outcome, augmentation, 0.01)

    def loss(w):
        return losses.outcome_invariance_loss(outcome - augmented @ w, augmentation, 0.01)

    assert float(jnp.abs(jax.grad(loss)(weights)).max()) < 1e-3
    plain = representation.invariant_regression(augmented, outcome, augmentation, 1e4)
    assert jnp.abs(weights[:2]).max() < 0.1 < 0.3 < jnp.abs(plain[:2]).min()


def test_control_function_extrapolates_where_a_regression_on_the_action_is_confounded():
    key = jax.random.split(jax.random.key(1), 3)
    action = jax.random.uniform(key[0], (3000, 1), minval=-1, maxval=1)
    rest = 0.7 * jax.random.normal(key[1], (3000, 1))
    features = 2 * action + rest
    outcome = features**2 + 3 * rest
    predict = representation.control_function(features, action, outcome)
    far = jnp.array([[2.0], [-2.0]])
    truth = 4 * far**2 + jnp.var(rest)
    np.testing.assert_allclose(predict(far), truth, rtol=0.05)


def test_latent_codes():
    bottleneck = representation.latent_quantised(2, 5, 0.1, 0.1)
    params = bottleneck.init(jax.random.key(0))
    latents = jnp.array([[0.13, -0.4]])
    np.testing.assert_allclose(bottleneck.read(params, latents), [[0.25, -0.5]])
    np.testing.assert_array_equal(bottleneck.indices(params, latents), [[3, 0]])
    passed, cost, metrics = bottleneck.apply(params, latents, jax.random.key(0))
    np.testing.assert_allclose(cost, [0.002440], atol=1e-6)
    np.testing.assert_allclose(passed, [[0.25, -0.5]], atol=1e-6)
    assert metrics["codes_used"] == pytest.approx(0.2)
    slope = jax.grad(lambda z: bottleneck.apply(params, z, jax.random.key(0))[0].sum())(latents)
    np.testing.assert_allclose(slope, 1.0)  # straight through


def test_weight_decay_leaves_a_codebook_alone():
    dataset = make_pointnav(4, 6)
    bottleneck = representation.latent_quantised(4, 3, 0.1, 0.1)
    objective = representation.autoencoding(
        dataset.spec, mlp((dataset.spec.observation_dim, 4)), (4,), bottleneck=bottleneck
    )
    run = pretrain(objective, batch_size=8, updates=20)
    ends = [
        jax.jit(run)(jax.random.key(0), Hyper(jnp.float32(0.0), jnp.float32(decay)), dataset)[0].params
        for decay in (0.0, 100.0)
    ]
    np.testing.assert_array_equal(ends[0]["bottleneck"]["codebook"], ends[1]["bottleneck"]["codebook"])


def test_batches_say_their_rows():
    dataset = make_pointnav(4, 6)
    for sample in (samplers.numbered(), samplers.numbered(samplers.windows(3))):
        batch = sample(dataset, jax.random.key(0), 6)
        rows, real = batch.extras["row"], batch.extras.get("mask", jnp.ones(6)) > 0
        np.testing.assert_array_equal(batch.observation[real], dataset.observation[rows[real]])


def test_bins():
    found = bins.to_bins(jnp.array([-2, -1, -0.5, 0, 0.3, 1, 5]), jnp.array([-1.0, 0, 1]))
    np.testing.assert_array_equal(found, [0, 1, 1, 2, 2, 3, 3])
    edges = bins.quantile_edges(np.array([0.0, 0, 0, 0, 1, 2, 3, 4]), 4)
    assert (np.diff(edges) > 0).all()
    np.testing.assert_array_equal(np.unique(bins.to_bins(jnp.array([0.0, 4.0]), edges)), [0, len(edges)])
    np.testing.assert_allclose(bins.from_bins(jnp.array([1, 0]), jnp.array([0.5, 2.0])), [2.0, 0.5])
    with pytest.raises(UserError, match="all alike"):
        bins.quantile_edges(np.ones(5), 3)

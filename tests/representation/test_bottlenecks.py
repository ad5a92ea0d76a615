"""Bottlenecks: nearest codes by search, straight-through gradients, and how many nats pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import data, networks, representation
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops import pretrain
from jaxrl_reg.loops.pretrain import Hyper
from jaxrl_reg.types import Spec

KEY = jax.random.key(0)


def test_each_part_becomes_its_nearest_code():
    vq = representation.vector_quantised(6, codes=5, heads=2, commitment=0.1)
    codebook = vq.init(KEY)
    features = jax.random.normal(jax.random.key(1), (7, 6))
    passed, cost, metrics = jax.jit(vq.apply)(codebook, features, KEY)
    books, rows = np.asarray(codebook), np.asarray(features).reshape(7, 2, 3)
    nearest = np.array([[((books[h] - row[h]) ** 2).sum(-1).argmin() for h in range(2)] for row in rows])
    code = np.stack([books[h][nearest[:, h]] for h in range(2)], 1)
    np.testing.assert_allclose(passed, code.reshape(7, 6), atol=1e-6)
    np.testing.assert_allclose(vq.read(codebook, features), code.reshape(7, 6), atol=1e-6)
    np.testing.assert_allclose(cost, 1.1 * ((code - rows) ** 2).mean((1, 2)), rtol=1e-5)
    used = np.mean([len(set(nearest[:, h])) / 5 for h in range(2)])
    np.testing.assert_allclose(metrics["codes_used"], used, rtol=1e-6)


def test_the_decoders_gradient_goes_straight_through_and_codes_learn_from_the_cost():
    vq = representation.vector_quantised(4, codes=3, heads=2)
    codebook, features = vq.init(KEY), jax.random.normal(jax.random.key(1), (5, 4))
    weight = jnp.arange(4.0)

    def decoded(codebook, features):
        return (vq.apply(codebook, features, KEY)[0] * weight).sum()

    to_codes, to_features = jax.jit(jax.grad(decoded, argnums=(0, 1)))(codebook, features)
    np.testing.assert_array_equal(to_features, jnp.broadcast_to(weight, (5, 4)))
    assert not to_codes.any()
    costs = jax.jit(jax.value_and_grad(lambda codebook: vq.apply(codebook, features, KEY)[1].sum()))
    before, pull = costs(codebook)
    assert costs(codebook - 0.1 * pull)[0] < before


def test_codes_find_four_heaps():
    """Four heaps and four codes: an autoencoder through them knows which, and nothing else."""
    rng = np.random.default_rng(0)
    label = rng.integers(4, size=400)
    seen = np.array([[2, 2], [-2, 2], [2, -2], [-2, -2]])[label] + 0.2 * rng.normal(size=(400, 2))
    nothing, ends = np.zeros(400), np.ones(400)
    rows = data.from_arrays(seen, np.zeros((400, 1)), nothing, nothing, ends, seen, name="heaps")
    vq = representation.vector_quantised(2, codes=8, heads=1)
    objective = representation.autoencoding(Spec(2, 1), networks.mlp((2, 16, 2)), (16,), bottleneck=vq)
    run = pretrain(objective, batch_size=64, updates=600)
    state, history = jax.jit(run)(KEY, Hyper(learning_rate=1e-2, weight_decay=0.0), rows)
    code = np.asarray(objective.encode(state.params, rows.observation))
    assert len(np.unique(code.round(4), axis=0)) <= 8
    for heap in range(4):  # no code is shared by two heaps
        own, others = (np.unique(code[label == heap].round(4), axis=0), code[label != heap].round(4))
        assert not any((others == c).all(1).any() for c in own)
    assert history["codes_used"][-1] > 0.2


def test_noise_passes_as_many_nats_as_it_is_charged_for():
    noisy = representation.gaussian(3, divergence_coef=0.5)
    params = noisy.init(KEY)
    features = jax.random.normal(jax.random.key(1), (1, 3))
    keys = jax.random.split(KEY, 20_000)
    passed, cost, metrics = jax.jit(jax.vmap(noisy.apply, in_axes=(None, None, 0)))(params, features, keys)
    mean, std = np.asarray(passed)[:, 0].mean(0), np.asarray(passed)[:, 0].std(0)
    np.testing.assert_allclose(mean, features[0], atol=0.03)
    nats = (-np.log(std) + 0.5 * (std**2 + np.asarray(features[0]) ** 2 - 1)).sum()
    np.testing.assert_allclose(metrics["kl"][0], nats, rtol=0.05)
    np.testing.assert_allclose(cost[0, 0], 0.5 * metrics["kl"][0], rtol=1e-6)
    np.testing.assert_array_equal(noisy.read(params, features), features)


def test_heads_must_divide_the_features():
    with pytest.raises(UserError, match="4 heads do not divide 6"):
        representation.vector_quantised(6)

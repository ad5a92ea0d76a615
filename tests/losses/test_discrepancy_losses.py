"""Distances between samples: closed forms, what they are blind to, and edges; the anchors of a generator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxrl_reg import losses

RNG = np.random.default_rng(0)


def test_energy_distance_of_normals_is_the_known_one():
    x, y = RNG.normal(size=(1500, 1)), 1.0 + RNG.normal(size=(1500, 1))

    def mean_size(mean, std):  # E|N(mean, std^2)|
        tails = mean * (1 - 2 * stats.norm.cdf(-mean / std))
        return std * np.sqrt(2 / np.pi) * np.exp(-(mean**2) / (2 * std**2)) + tails

    wanted = 2 * mean_size(1.0, np.sqrt(2)) - 2 * mean_size(0.0, np.sqrt(2))
    assert losses.energy_distance_loss(x, y) == pytest.approx(wanted, abs=0.06)
    assert losses.energy_distance_loss(x, RNG.normal(size=(1500, 1))) == pytest.approx(0.0, abs=0.01)


def test_mmd_of_normals_is_the_known_one():
    x, y = RNG.normal(size=(1500, 1)), 1.0 + RNG.normal(size=(1500, 1))
    # E k = b / sqrt(b^2 + v) exp(-m^2 / 2 (b^2 + v)) for a difference of N(m, v)
    wanted = 2 / np.sqrt(3) * (1 - np.exp(-1 / 6))
    assert losses.mmd_loss(x, y, 1.0) == pytest.approx(wanted, abs=0.03)
    assert losses.mmd_loss(x, RNG.normal(size=(1500, 1)), 1.0) == pytest.approx(0.0, abs=0.01)


def test_the_energy_distance_pulls_from_far_where_a_kernel_does_not():
    data = RNG.normal(size=(64, 2)).astype(np.float32)
    far = data + 100.0
    slope = jax.grad(losses.energy_distance_loss)(far, data)
    assert (np.asarray(slope) @ np.ones(2) > 0).all()  # downhill is towards the data
    np.testing.assert_allclose(np.abs(slope.sum(0)), np.sqrt(2), rtol=0.05)
    np.testing.assert_allclose(jax.grad(losses.mmd_loss)(far, data, 1.0).sum(0), 0.0, atol=1e-5)


def test_estimates_are_unbiased():
    """With few samples of one distribution the mean over draws is 0; with pairs of a sample with itself it is not."""
    x, y = RNG.normal(size=(2, 4000, 4, 2)).astype(np.float32)
    for loss in (losses.energy_distance_loss, lambda x, y: losses.mmd_loss(x, y, 1.0)):
        draws = np.asarray(jax.jit(jax.vmap(loss))(x, y))
        assert abs(draws.mean()) < 4 * draws.std() / np.sqrt(4000)
        assert draws.min() < 0


def test_samples_that_coincide_and_single_rows():
    same = jnp.zeros((3, 2))
    for loss in (losses.energy_distance_loss, lambda x, y: losses.mmd_loss(x, y, 1.0)):
        assert np.isfinite(jax.grad(loss)(same, same)).all()
        with pytest.raises(ValueError, match="at least 2 rows"):
            loss(same[:1], same)


def test_a_critic_and_an_anchor_to_outputs_are_the_student_of_fql():
    action, teacher = RNG.uniform(-1, 1, (2, 6, 2)).astype(np.float32)
    q = RNG.normal(size=6).astype(np.float32)
    ours = losses.reward_generator_loss(q[None], np.ones(1), losses.behaviour_cloning_loss(action, teacher), 3.0)
    fql = losses.fql_actor_loss(np.zeros(6, np.float32), action, teacher, q, 3.0)
    np.testing.assert_allclose(ours, fql, rtol=1e-6)

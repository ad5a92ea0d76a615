"""Rolling out latent dynamics, and the recurrent networks by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.networks import latent_dynamics

RNG = np.random.default_rng(0)
WINDOW = jnp.asarray(RNG.normal(size=(5, 3, 2)), jnp.float32)


def test_simulation_sees_only_itself_after_the_window():
    """Sums of a window of two: Fibonacci numbers, although the true future is something else."""
    window = jnp.array([[1.0], [1.0]])
    found = latent_dynamics.simulate(lambda w: w.sum(-2), window, 5)
    np.testing.assert_array_equal(found[:, 0], [2, 3, 5, 8, 13])
    batch = latent_dynamics.simulate(lambda w: w[..., 0, :], WINDOW, 7)  # repeats the window
    np.testing.assert_array_equal(batch, jnp.concatenate([WINDOW, WINDOW, WINDOW[:, :1]], axis=1))


def test_constant_velocity_is_rolled_out_exactly():
    path = jnp.cumsum(jnp.ones((9, 2)) * jnp.array([0.5, -1.0]), axis=0)
    found = latent_dynamics.simulate(lambda w: 2 * w[..., -1, :] - w[..., -2, :], path[:3], 6)
    np.testing.assert_allclose(found, path[3:], rtol=1e-6)


def test_ctrnn_by_hand():
    network = latent_dynamics.latent_ctrnn(2, hidden=4)
    params = jax.jit(network.init)(jax.random.key(0))
    p = jax.tree.map(np.asarray, params)
    drive, out = p["drive"]["Dense_0"], p["readout"]["Dense_0"]
    expected = []
    for window in np.asarray(WINDOW):
        a = np.zeros(4)
        for x in window:
            a = a + (-a + np.maximum(np.tanh(a), 0) @ p["recurrent"] + x @ drive["kernel"] + drive["bias"]) / 10
        expected.append(np.maximum(np.tanh(a), 0) @ out["kernel"] + out["bias"])
    np.testing.assert_allclose(network.apply(params, WINDOW), expected, rtol=1e-5)
    wide = latent_dynamics.latent_ctrnn(2, hidden=256).init(jax.random.key(0))["recurrent"]
    assert float(wide.std()) == pytest.approx(1.5 / 16, rel=0.02)


@pytest.mark.parametrize(
    "network",
    [
        latent_dynamics.latent_mlp(2, window=3, hidden=(8,)),
        latent_dynamics.latent_lstm(2, hidden=8),
        latent_dynamics.latent_ctrnn(2, hidden=8),
    ],
    ids=["mlp", "lstm", "ctrnn"],
)
def test_the_whole_window_and_its_order_matter(network):
    params = jax.jit(network.init)(jax.random.key(0))
    out = network.apply(params, WINDOW)
    assert out.shape == (5, 2)
    np.testing.assert_allclose(network.apply(params, WINDOW[2]), out[2], rtol=1e-5)  # any leading axes
    slopes = jax.jit(jax.grad(lambda w: network.apply(params, w).sum()))(WINDOW)
    assert (jnp.abs(slopes).max((0, 2)) > 0).all()
    assert not np.allclose(network.apply(params, WINDOW[:, ::-1]), out, atol=1e-4)

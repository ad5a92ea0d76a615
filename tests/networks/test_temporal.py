"""Denoisers of windows: shapes, that time and every step are used, and how far a convolution sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.networks.temporal import temporal_mlp, temporal_unet

X = np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32)
TIME = np.array([0.1, -0.4], np.float32)
NETWORKS = {"unet": temporal_unet(3, (8, 16), time_width=4), "mlp": temporal_mlp(8, 3, (8,))}


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_and_inputs(name):
    network = NETWORKS[name]

    @jax.jit
    def run(key):
        params = network.init(key)
        slopes = jax.grad(lambda x, t: network.apply(params, x, t)[0].sum(), (0, 1))(X, TIME)
        return network.apply(params, X, TIME), slopes

    out, (by_x, by_time) = run(jax.random.key(0))
    assert out.shape == X.shape
    assert np.all(np.abs(by_x[0]).max(axis=-1) > 0)
    assert by_time[0] != 0
    assert not np.any(by_x[1])  # windows do not see each other
    assert by_time[1] == 0
    with pytest.raises(ValueError, match="windows"):
        jax.eval_shape(lambda key: network.apply(network.init(key), X[:, :7], TIME), jax.random.key(0))


def test_unet_takes_any_length_that_its_levels_divide():
    network = NETWORKS["unet"]
    out = jax.eval_shape(lambda key: network.apply(network.init(key), jnp.zeros((2, 12, 3)), TIME), jax.random.key(0))
    assert out.shape == (2, 12, 3)

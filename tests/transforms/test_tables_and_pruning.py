"""Tables of rows, units taken out, companded kernels, and mixtures of first weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import transforms
from jaxrl_reg.networks import mlp


def test_a_row_that_comes_twice_takes_the_mean():
    table = jnp.array([[0.0, 0], [1, 1], [2, 2]])
    found = transforms.update_rows(table, jnp.array([1, 1, 2]), jnp.array([[3.0, 1], [5, 3], [0, 0]]), 0.5)
    np.testing.assert_allclose(found, [[0, 0], [2.5, 1.5], [1, 1]])
    with pytest.raises(ValueError, match="rows \\[3\\]"):
        transforms.update_rows(table, jnp.array([0, 1, 2]), jnp.zeros((2, 2)))


def test_pruning():
    score = jnp.array([0.3, 0.1, 0.1, 0.5])
    np.testing.assert_array_equal(transforms.kept_units(score, 0.5), [1, 0, 0, 1])
    np.testing.assert_array_equal(transforms.kept_units(score, 0.25), [1, 0, 1, 1])  # of ties, the first
    np.testing.assert_array_equal(transforms.kept_units(score, 0.25, lowest=False), [1, 1, 1, 0])
    network = mlp((3, 4, 2))
    params = network.init(jax.random.key(0))
    pruned = transforms.prune_units(params, 0, jnp.array([1.0, 0, 1, 1]))
    x = jnp.array([1.0, -2, 0.5])
    _, hidden = network.apply(params, x, features=True)
    kernel, bias = params["Dense_1"]["kernel"], params["Dense_1"]["bias"]
    np.testing.assert_allclose(network.apply(pruned, x), hidden.at[1].set(0) @ kernel + bias, rtol=1e-5)
    with pytest.raises(ValueError, match="no hidden layer 1"):
        transforms.prune_units(params, 1, jnp.ones(2))


def test_companding():
    v = jnp.array([0, 0.5, -2, 10])
    w = transforms.compand(v, 2.0, 1.0)
    np.testing.assert_allclose(w, [0, 0.927295, -2.214297, 2.942255], atol=1e-5)
    np.testing.assert_allclose(transforms.expand(w, 2.0, 1.0), v, rtol=1e-4)
    assert transforms.expand(jnp.array(1.0), 2.0, 1.0) == pytest.approx(0.546302, abs=1e-5)
    network = mlp((3, 8, 2))
    bounded = transforms.companded(network, 1.5, 1.0)
    params, x = network.init(jax.random.key(0)), jnp.ones(3)
    np.testing.assert_allclose(bounded.apply(bounded.init(jax.random.key(0)), x), network.apply(params, x), rtol=1e-4)
    huge = jax.tree.map(lambda leaf: 1e6 * jnp.sign(leaf), params)
    one = bounded.apply({**huge, "Dense_0": jax.tree.map(jnp.ones_like, huge["Dense_0"])}, x)
    assert np.isfinite(one).all()
    with pytest.raises(ValueError, match=r"above 1\.103"):
        transforms.companded(network, 1.0)


def test_mixtures_of_first_weights():
    found = transforms.interpolate_initial(jnp.array([1.0, 2]), jnp.array([0.0, -1]), 0.3)
    np.testing.assert_allclose(found, [0.919145, 1.444371], atol=1e-5)
    wide = jax.random.normal(jax.random.key(0), (2, 100_000))
    assert transforms.interpolate_initial(*wide, 0.5).std() == pytest.approx(1.0, abs=0.01)
    tree, fresh = {"kernel": jnp.ones(2), "scale": jnp.ones(2)}, {"kernel": jnp.zeros(2), "scale": jnp.zeros(2)}
    mixed = transforms.shrink_perturb(tree, fresh, 0.6, 0.4, lambda path, leaf: path[-1].key == "kernel")
    np.testing.assert_allclose(mixed["kernel"], 0.6)
    np.testing.assert_allclose(mixed["scale"], 1.0)

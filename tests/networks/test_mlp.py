"""Networks: shapes, parameter counts, initialisation, ensembles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import networks
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (16, 3))
A = jax.random.uniform(jax.random.key(2), (16, 2), minval=-1.0)


def dense(layer, x):
    return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)


def layer_norm(layer, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * np.asarray(layer["scale"], np.float64) + np.asarray(layer["bias"], np.float64)


def perturbed(params):
    """Parameters without the zeros and ones of a fresh LayerNorm."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    moved = [leaf + 0.3 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


@pytest.mark.parametrize("kind", ["none", "every", "first_tanh"])
def test_mlp_equals_numpy(kind):
    network = networks.mlp((3, 8, 8, 2), layer_norm=kind, final_activation="tanh")
    params = perturbed(network.init(KEY))
    x = np.asarray(X, np.float64)
    for layer in range(2):
        x = dense(params[f"Dense_{layer}"], x)
        x = np.tanh(layer_norm(params["LayerNorm_0"], x)) if kind == "first_tanh" and layer == 0 else np.maximum(x, 0.0)
        if kind == "every":
            x = layer_norm(params[f"LayerNorm_{layer}"], x)
    y, features = network.apply(params, X, features=True)
    np.testing.assert_allclose(features, x, atol=2e-5)
    np.testing.assert_allclose(y, np.tanh(dense(params["Dense_2"], x)), atol=2e-5)
    np.testing.assert_array_equal(network.apply(params, X), y)


def test_parameter_counts():
    assert networks.parameter_count(networks.mlp((3, 8, 8, 2)).init(KEY)) == 3 * 8 + 8 + 8 * 8 + 8 + 8 * 2 + 2
    with_norm = networks.mlp((3, 8, 8, 2), layer_norm="every").init(KEY)
    assert networks.parameter_count(with_norm) == 122 + 2 * 16
    one = (5 * 8 + 8) + (8 * 8 + 8) + 9
    assert networks.parameter_count(networks.q_network(SPEC, (8, 8), 4).init(KEY)) == 4 * one
    assert networks.parameter_count(networks.value_network(SPEC, (8, 8)).init(KEY)) == (3 * 8 + 8) + (8 * 8 + 8) + 9
    # The sizes that the literature quotes: two critics of 2 x 256 on 17 observations and 6 actions.
    big = networks.q_network(Spec(17, 6))
    shapes = jax.eval_shape(big.init, KEY)
    assert networks.parameter_count(shapes) == 2 * (24 * 256 + 257 * 256 + 257)


def test_torch_initialisation_is_uniform_in_the_fan_in():
    params = networks.mlp((16, 300, 100, 5)).init(KEY)
    for name, fan_in in (("Dense_0", 16), ("Dense_1", 300), ("Dense_2", 100)):
        limit = fan_in**-0.5
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        assert float(jnp.abs(kernel).max()) <= limit
        assert float(jnp.abs(bias).max()) <= limit
        assert float(jnp.abs(kernel).max()) > 0.95 * limit
        assert float(jnp.abs(bias).max()) > 0.5 * limit
        n = kernel.size
        assert abs(float(kernel.std()) / limit - 3**-0.5) < 3.0 / n**0.5
        assert abs(float(kernel.mean())) < 4 * limit * (3 * n) ** -0.5
    small = networks.mlp((16, 8, 5), final_scale=3e-3).init(KEY)
    assert float(jnp.abs(small["Dense_1"]["kernel"]).max()) <= 3e-3
    assert float(jnp.abs(small["Dense_0"]["kernel"]).max()) > 0.2


def test_orthogonal_initialisation():
    params = networks.mlp((8, 16, 4), init="orthogonal", final_scale=0.01).init(KEY)
    first, last = np.asarray(params["Dense_0"]["kernel"]), np.asarray(params["Dense_1"]["kernel"])
    np.testing.assert_allclose(first @ first.T, 2.0 * np.eye(8), atol=1e-5)
    np.testing.assert_allclose(last.T @ last, 1e-4 * np.eye(4), atol=1e-8)
    assert not np.any(np.asarray(params["Dense_0"]["bias"]))


def test_ensemble_equals_separate_networks():
    single = networks.mlp((3, 8, 1), dropout=0.5)
    stacked = networks.ensemble(single, 3)
    params = stacked.init(KEY)
    keys = jax.random.split(KEY, 3)
    for i in range(3):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        jax.tree.map(np.testing.assert_array_equal, own, single.init(keys[i]))
        np.testing.assert_allclose(stacked.apply(params, X)[i], single.apply(own, X), atol=1e-6)
        np.testing.assert_allclose(stacked.apply(params, X, key=KEY)[i], single.apply(own, X, key=keys[i]), atol=1e-6)
    assert not np.allclose(params["Dense_0"]["kernel"][0], params["Dense_0"]["kernel"][1])
    part = networks.members(params, 3, start=1)
    np.testing.assert_allclose(stacked.apply(part, X), stacked.apply(params, X)[1:], atol=1e-6)


def test_q_network_shapes_and_concatenation():
    q = networks.q_network(SPEC, (8, 8), n_critics=4)
    params = q.init(KEY)
    values, features = q.apply(params, X, A, features=True)
    assert values.shape == (4, 16)
    assert features.shape == (4, 16, 8)
    own = jax.tree.map(lambda leaf: leaf[2], params)
    plain = networks.mlp((5, 8, 8, 1)).apply(own, jnp.concatenate([X, A], -1))
    np.testing.assert_allclose(values[2], plain[:, 0], atol=1e-6)
    assert q.apply(params, X[0], A[0]).shape == (4,)
    v = networks.value_network(SPEC, (8, 8))
    assert v.apply(v.init(KEY), X).shape == (16,)


def test_dropout_is_off_without_a_key():
    network = networks.mlp((3, 64, 1), dropout=0.5)
    params = network.init(KEY)
    np.testing.assert_array_equal(network.apply(params, X), networks.mlp((3, 64, 1)).apply(params, X))
    noisy = [network.apply(params, X, key=jax.random.key(i)) for i in range(2)]
    assert not np.allclose(noisy[0], noisy[1])
    many = jax.vmap(lambda k: network.apply(params, X, key=k))(jax.random.split(KEY, 2000)).mean(0)
    np.testing.assert_allclose(many, network.apply(params, X), atol=0.06)  # inverted dropout keeps the mean


def test_population_of_networks():
    q = networks.q_network(SPEC, (8, 8))
    keys = jax.random.split(KEY, 3)
    params = jax.jit(jax.vmap(q.init))(keys)
    values = jax.vmap(q.apply, in_axes=(0, None, None))(params, X, A)
    assert values.shape == (3, 2, 16)
    np.testing.assert_allclose(values[1], q.apply(q.init(keys[1]), X, A), atol=1e-6)


def test_mish_is_the_textbook_mish():
    x = jnp.linspace(-30.0, 60.0, 400)
    x64 = np.asarray(x, np.float64)
    np.testing.assert_allclose(
        networks.activation("mish")(x), x64 * np.tanh(np.logaddexp(0.0, x64)), rtol=2e-6, atol=1e-7
    )
    gradient = jax.vmap(jax.grad(networks.activation("mish")))(jnp.array([-200.0, 0.0, 25.0, 200.0]))
    np.testing.assert_allclose(gradient, [0.0, 0.6, 1.0, 1.0], atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: networks.mlp((3, 2), activation="reluu"), "did you mean 'relu'"),
        (lambda: networks.mlp((3, 2), layer_norm="evry"), "did you mean 'every'"),
        (lambda: networks.mlp((3, 2), init="he"), "known: orthogonal, torch"),
    ],
)
def test_unknown_names_are_one_line_errors(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_wrong_widths_raise():
    network = networks.mlp((3, 8, 2))
    with pytest.raises(ValueError, match="width 3"):
        network.apply(network.init(KEY), X[:, :2])
    q = networks.q_network(SPEC, (8,))
    with pytest.raises((ValueError, TypeError)):
        q.apply(q.init(KEY), X, A[:4])
    with pytest.raises(ValueError, match="at least one"):
        networks.ensemble(network, 0)

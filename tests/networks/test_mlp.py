"""Networks: shapes, parameter counts, initialisation, ensembles."""

import functools

import jax
import numpy as np
import pytest

from jaxrl_reg import networks
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 3)).astype(np.float32)
A = np.tanh(RNG.normal(size=(16, 2))).astype(np.float32)


def start(network):
    """Initial parameters as NumPy arrays. Compiled as a whole: operation by operation takes many times longer."""
    return jax.tree.map(np.asarray, jax.jit(network.init)(KEY))


def count(network):
    return networks.parameter_count(jax.eval_shape(network.init, KEY))


def dense(layer, x):
    return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)


def layer_norm(layer, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * np.asarray(layer["scale"], np.float64) + np.asarray(layer["bias"], np.float64)


def perturbed(params):
    """Parameters without the zeros and ones of a fresh LayerNorm."""
    return jax.tree.map(lambda leaf: (leaf + 0.3 * RNG.normal(size=leaf.shape)).astype(np.float32), params)


@pytest.mark.parametrize("kind", ["none", "every", "before", "first_tanh"])
def test_mlp_equals_numpy(kind):
    network = networks.mlp((3, 8, 8, 2), layer_norm=kind, final_activation="tanh")
    params = perturbed(start(network))
    x = np.asarray(X, np.float64)
    for layer in range(2):
        x = dense(params[f"Dense_{layer}"], x)
        if kind == "before":
            x = layer_norm(params[f"LayerNorm_{layer}"], x)
        x = np.tanh(layer_norm(params["LayerNorm_0"], x)) if kind == "first_tanh" and layer == 0 else np.maximum(x, 0.0)
        if kind == "every":
            x = layer_norm(params[f"LayerNorm_{layer}"], x)
    y, features = jax.jit(functools.partial(network.apply, features=True))(params, X)
    np.testing.assert_allclose(features, x, atol=2e-5)
    np.testing.assert_allclose(y, np.tanh(dense(params["Dense_2"], x)), atol=2e-5)


def test_parameter_counts():
    assert count(networks.mlp((3, 8, 8, 2))) == 3 * 8 + 8 + 8 * 8 + 8 + 8 * 2 + 2
    assert count(networks.mlp((3, 8, 8, 2), layer_norm="every")) == 122 + 2 * 16
    assert count(networks.mlp((3, 8, 8, 2), layer_norm="first_tanh")) == 122 + 16
    assert count(networks.q_network(SPEC, (8, 8), 4)) == 4 * ((5 * 8 + 8) + (8 * 8 + 8) + 9)
    assert count(networks.value_network(SPEC, (8, 8))) == (3 * 8 + 8) + (8 * 8 + 8) + 9
    # The size that the literature quotes: two critics of 2 x 256 on 17 observations and 6 actions.
    assert count(networks.q_network(Spec(17, 6))) == 2 * (24 * 256 + 257 * 256 + 257)


def test_torch_initialisation_is_uniform_in_the_fan_in():
    params = start(networks.mlp((16, 300, 100, 5), layer_norm="every"))
    for name, fan_in in (("Dense_0", 16), ("Dense_1", 300), ("Dense_2", 100)):
        limit = fan_in**-0.5
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        assert np.abs(kernel).max() <= limit
        assert np.abs(bias).max() <= limit
        assert np.abs(kernel).max() > 0.95 * limit
        assert np.abs(bias).max() > 0.5 * limit
        n = kernel.size
        assert abs(kernel.std() / limit - 3**-0.5) < 3.0 / n**0.5
        assert abs(kernel.mean()) < 4 * limit * (3 * n) ** -0.5
    everything = np.concatenate([leaf.ravel() for name in params if "Dense" in name for leaf in params[name].values()])
    assert len(np.unique(everything)) > 0.99 * everything.size  # no number serves twice
    np.testing.assert_array_equal(params["LayerNorm_0"]["scale"], np.ones(300))
    np.testing.assert_array_equal(params["LayerNorm_0"]["bias"], np.zeros(300))
    small = start(networks.mlp((16, 8, 5), final_scale=3e-3))
    assert 2e-3 < np.abs(small["Dense_1"]["kernel"]).max() <= 3e-3
    assert np.abs(small["Dense_0"]["kernel"]).max() > 0.2


def test_orthogonal_initialisation():
    params = start(networks.mlp((8, 16, 4), init="orthogonal", final_scale=0.01))
    first, last = params["Dense_0"]["kernel"], params["Dense_1"]["kernel"]
    np.testing.assert_allclose(first @ first.T, 2.0 * np.eye(8), atol=1e-5)
    np.testing.assert_allclose(last.T @ last, 1e-4 * np.eye(4), atol=1e-8)
    assert not np.any(params["Dense_0"]["bias"])


def test_ensemble_equals_separate_networks():
    single = networks.mlp((3, 8, 1), dropout=0.5)
    stacked = networks.ensemble(single, 3)
    keys = jax.random.split(KEY, 3)

    @jax.jit
    def everything(key, keys):
        params = stacked.init(key)
        own = [single.init(keys[i]) for i in range(3)]
        together = stacked.apply(params, X), stacked.apply(params, X, key=key)
        apart = [(single.apply(own[i], X), single.apply(own[i], X, key=keys[i])) for i in range(3)]
        return params, own, together, apart, stacked.apply(networks.members(params, 3, start=1), X)

    params, own, together, apart, part = everything(KEY, keys)
    for i in range(3):
        jax.tree.map(lambda all, one, i=i: np.testing.assert_allclose(all[i], one, atol=1e-7), params, own[i])
        np.testing.assert_allclose(together[0][i], apart[i][0], atol=1e-6)
        np.testing.assert_allclose(together[1][i], apart[i][1], atol=1e-6)
    assert not np.allclose(params["Dense_0"]["kernel"][0], params["Dense_0"]["kernel"][1])
    np.testing.assert_allclose(part, together[0][1:], atol=1e-6)


def test_q_network_shapes_and_concatenation():
    q, plain = networks.q_network(SPEC, (8, 8), n_critics=4), networks.mlp((5, 8, 8, 1))
    params = start(q)
    own = jax.tree.map(lambda leaf: leaf[2], params)
    (values, features), alone = jax.jit(
        lambda: (q.apply(params, X, A, features=True), plain.apply(own, np.concatenate([X, A], -1)))
    )()
    assert values.shape == (4, 16)
    assert features.shape == (4, 16, 8)
    np.testing.assert_allclose(values[2], alone[:, 0], atol=1e-6)
    assert jax.eval_shape(q.apply, params, X[0], A[0]).shape == (4,)
    v = networks.value_network(SPEC, (8, 8))
    assert jax.eval_shape(lambda: v.apply(v.init(KEY), X)).shape == (16,)


def test_dropout_is_off_without_a_key():
    network = networks.mlp((3, 64, 1), dropout=0.5)
    params = start(network)
    keys = jax.random.split(KEY, 2000)

    @jax.jit
    def everything(keys):
        noisy = jax.vmap(lambda key: network.apply(params, X, key=key))(keys)
        return network.apply(params, X), noisy

    quiet, noisy = everything(keys)
    hidden = np.maximum(dense(params["Dense_0"], X), 0.0)
    np.testing.assert_allclose(quiet, dense(params["Dense_1"], hidden), atol=1e-6)
    assert not np.allclose(noisy[0], noisy[1])
    np.testing.assert_allclose(noisy.mean(0), quiet, atol=0.06)  # inverted dropout keeps the mean


def test_population_of_networks():
    q = networks.q_network(SPEC, (8, 8))
    keys = jax.random.split(KEY, 3)
    values, alone = jax.jit(
        lambda keys: (
            jax.vmap(lambda key: q.apply(q.init(key), X, A))(keys),
            q.apply(q.init(keys[1]), X, A),
        )
    )(keys)
    assert values.shape == (3, 2, 16)
    np.testing.assert_allclose(values[1], alone, atol=1e-6)


def test_mish_is_the_textbook_mish():
    mish = jax.jit(networks.activation("mish"))
    x = np.linspace(-30.0, 60.0, 400, dtype=np.float32)
    x64 = np.asarray(x, np.float64)
    np.testing.assert_allclose(mish(x), x64 * np.tanh(np.logaddexp(0.0, x64)), rtol=2e-6, atol=1e-7)
    gradient = jax.jit(jax.vmap(jax.grad(mish)))(np.array([-200.0, 0.0, 25.0, 200.0], np.float32))
    np.testing.assert_allclose(gradient, [0.0, 0.6, 1.0, 1.0], atol=1e-6)


def test_second_derivatives_of_mish_are_right_where_it_is_the_identity():
    """MeanFlow differentiates through a derivative by time; an overflow on the way once gave 160 in the place of 0."""
    mish, x = networks.activation("mish"), np.linspace(8.0, 100.0, 2000, dtype=np.float32)
    second = jax.jit(jax.vmap(jax.grad(lambda y: jax.jvp(mish, (y,), (1.0,))[1])))(x)
    np.testing.assert_allclose(second, 0.0, atol=1e-4)


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
    def shape_of(network, *inputs):
        return jax.eval_shape(lambda: network.apply(network.init(KEY), *inputs))

    with pytest.raises(ValueError, match="width 3"):
        shape_of(networks.mlp((3, 8, 2)), X[:, :2])
    with pytest.raises((ValueError, TypeError)):
        shape_of(networks.q_network(SPEC, (8,)), X, A[:4])
    with pytest.raises(ValueError, match="at least one"):
        networks.ensemble(networks.mlp((3, 2)), 0)
    with pytest.raises(ValueError, match="an input and an output"):
        networks.mlp((3,))


@pytest.mark.parametrize("norm", ["none", "every"])
def test_the_output_layer_makes_values_of_features(norm):
    q = networks.q_network(SPEC, (8, 8), n_critics=2, layer_norm=norm)
    params = jax.jit(q.init)(KEY)
    values, features = q.apply(params, X, A, features=True)
    kernel, bias = networks.output_layer(params)
    np.testing.assert_allclose((features @ kernel)[..., 0] + bias, values, rtol=1e-5, atol=1e-6)

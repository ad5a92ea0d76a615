"""The modules of a forecaster: which of them an output, and a gradient, goes through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.networks.modular import modular_forecaster

NET = modular_forecaster(past=6, scene=10, future=4, hidden=(8, 8), latent=3, style=2, style_hidden=(5,))
RNG = np.random.default_rng(0)
PAST, SCENE = (jnp.asarray(RNG.normal(size=(7, 2, n)), jnp.float32) for n in (6, 10))


@pytest.fixture(scope="module")
def fresh():
    return jax.jit(NET.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def params(fresh):
    """With modulators that do something; they start at zero."""
    moved = jax.tree.map(
        lambda leaf: leaf + 0.3 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), fresh["modulators"]
    )
    return {**fresh, "modulators": moved}


def forecast(params, past, scene):
    style = NET.describe(params, scene)
    return NET.decode(params, NET.encode(params, past), style)


def test_new_modulators_change_nothing(fresh):
    latent, style = NET.encode(fresh, PAST), NET.describe(fresh, SCENE)
    assert NET.decode(fresh, latent).shape == (7, 2, 4)
    np.testing.assert_array_equal(NET.decode(fresh, latent, style), NET.decode(fresh, latent))


def test_modulation_by_hand(params):
    """Both parts of the decoder, with a residual perceptron of what is there and of the style behind each."""

    def layers(module, x):
        count = len(module)
        for i in range(count):
            x = x @ np.asarray(module[f"Dense_{i}"]["kernel"]) + np.asarray(module[f"Dense_{i}"]["bias"])
            x = np.maximum(x, 0) if i < count - 1 else x
        return x

    z, s = NET.encode(params, PAST[:, 0]), NET.describe(params, SCENE[:, 0])
    np.testing.assert_allclose(z, layers(params["encoder"], np.asarray(PAST[:, 0])), rtol=1e-5, atol=1e-6)
    h = np.maximum(layers(params["decoder"][0], np.asarray(z)), 0)
    h = h + layers(params["modulators"][0], np.concatenate([h, s], -1))
    y = layers(params["decoder"][1], h)
    y = y + layers(params["modulators"][1], np.concatenate([y, s], -1))
    np.testing.assert_allclose(NET.decode(params, z, s), y, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_modules_in_use_and_no_other(params):
    def touched(loss):
        slopes = jax.jit(jax.grad(loss))(params)
        return {name for name, part in slopes.items() if any(bool(jnp.any(leaf)) for leaf in jax.tree.leaves(part))}

    def total(out):
        return jnp.square(out).sum()

    assert touched(lambda p: total(NET.decode(p, NET.encode(p, PAST)))) == {"encoder", "decoder"}
    assert touched(lambda p: total(forecast(p, PAST, SCENE))) == {"encoder", "decoder", "modulators", "style"}
    assert touched(lambda p: total(NET.project(p, NET.describe(p, SCENE)))) == {"style", "projection"}


def test_one_scene_at_a_time(params):
    np.testing.assert_allclose(
        forecast(params, PAST[3, 1], SCENE[3, 1]), forecast(params, PAST, SCENE)[3, 1], rtol=1e-4, atol=1e-6
    )

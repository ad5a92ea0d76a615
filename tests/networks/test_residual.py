"""Residual networks against NumPy, their features, and what an edit of one block's gates can reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.errors import UserError
from jaxrl_reg.networks import gated_residual, output_layer, q_network, residual_mlp
from jaxrl_reg.types import Spec

NETWORK = gated_residual((3, 4, 2), 2, units=5)
PARAMS = NETWORK.init(jax.random.key(0))
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def by_hand(params, x):
    def norm(h):
        return h / np.sqrt(np.square(h).mean(-1, keepdims=True) + 1e-6)

    kernels = {name: np.asarray(params["blocks"][name]["kernel"], np.float64) for name in ("gate", "up", "down")}
    h, written = x @ np.asarray(params["first"]["kernel"]) + np.asarray(params["first"]["bias"]), []
    for number in range(2):
        n = norm(h)
        opened = n @ kernels["gate"][number]
        h = h + (opened / (1 + np.exp(-opened)) * (n @ kernels["up"][number])) @ kernels["down"][number]
        written.append(h)
    return norm(h) @ np.asarray(params["last"]["kernel"]) + np.asarray(params["last"]["bias"]), np.stack(written)


def test_it_is_what_numpy_makes_of_it_and_shows_the_stream():
    params = jax.tree.map(lambda leaf: leaf + 0.1, PARAMS)  # biases that are not 0
    y, written = jax.jit(lambda params, x: NETWORK.apply(params, x, features=True))(params, X)
    wanted, stream = by_hand(params, X.astype(np.float64))
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(written, stream, rtol=1e-4, atol=1e-5)
    assert written.shape == (2, 6, 4)


def test_gates_of_the_second_block_do_not_reach_the_stream_before_it():
    edited = jax.tree.map(lambda leaf: leaf, PARAMS)
    edited["blocks"]["gate"]["kernel"] = PARAMS["blocks"]["gate"]["kernel"].at[1].add(1.0)
    _, before = NETWORK.apply(PARAMS, X, features=True)
    _, after = NETWORK.apply(edited, X, features=True)
    np.testing.assert_array_equal(before[0], after[0])
    assert float(jnp.abs(before[1] - after[1]).max()) > 1e-3


def test_kernels_keep_the_scale_and_sizes_are_checked():
    wide = gated_residual((7, 64, 3), 2, final_scale=0.1).init(jax.random.key(1))
    assert wide["blocks"]["down"]["kernel"].shape == (2, 128, 64)
    assert float(wide["blocks"]["gate"]["kernel"].std()) == pytest.approx(1 / 8, rel=0.05)
    assert float(wide["last"]["kernel"].std()) == pytest.approx(0.1 / 8, rel=0.2)
    for sizes, blocks in (((3, 4), 1), ((3, 4, 2), 0)):
        with pytest.raises(UserError, match="gated_residual"):
            gated_residual(sizes, blocks)


def norm_of(part, x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6) * part["scale"] + part["bias"]


def blocks_by_hand(params, x, style):
    """Output, ReLU units of each block, and what the head reads."""

    def affine(part, x):
        return x @ part["kernel"] + part["bias"]

    h, units = affine(params["Dense_0"], x), []
    if style == "bro":
        h = np.maximum(norm_of(params["LayerNorm_0"], h), 0)
    for i in range(2):
        part = params[f"Block_{i}"]
        if style == "simba":
            units.append(np.maximum(affine(part["Dense_0"], norm_of(part["LayerNorm_0"], h)), 0))
            h = h + affine(part["Dense_1"], units[-1])
        else:
            units.append(np.maximum(norm_of(part["LayerNorm_0"], affine(part["Dense_0"], h)), 0))
            h = h + norm_of(part["LayerNorm_1"], affine(part["Dense_1"], units[-1]))
    h = norm_of(params["LayerNorm_0"], h) if style == "simba" else h
    return affine(params["Dense_1"], h), units, h


@pytest.mark.parametrize("style", ["simba", "bro"])
def test_blocks_of_critics_are_what_numpy_makes_of_them(style):
    network = residual_mlp((3, 6, 2), 2, style=style)
    params = jax.jit(network.init)(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: np.float32(np.asarray(leaf) + 0.3 * rng.normal(size=leaf.shape)), params)
    y, (*units, h) = jax.jit(lambda params, x: network.apply(params, x, features="all"))(params, X)
    wanted, each, last = blocks_by_hand(
        jax.tree.map(lambda leaf: leaf.astype(np.float64), params), X.astype(np.float64), style
    )
    for found, expected in zip((y, *units, h), (wanted, *each, last), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    kernel, bias = output_layer(params)
    np.testing.assert_allclose(y, h @ kernel + bias, rtol=1e-5, atol=1e-5)


def test_first_weights_of_blocks():
    simba = jax.jit(residual_mlp((5, 64, 1), 1).init)(jax.random.key(0))
    np.testing.assert_allclose(simba["Dense_0"]["kernel"] @ simba["Dense_0"]["kernel"].T, np.eye(5), atol=1e-4)
    assert simba["Block_0"]["Dense_0"]["kernel"].shape == (64, 256)
    for name, rows in (("Dense_0", 64), ("Dense_1", 256)):
        assert float(simba["Block_0"][name]["kernel"].std()) == pytest.approx((2 / rows) ** 0.5, rel=0.05)
    bro = jax.jit(residual_mlp((5, 64, 1), 1, style="bro").init)(jax.random.key(0))
    for kernel in (bro["Block_0"]["Dense_0"]["kernel"], bro["Block_0"]["Dense_1"]["kernel"]):
        np.testing.assert_allclose(kernel @ kernel.T, 2 * np.eye(64), atol=1e-3)
    for norm in (bro["LayerNorm_0"], bro["Block_0"]["LayerNorm_1"]):
        np.testing.assert_array_equal(norm["scale"], 1.0)


def test_bodies_of_critics_say_what_they_need():
    spec = Spec(observation_dim=2, action_dim=1)
    with pytest.raises(UserError, match="simba"):
        q_network(spec, (8,), body="simbaa")
    with pytest.raises(UserError, match="takes no layer_norm"):
        q_network(spec, (8,), body="bro", layer_norm="every")
    for hidden in ((8, 16), ()):
        with pytest.raises(UserError, match="of one width"):
            q_network(spec, hidden, body="simba")
    with pytest.raises(UserError, match="residual_mlp needs"):
        residual_mlp((3, 0, 2), 1)
    with pytest.raises(ValueError, match="width 3"):
        residual_mlp((3, 4, 2), 1).apply({}, jnp.zeros((1, 2)))

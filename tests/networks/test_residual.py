"""The gated residual network against NumPy, its features, and what an edit of one block's gates can reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.errors import UserError
from jaxrl_reg.networks import gated_residual

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

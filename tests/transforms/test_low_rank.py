"""Adapters: what they are at first, what they add, whom they touch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reg.transforms import adapted, low_rank, low_rank_change, merged, orthogonality

PARAMS = {
    "first": {"kernel": jnp.ones((40, 6)), "bias": jnp.zeros(6)},
    "critics": {"kernel": jnp.ones((2, 3, 2)), "bias": jnp.zeros((2, 2))},
}
A = jnp.array([[0.1, 0.2], [-0.3, 0.4], [0.5, 0.0]])
B = jnp.array([[1.0, -1.0], [0.5, 2.0]])


def test_the_change_by_hand():
    by_hand = [[0.8, 1.2], [-0.4, 4.4], [2.0, -2.0]]
    np.testing.assert_allclose(low_rank_change({"a": A, "b": B}, 8 / 2), by_hand, rtol=1e-6)
    earlier = {"a": jnp.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), "b": B}
    assert float(orthogonality({"a": A, "b": B}, earlier)) == pytest.approx(0.325)


def test_adapters_start_at_nothing_and_are_of_kernels_only():
    adapters = low_rank(jax.random.key(0), PARAMS, 4)
    assert adapters["first"]["bias"] is None
    assert adapters["critics"]["bias"] is None
    shapes = jax.tree.map(jnp.shape, adapters, is_leaf=lambda x: isinstance(x, jax.Array))
    assert shapes["first"]["kernel"] == {"a": (40, 4), "b": (4, 6)}
    assert shapes["critics"]["kernel"] == {"a": (2, 3, 2), "b": (2, 2, 2)}  # rank is at most that of the kernel
    assert float(adapters["first"]["kernel"]["a"].std()) == pytest.approx(40**-0.5, rel=0.2)
    for same, before in zip(*map(jax.tree.leaves, (merged(PARAMS, adapters, 2.0), PARAMS)), strict=True):
        np.testing.assert_array_equal(same, before)


def test_gradients_reach_the_adapters_and_a_leaf_without_one_stays_itself():
    adapters = low_rank(jax.random.key(0), PARAMS, 1, select=lambda path, leaf: leaf.shape == (40, 6))
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    assert merged(wide, adapters, 1.0)["first"]["kernel"].dtype == jnp.bfloat16
    assert merged(wide, adapters, 1.0)["critics"]["kernel"] is wide["critics"]["kernel"]

    def loss(adapters, scale):
        return merged(PARAMS, adapters, scale)["first"]["kernel"][0].sum()

    gradient = jax.vmap(jax.grad(loss), in_axes=(None, 0))(adapters, jnp.array([1.0, 3.0]))["first"]["kernel"]
    np.testing.assert_allclose(gradient["b"][1], 3.0 * gradient["b"][0])
    np.testing.assert_allclose(gradient["b"][0], jnp.broadcast_to(adapters["first"]["kernel"]["a"][0], (6, 1)).T)
    assert (gradient["a"] == 0).all()  # b is 0 at first


def test_the_earlier_adapters_stand_still():
    earlier = {"a": jnp.ones((3, 1)), "b": jnp.ones((1, 2))}
    of_new, of_old = jax.grad(orthogonality, argnums=(0, 1))({"a": A, "b": B}, earlier)
    assert (of_new["a"] != 0).any()
    assert (of_old["a"] == 0).all()


def test_what_cannot_be_adapted_is_said():
    with pytest.raises(ValueError, match="at least 1"):
        low_rank(jax.random.key(0), PARAMS, 0)
    with pytest.raises(ValueError, match="no leaf is selected"):
        low_rank(jax.random.key(0), {"bias": jnp.zeros(3)}, 2)
    with pytest.raises(ValueError, match=r"\['bias'\] has shape \[3\]"):
        low_rank(jax.random.key(0), {"bias": jnp.zeros(3)}, 2, select=lambda *_: True)


def test_an_optimiser_of_weights_trains_adapters_as_if_the_loss_were_of_them():
    """Against gradients with respect to the adapters themselves, over several steps of Adam; biases stay."""
    params = {"one": {"kernel": jax.random.normal(jax.random.key(1), (3, 5)), "bias": jnp.ones(5)}}
    x, y = jax.random.normal(jax.random.key(2), (7, 3)), jnp.arange(35.0).reshape(7, 5) / 35

    def loss(params):
        return jnp.square(jnp.tanh(x @ params["one"]["kernel"] + params["one"]["bias"]) - y).mean()

    plain = optax.adam(0.05, eps=0.01)  # so large that the scale of a gradient counts
    optimiser = adapted(plain, params, jax.random.key(3), 2, scale=1.5)

    @jax.jit
    def both(carry):
        moving, state, adapters, own = carry
        steps, state = optimiser.update(jax.grad(loss)(moving), state, moving)
        more, own = plain.update(jax.grad(lambda a: loss(merged(params, a, 1.5)))(adapters), own, adapters)
        return optax.apply_updates(moving, steps), state, optax.apply_updates(adapters, more), own

    adapters = low_rank(jax.random.key(3), params, 2)
    carry = (params, optimiser.init(params), adapters, plain.init(adapters))
    for _ in range(5):
        carry = both(carry)
    wanted = merged(params, carry[2], 1.5)
    np.testing.assert_allclose(carry[0]["one"]["kernel"], wanted["one"]["kernel"], rtol=1e-5)
    np.testing.assert_array_equal(carry[0]["one"]["bias"], 1.0)
    change = carry[0]["one"]["kernel"] - params["one"]["kernel"]
    assert np.linalg.matrix_rank(np.asarray(change), tol=1e-4) == 2
    with pytest.raises(ValueError, match="state, params"):
        optimiser.update(carry[0], carry[1])

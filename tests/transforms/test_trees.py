"""Polyak averaging and the elementwise gradient clamp."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.transforms import averaged, clamp_gradients, interpolated, largest_change, polyak

ONLINE = {"w": jnp.array([1.0, 3.0]), "b": [jnp.array(5.0)], "count": jnp.array(7)}
TARGET = {"w": jnp.array([0.0, 1.0]), "b": [jnp.array(1.0)], "count": jnp.array(2)}


def test_polyak_by_hand():
    mixed = polyak(ONLINE, TARGET, 0.25)
    np.testing.assert_allclose(mixed["w"], [0.25, 1.5])
    np.testing.assert_allclose(mixed["b"][0], 2.0)
    assert mixed["count"] == 7


def test_polyak_ends_are_exact():
    generator = np.random.default_rng(0)
    online, target = jnp.array(generator.normal(size=(2, 1000)) * [[1e-3], [1e3]], jnp.float32)
    np.testing.assert_array_equal(polyak(online, target, 0.0), target)
    np.testing.assert_array_equal(polyak(online, target, 1.0), online)


def test_polyak_repeated_is_the_closed_form():
    target = jax.lax.fori_loop(0, 100, lambda _, t: polyak(jnp.float32(1.0), t, 0.05), jnp.float32(0.0))
    assert target == pytest.approx(1 - 0.95**100, rel=1e-5)


def test_polyak_traces_and_maps_its_rate_and_keeps_dtypes():
    rates = jnp.array([0.0, 0.5, 1.0])
    mixed = jax.jit(jax.vmap(polyak, (None, None, 0)))(ONLINE, TARGET, rates)
    np.testing.assert_allclose(mixed["b"][0], [1.0, 3.0, 5.0])
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (ONLINE["w"], TARGET["w"]))
    assert polyak(*half, jnp.float32(0.5)).dtype == jnp.bfloat16
    assert polyak(ONLINE["w"], half[1], 0.5).dtype == jnp.bfloat16


def test_polyak_copies_keys_and_counters():
    online = {"key": jax.random.key(1), "w": jnp.ones(2)}
    target = {"key": jax.random.key(0), "w": jnp.zeros(2)}
    assert polyak(online, target, 0.5)["key"] == jax.random.key(1)


def test_polyak_refuses_trees_that_do_not_match():
    with pytest.raises(ValueError, match=r"online\['w'\] has shape \[2\], target\['w'\] \[2, 1\]"):
        polyak(ONLINE, TARGET | {"w": jnp.ones((2, 1))}, 0.5)
    with pytest.raises(ValueError, match="b"):
        polyak(ONLINE, {"w": TARGET["w"], "count": TARGET["count"]}, 0.5)
    with pytest.raises(ValueError, match=r"rate has shape \[2\]"):
        polyak(ONLINE, TARGET, jnp.ones(2))


def test_clamp_is_elementwise():
    tree = {"a": jnp.array([-3.0, 0.5, 2.0, jnp.inf]), "b": jnp.array([1.5], jnp.bfloat16)}
    clamped = clamp_gradients(tree, 1.0)
    np.testing.assert_array_equal(clamped["a"], [-1.0, 0.5, 1.0, 1.0])
    np.testing.assert_array_equal(clamped["b"].astype(jnp.float32), [1.0])
    assert clamp_gradients(tree, jnp.float32(1.0))["b"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(clamp_gradients(tree, jnp.inf)["a"], tree["a"])
    bounds = jax.vmap(clamp_gradients, (None, 0))(jnp.array([5.0]), jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(bounds, [[1.0], [2.0]])
    assert np.isnan(clamp_gradients(jnp.array([jnp.nan]), 1.0)).all()
    with pytest.raises(ValueError, match=r"bound has shape \[1\]"):
        clamp_gradients(tree, jnp.ones(1))


def test_means_of_trees_by_hand():
    first, second = {"w": jnp.array([1.0, -3.0])}, {"w": jnp.array([3.0, 1.0])}
    np.testing.assert_allclose(averaged([first, second])["w"], [2.0, -1.0])
    np.testing.assert_allclose(averaged([first, second], [0.75, 0.25])["w"], [1.5, -2.0])
    np.testing.assert_allclose(interpolated(first, second, 0.25)["w"], [1.5, -2.0])
    np.testing.assert_array_equal(interpolated(first, second, 1.0)["w"], second["w"])
    wide = jax.vmap(interpolated, (None, None, 0))(first, second, jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(wide["w"], [first["w"], second["w"]])
    assert averaged([{"w": jnp.ones(2, jnp.bfloat16)}])["w"].dtype == jnp.bfloat16
    for wrong, message in (([], "no trees"), ([first], "1 trees, 2 weights")):
        with pytest.raises(ValueError, match=message):
            averaged(wrong, [0.5, 0.5])


def test_the_largest_change_is_not_the_largest_value():
    base = {"w": jnp.array([1.0, 1.0, 1.0])}
    trees = [{"w": jnp.array([-2.0, 1.5, 0.0])}, {"w": jnp.array([2.0, 1.2, 2.0])}]
    np.testing.assert_allclose(largest_change(trees, base)["w"], [-2.0, 1.5, 0.0])  # of equal sizes the first
    with pytest.raises(ValueError, match="no trees"):
        largest_change([], base)

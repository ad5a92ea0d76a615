"""The orthogonal combination of two gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reg.transforms import add_orthogonal, orthogonal_combine


def trees(seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return [
        {"a": jnp.asarray(rng.normal(size=(3, 4)), dtype), "b": [jnp.asarray(rng.normal(size=5), dtype)]}
        for _ in range(2)
    ]


def flat(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def test_by_hand():
    found = orthogonal_combine({"x": jnp.array([2.0, 0.0])}, {"x": jnp.array([-3.0, 4.0])})
    np.testing.assert_allclose(found.gradient["x"], [2.0, 4.0])
    assert found.coefficient == -1.5
    np.testing.assert_allclose(found.cosine, -0.6, rtol=1e-6)


def test_equals_numpy_over_all_leaves_as_one_vector():
    forward, backward = trees()
    f, b = flat(forward), flat(backward)
    found = jax.jit(orthogonal_combine)(forward, backward)
    np.testing.assert_allclose(flat(found.gradient), f + b - (f @ b) / (f @ f) * f, atol=1e-5)
    np.testing.assert_allclose(found.cosine, (f @ b) / np.sqrt((f @ f) * (b @ b)), atol=1e-5)
    # Leaf by leaf it would be another vector.
    leafwise = flat(jax.tree.map(lambda x, y: orthogonal_combine(x, y).gradient, forward, backward))
    assert np.abs(flat(found.gradient) - leafwise).max() > 1e-2


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_added_part_is_orthogonal_and_the_first_gradient_is_kept_whole(scale):
    for seed in range(5):
        forward, backward = (jax.tree.map(lambda x: scale * x, tree) for tree in trees(seed))
        f, g = flat(forward), flat(orthogonal_combine(forward, backward).gradient)
        square = f @ f
        assert abs(f @ (g - f)) < 1e-6 * square
        assert abs(f @ g - square) < 1e-6 * square


def test_it_does_not_undo_the_first_loss_where_the_sum_does():
    """Two quadratic losses with opposed minima: the sum moves the first loss up, the combination moves it down."""

    def first(x):
        return 0.5 * jnp.sum(jnp.square(x - jnp.array([1.0, 0.0])))

    def second(x):
        return 10.0 * jnp.sum(jnp.square(x - jnp.array([-1.0, 1.0])))

    x = jnp.array([0.2, 0.0])
    f, b = jax.grad(first)(x), jax.grad(second)(x)
    assert first(x - 1e-3 * (f + b)) > first(x)
    assert first(x - 1e-3 * orthogonal_combine(f, b).gradient) < first(x)


def test_vanishing_and_parallel_gradients():
    forward, backward = trees()
    nothing = jax.tree.map(jnp.zeros_like, forward)
    found = orthogonal_combine(nothing, backward)
    np.testing.assert_allclose(flat(found.gradient), flat(backward))
    assert found.cosine == found.coefficient == 0.0
    np.testing.assert_allclose(flat(orthogonal_combine(forward, nothing).gradient), flat(forward))
    opposed = orthogonal_combine(forward, jax.tree.map(jnp.negative, forward))
    np.testing.assert_allclose(flat(opposed.gradient), flat(forward), atol=1e-6)
    np.testing.assert_allclose(opposed.cosine, -1.0, atol=1e-6)


def test_every_member_of_a_population_has_its_own_coefficient():
    pairs = [trees(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs)
    found = jax.jit(jax.vmap(orthogonal_combine))(*stacked)
    for index, pair in enumerate(pairs):
        alone = orthogonal_combine(*pair)
        np.testing.assert_allclose(found.coefficient[index], alone.coefficient, rtol=1e-5)
        np.testing.assert_allclose(
            flat(jax.tree.map(lambda x, i=index: x[i], found.gradient)), flat(alone.gradient), atol=1e-6
        )
    assert np.ptp(np.asarray(found.coefficient)) > 1e-2


def test_products_are_summed_in_float32_and_dtypes_are_kept():
    forward, backward = trees(dtype=jnp.bfloat16)
    found = orthogonal_combine(forward, backward)
    assert {leaf.dtype for leaf in jax.tree.leaves(found.gradient)} == {jnp.dtype(jnp.bfloat16)}
    f, b = flat(forward), flat(backward)
    np.testing.assert_allclose(found.coefficient, (f @ b) / (f @ f), rtol=1e-5)


def test_as_a_link_of_an_optax_chain():
    forward, backward = trees()
    params = jax.tree.map(jnp.ones_like, forward)
    optimiser = optax.chain(add_orthogonal(), optax.sgd(0.1))
    updates, _ = jax.jit(optimiser.update)(forward, optimiser.init(params), params, backward=backward)
    np.testing.assert_allclose(flat(updates), -0.1 * flat(orthogonal_combine(forward, backward).gradient), atol=1e-6)
    with pytest.raises(ValueError, match="add_orthogonal: call update"):
        optimiser.update(forward, optimiser.init(params), params)
    # The optimiser's momentum sees the projected gradient, not the forward one.
    momentum = optax.chain(add_orthogonal(), optax.trace(0.9))
    _, state = momentum.update(forward, momentum.init(params), params, backward=backward)
    np.testing.assert_allclose(flat(state[1].trace), flat(orthogonal_combine(forward, backward).gradient), atol=1e-6)


def test_trees_that_do_not_match_are_refused():
    forward, backward = trees()
    with pytest.raises(ValueError, match=r"forward\['a'\] has shape \[3, 4\], backward\['a'\] \[4, 3\]"):
        orthogonal_combine(forward, backward | {"a": backward["a"].T})
    with pytest.raises(ValueError, match="b"):
        orthogonal_combine(forward, {"a": backward["a"]})

"""Gates pushed along a probe: numbers by hand, the sign, ties, a probe of nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.transforms import edit_units, mean_hidden, opposed_units

GATES = jnp.array([[1.0, -1.0, -0.5, 0.0], [0.0, 0.2, -0.5, 1.0]])  # a unit is a column
DIRECTION = jnp.array([1.0, 1.0])


def test_the_most_opposed_units_are_pushed():
    scores = opposed_units(GATES, DIRECTION)
    np.testing.assert_allclose(scores, [-0.707107, 0.554700, 1.0, -0.707107], atol=1e-6)
    edited = edit_units(GATES, DIRECTION, scores, 2, 0.5)
    np.testing.assert_allclose(edited, [[1.0, -0.5, 0.0, 0.0], [0.0, 0.7, 0.0, 1.0]], atol=1e-6)
    back = edit_units(edited, DIRECTION, scores, 2, -0.5)
    np.testing.assert_allclose(back, GATES, atol=1e-6)


def test_layers_are_ranked_together_and_strengths_may_be_traced():
    layers = jnp.stack([GATES, -GATES])
    scores = opposed_units(layers, DIRECTION)
    edited = jax.vmap(lambda s: edit_units(layers, DIRECTION, scores, 3, s))(jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(edited[0], layers)
    changed = np.argwhere(np.abs(edited[1] - layers).sum(axis=-2) > 0)
    assert changed.tolist() == [[0, 2], [1, 0], [1, 3]]  # scores 1, and the two of 0.707 in the second layer
    first_of_equals = edit_units(layers, DIRECTION, scores, 2, 1.0)
    assert np.argwhere(np.abs(first_of_equals - layers).sum(axis=-2) > 0).tolist() == [[0, 2], [1, 0]]


def test_a_probe_of_nothing_and_dead_units_change_nothing():
    np.testing.assert_array_equal(opposed_units(GATES, jnp.zeros(2)), jnp.zeros(4))
    np.testing.assert_array_equal(opposed_units(jnp.zeros((2, 3)), DIRECTION), jnp.zeros(3))
    np.testing.assert_array_equal(edit_units(GATES, DIRECTION, jnp.ones(4), 0, 5.0), GATES)
    with pytest.raises(ValueError, match="there are 4 units"):
        edit_units(GATES, DIRECTION, jnp.ones(4), 5, 1.0)
    with pytest.raises(ValueError, match="scores have shape"):
        edit_units(GATES, DIRECTION, jnp.ones(3), 1, 1.0)


def test_episodes_are_means_over_the_steps_that_were_taken():
    hidden = jnp.array([[[1.0], [jnp.nan]], [[3.0], [5.0]]])
    alive = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(mean_hidden(hidden, alive), [[2.0], [5.0]])
    np.testing.assert_array_equal(mean_hidden(hidden, jnp.zeros((2, 2))), jnp.zeros((2, 1)))

"""Rows at the boundary of a set and virtual ones beyond it: by hand, with padding, and mapped over sets."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.data import outliers

ROWS = jnp.array([[1.0, 0], [0.8, 0.6], [0, 1], [-1, 0], [0.6, 0.8]])


def reach(rows, neighbours):
    """Squared distance to the neighbour of that rank, each row its own first."""
    return np.sort(np.square(rows[:, None] - rows[None]).sum(-1), axis=1)[:, neighbours - 1]


def test_boundary_rows_by_hand():
    np.testing.assert_allclose(reach(np.asarray(ROWS), 2), [0.4, 0.08, 0.4, 2, 0.08], atol=1e-6)
    one = jnp.ones(5)
    np.testing.assert_array_equal(outliers.boundary_rows(ROWS, one, 2, 2), [3, 0])  # of the equal 0 and 2 the first
    longer = ROWS * jnp.array([5.0, 1, 3, 0.1, 2])[:, None]
    np.testing.assert_array_equal(outliers.boundary_rows(longer, one, 2, 2), [3, 0])  # only directions count


def test_padding_is_nobodys_neighbour_and_chosen_last():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 6))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    padded = jnp.asarray(np.concatenate([rows, np.zeros((10, 6)), rows[:10]]), jnp.float32)
    valid = jnp.asarray(np.arange(60) < 40, jnp.float32)
    for neighbours in (5, 59):  # more than there are: the last of them
        expected = np.argsort(-reach(rows, min(neighbours, 40)), kind="stable")[:8]
        np.testing.assert_array_equal(outliers.boundary_rows(padded, valid, neighbours, 8), expected)
    assert set(np.asarray(outliers.boundary_rows(padded, valid, 5, 45))[:40].tolist()) == set(range(40))


def test_outliers_lie_around_the_boundary_and_beyond_the_others():
    rng = np.random.default_rng(1)
    sets = jnp.asarray(rng.normal(size=(3, 30, 4)) * 5, jnp.float32)
    valid = jnp.asarray(np.arange(30) < np.array([[30], [20], [2]]), jnp.float32)

    def drawn(key, features, valid):
        return outliers.virtual_outliers(key, features, valid, neighbours=4, boundary=5, draws=20, keep=60, scale=0.1)

    keys = jax.random.split(jax.random.key(0), 3)
    found, weight = jax.jit(jax.vmap(drawn))(keys, sets, valid)
    assert found.shape == (3, 60, 4)
    np.testing.assert_array_equal(weight.sum(1), [60, 60, 40])  # two valid rows have forty draws
    for features, row, points in zip(sets[:2], valid, found, strict=False):
        unit = np.asarray(features[row > 0] / jnp.linalg.norm(features[row > 0], axis=1, keepdims=True))
        edge = unit[np.argsort(-reach(unit, 4), kind="stable")[:5]]
        near = np.square(np.asarray(points)[:, None] - edge).sum(-1).min(1)
        assert near.max() < 0.4  # not around 0, where every distance would be about 1
        away = np.sort(np.square(np.asarray(points)[:, None] - unit).sum(-1), axis=1)[:, 3]
        assert (np.diff(away) < 1e-5).all()  # furthest first

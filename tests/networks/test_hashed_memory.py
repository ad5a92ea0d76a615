"""Hashed memory against numbers by hand, and the table against the direct form."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.contract.subject import quick
from jaxrl_reg.networks import hashed_memory as memory

PLANES = jnp.array([[[1.0, 0], [0, 1]], [[1, 1], [1, -1]]])
KEYS = jnp.array([[1, 0.2], [0.9, 0.8], [-0.5, 1], [0.3, -1]])
VALUES = jnp.array([[1.0, 0], [0, 1], [1, 1], [2, 0]])
QUERY = jnp.array([1, 0.5])
ALL = jnp.ones(4)


@quick
def by_hand():
    return {
        "signatures of keys": (memory.simhash(KEYS, PLANES), [[3, 3], [3, 3], [2, 1], [1, 2]]),
        "of the query": (memory.simhash(QUERY, PLANES), [3, 3]),
        "read": (memory.hashed_read(QUERY, KEYS, VALUES, ALL, PLANES), [0.707107, 0.707107]),
        "sums": (memory.hashed_read(QUERY, KEYS, VALUES, ALL, PLANES, normalise=False), [1, 1]),
        "weights": (memory.collision_weights(QUERY, KEYS, 2), [0.837681, 0.839580, 0.25, 0.198194]),
        "expected": (memory.expected_read(QUERY, KEYS, VALUES, ALL, 2, normalise=False), [1.484070, 1.089580]),
        "nothing there": (memory.read(memory.empty(2, 2, 2), QUERY, PLANES), [0, 0]),
    }


def test_signatures_weights_and_reads_by_hand():
    for name, (found, expected) in by_hand().items():
        np.testing.assert_allclose(found, expected, atol=2e-6, err_msg=name)


@quick
def tables(key):
    """Two episodes of 40 items of which some are masked: each by the table, by single writes and directly."""
    keys = jax.random.split(key, 5)
    planes = memory.rotations(keys[0], 3, 4, 5)
    items = jax.random.normal(keys[1], (2, 40, 5))
    values = jax.random.normal(keys[2], (2, 40, 3))
    mask = jax.random.bernoulli(keys[3], 0.7, (2, 40)).astype(float)
    query = jax.random.normal(keys[4], (2, 5))
    table = jax.vmap(memory.encode, in_axes=(0, 0, 0, None))(items, values, mask, planes)

    def add(table, item):
        key, value, kept = item
        return memory.write(table, key, value * kept[:, None], planes), None

    start = jnp.broadcast_to(memory.empty(3, 4, 3), (2, 3, 16, 3))
    written, _ = jax.lax.scan(add, start, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (items, values, mask)))
    direct = jax.vmap(lambda *args: memory.hashed_read(*args, planes))(query, items, values, mask)
    faded = memory.write(table, items[:, 0], values[:, 0], planes, decay=0.5)
    angle = jnp.arccos((query[0] / jnp.linalg.norm(query[0])) @ (query[1] / jnp.linalg.norm(query[1])))
    many = memory.rotations(keys[3], 20_000, 2, 5)
    shared = (memory.simhash(query[0], many) == memory.simhash(query[1], many)).mean()
    slope = jax.grad(lambda x: memory.expected_read(x, items[0], values[0], 0 * mask[0], 4).sum())(query[0])
    at_itself = jax.grad(lambda x: memory.collision_weights(x, items[0, :1], 4).sum())(items[0, 0])
    return table, written, memory.read(table, query, planes), direct, faded, (angle, shared), (slope, at_itself)


def test_the_table_is_the_direct_form_whatever_its_order():
    table, written, read, direct, faded, (angle, shared), slopes = tables(jax.random.key(0))
    np.testing.assert_allclose(written, table, atol=1e-6)
    np.testing.assert_allclose(read, direct, atol=1e-6)
    assert abs(read).max() > 0.1
    changed = (np.abs(np.asarray(faded) - 0.5 * np.asarray(table)) > 1e-6).any(axis=-1)
    assert (changed.sum(axis=-1) == 1).all()  # one bucket of every signature
    chance = (1 - angle / np.pi) ** 2
    assert abs(shared - chance) < 3 * np.sqrt(chance * (1 - chance) / 20_000)
    assert all(np.isfinite(slope).all() for slope in slopes)

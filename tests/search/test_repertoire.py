"""Stores of solutions, novelty, Pareto fronts and grids of elites: numbers of the equations, and the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.search import repertoire as store

append, keep_best = jax.jit(store.append), jax.jit(store.keep_best)
novelty = jax.jit(store.novelty, static_argnames="neighbours")
front = jax.jit(store.pareto_front)
EXTENT = ((0.0, 1.0), (0.0, 2.0))


@jax.jit
def one_insert(elites, genome, fitness, place, mask):
    return store.insert(elites, genome, fitness, place, EXTENT, mask)


@jax.jit
def mapped_insert(*arrays):
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), arrays)
    return jax.tree.map(lambda leaf: leaf[1], jax.vmap(one_insert)(*stacked))


def rows(fitness):
    fitness = np.asarray(fitness, np.float32)
    return store.rows(np.stack([fitness, -fitness], -1), fitness[:, None], fitness, {"fresh": fitness + 1})


def held(repertoire):
    return np.asarray(repertoire.fitness)[np.asarray(store.filled(repertoire))].tolist()


def test_novelty_has_the_numbers_of_the_equations():
    asked = np.float32([[0, 0], [3, 4]])
    reference = np.float32([[0, 0], [1, 0], [0, 2], [6, 8]])
    np.testing.assert_allclose(novelty(asked, reference, np.ones(4, bool), neighbours=2), [1.5, 4.736068], rtol=1e-6)
    two = np.array([True, True, False, False])
    np.testing.assert_allclose(novelty(asked, reference, two, neighbours=2), [1, 5], rtol=1e-6)  # one neighbour left
    one = np.array([False, True, False, False])
    np.testing.assert_array_equal(novelty(asked, reference, one, neighbours=2), 0)
    np.testing.assert_array_equal(novelty(asked, reference, np.zeros(4, bool), neighbours=2), 0)
    np.testing.assert_array_equal(novelty(np.ones((5, 2)), np.ones((5, 2)), np.ones(5, bool), neighbours=2), 0)


def test_novelty_is_the_mean_distance_in_numpy_and_keeps_the_digits_of_close_outcomes():
    rng = np.random.default_rng(0)
    asked, reference, there = rng.normal(size=(20, 3)), rng.normal(size=(60, 3)), rng.uniform(size=60) < 0.7
    distance = np.sort(np.linalg.norm(asked[:, None] - reference[there], axis=-1), axis=1)[:, 1:16]
    found = novelty(asked.astype(np.float32), reference.astype(np.float32), there)
    np.testing.assert_allclose(found, distance.mean(1), rtol=1e-5)
    close = 100 + np.float32([[0], [2**-10], [2**-9]])
    np.testing.assert_allclose(novelty(close, close, np.ones(3, bool)), [1.5 / 1024, 1 / 1024, 1.5 / 1024], rtol=1e-6)
    # The same rows many times over: duplicates are neighbours of each other.
    many = jax.vmap(store.novelty, (0, None, None))(np.float32(asked)[:, None], np.float32(reference), there)
    np.testing.assert_allclose(many[:, 0], found, rtol=1e-6)


def test_the_pareto_front_holds_what_nothing_dominates():
    values = np.float32([[1, 3], [2, 2], [3, 1], [1, 1], [2, 2]])
    assert front(values, np.ones(5, bool)).tolist() == [True, True, True, False, True]
    without = np.array([False, False, True, True, False])
    assert front(values, without).tolist() == [False, False, True, False, False]
    assert front(values, np.arange(5) == 3).tolist() == [False, False, False, True, False]
    assert not front(values, np.zeros(5, bool)).any()


def test_what_finds_no_slot_is_dropped():
    two = append(store.empty(rows([0]), 3), rows([5, 6]), np.ones(2))
    assert held(store.empty(rows([0]), 3)) == []
    full = append(two, rows([1, 2, 3]), np.array([1, 0, 1]))
    assert held(full) == [5, 6, 1]
    assert full.extras["fresh"].tolist() == [6, 7, 2]
    assert full.genome.tolist() == [[5, -5], [6, -6], [1, -1]]
    assert held(append(full, rows([9]), np.ones(1))) == [5, 6, 1]
    nothing = append(two, rows([1, 2, 3]), np.zeros(3))
    jax.tree.map(np.testing.assert_array_equal, nothing, two)
    one = append(store.empty(rows([0]), 1), rows([4, 4, 4]), np.ones(3))
    assert held(one) == [4]
    assert held(store.take(full, jnp.array([2, 0]))) == [1, 5]


def test_an_archive_that_is_full_keeps_the_best():
    assert held(keep_best(store.empty(rows([0]), 3), rows([5, 6]), np.array([1, 0]))) == [5]
    full = append(store.empty(rows([0]), 3), rows([5, 6, 1]), np.ones(3))
    assert sorted(held(keep_best(full, rows([4, 9, 0]), np.array([1, 0, 1])))) == [4, 5, 6]
    equal = keep_best(full, rows([5, 1])._replace(genome=jnp.ones((2, 2))), np.ones(2))
    assert sorted(np.asarray(equal.genome)[:, 0].tolist()) == [1, 5, 6]  # only the newcomer of 5 found a place
    assert sorted(held(equal)) == [5, 5, 6]


@pytest.mark.parametrize("mapped", [False, True])
def test_elites_are_the_first_of_the_fittest_in_every_cell(mapped):
    fitness = np.float32([1, 3, 3, 2, 7, 9])
    place = np.float32([[0.1, 0.1], [0.2, 0.3], [0.1, 0.9], [0.9, 1.9], [0.9, 2.5], [1.0, 2.0]])
    genome, mask = np.arange(6, dtype=np.float32)[:, None], np.array([1, 1, 1, 1, 1, 0])
    insert = mapped_insert if mapped else one_insert
    elites = insert(store.grid(1, 2), genome, fitness, place, mask)
    assert elites.filled.tolist() == [True, False, False, True]
    assert elites.genome[:, 0].tolist() == [1, 0, 0, 3]  # of the two of fitness 3 the first one
    assert elites.fitness.tolist() == [3, 0, 0, 2]
    assert store.coverage(elites) == 0.5
    assert store.qd_score(elites) == 5
    assert store.qd_score(elites, -1.0) == 7
    assert store.best(elites) == 3
    assert store.best(store.grid(1, 2)) == -np.inf
    later = insert(elites, genome[::-1].copy(), fitness, place, mask)
    jax.tree.map(np.testing.assert_array_equal, later, elites)  # equals change nothing
    negative = insert(store.grid(1, 2), genome, -fitness, place, mask)
    assert negative.fitness.tolist() == [-1, 0, 0, -2]

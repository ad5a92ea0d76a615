"""Emitters: noise within limits, what an improvement is, who is chosen, and that elitist steps climb."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.search import emitters as emitting
from jaxrl_reg.search import repertoire as store

PEAK = np.float32([1.0, -2.0, 0.5])


def evaluate(genome):
    return store.rows(genome, genome[:, :2], -jnp.square(genome - PEAK).sum(-1))


@pytest.fixture(scope="module")
def begun():
    """Two emitters far from the peak and an empty slot, bootstrapped."""
    ancestor = evaluate(np.float32([[0, 0, 0], [3, 3, 3], [0, 0, 0]]))

    @jax.jit
    def start(key):
        def keep(kept, rows, better):
            return kept + better.sum()

        scale, filled = jnp.array([0.3, 0.3, 0.0]), jnp.array([True, True, False])
        return emitting.bootstrap(key, ancestor, scale, filled, evaluate, keep, jnp.int32(0), 5)

    return ancestor, *start(jax.random.key(0))


def test_mutations_are_of_their_size_and_stay_within_limits():
    genome = jnp.full((2, 4000), 4.0)
    moved = emitting.mutate(jax.random.key(0), genome, jnp.array([0.1, 3.0]))
    np.testing.assert_allclose((moved - genome)[0].std(), 0.1, rtol=0.05)
    assert moved.max() == 5
    assert moved.min() >= -5
    np.testing.assert_array_equal(emitting.mutate(jax.random.key(0), genome, 0.0), genome)


def test_improvement_is_the_last_three_over_the_first_three():
    means = np.float32([[1, 2, 3, 4, 5, 9], [5, 5, 5, 1, 1, 1]])
    np.testing.assert_allclose(emitting.improvement(means), [4, 0])


def test_elitist_steps_climb_and_empty_slots_count_for_nothing(begun):
    ancestor, emitters, better = begun
    assert emitters.filled.tolist() == [True, True, False]
    assert (emitters.improvement[:2] > 0).all()
    assert (emitters.best >= emitters.fitness.max(-1)).all()
    assert (emitters.best[:2] > ancestor.fitness[:2]).all()
    np.testing.assert_allclose(emitters.fitness[0], evaluate(emitters.genome[0]).fitness, rtol=1e-5)
    assert 2 <= better <= 2 * 66
    np.testing.assert_array_equal(emitters.genome[2], 0)  # no scale, no move

    @jax.jit
    def on(key, emitters):
        return emitting.climb(
            key, emitters, evaluate, 20, lambda kept, rows, better: kept | better, jnp.zeros(36, bool)
        )

    further, told = on(jax.random.key(1), emitters)
    assert (further.fitness.mean(-1)[:2] > emitters.fitness.mean(-1)[:2] + 0.05).all()
    assert (further.fitness.min(-1) >= emitters.fitness.min(-1)).all()  # the best of both stay
    assert told[:24].any()
    assert not told[24:].any()  # those of the empty slot


def test_the_most_improved_keep_their_slots(begun):
    _, emitters, _ = begun
    gains = emitters._replace(improvement=jnp.array([1.0, 3.0, 9.0]))
    other = gains._replace(improvement=jnp.array([2.0, 3.0, 9.0]), scale=jnp.array([10.0, 11.0, 12.0]))
    best = emitting.best_of(gains, other, 3)
    assert best.improvement.tolist() == [3, 3, 2]
    np.testing.assert_allclose(best.scale, [0.3, 11.0, 10.0])
    assert best.filled.all()
    assert best.ancestor.size == 3
    few = emitting.best_of(gains, gains._replace(filled=jnp.zeros(3, bool)), 3)
    assert few.filled.tolist() == [True, True, False]


def test_emitters_are_chosen_from_the_front_at_random_then_by_improvement(begun):
    _, three, _ = begun
    emitters = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:2]]) if leaf.ndim else leaf, three)
    emitters = emitters._replace(
        improvement=jnp.array([3.0, 2.0, 9.0, 1.0, 2.5]), filled=jnp.array([True, True, False, True, True])
    )
    novelty = jnp.array([1.0, 2.0, 9.0, 0.5, 1.5])  # the front: 0, 1 and 4
    choose = jax.jit(emitting.choose, static_argnames="count")
    pairs = [set(choose(jax.random.key(seed), novelty, emitters, count=2).tolist()) for seed in range(30)]
    assert {frozenset(pair) for pair in pairs} == {frozenset(p) for p in ({0, 1}, {0, 4}, {1, 4})}
    assert choose(jax.random.key(0), novelty, emitters, count=5).tolist()[3:] == [3, 2]

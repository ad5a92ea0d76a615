"""Systematic search without gradients: the harmonic code and the graph that attempts change, against NumPy."""

import jax
import numpy as np
import pytest

from jaxrl_reg.search import cognitive_graph, harmonics
from jaxrl_reg.search.cognitive_graph import GOAL

SLOTS = 48
encode = jax.jit(harmonics.encode)
decode = jax.jit(harmonics.displacement)
add = jax.jit(cognitive_graph.add)
mutate = jax.jit(cognitive_graph.mutate)
choose = jax.jit(cognitive_graph.choose)
places_of = jax.jit(cognitive_graph.places)
fresh = jax.jit(cognitive_graph.fresh, static_argnames="capacity")


def test_displacements_have_the_numbers_of_the_equations():
    start, end = encode(np.float32([[0.3, -0.2], [-0.5, 0.9]]))
    np.testing.assert_allclose(decode(start, end), [-0.8, 1.1], atol=1e-5)
    np.testing.assert_allclose(decode(start, start), 0, atol=1e-6)
    np.testing.assert_allclose(harmonics.similarity(start, end), -0.034134, atol=1e-5)
    np.testing.assert_allclose(harmonics.similarity(start, start), 1, atol=1e-6)
    places = np.random.default_rng(0).uniform(-1, 1, (2, 500, 2)).astype(np.float32)
    codes = encode(places)
    np.testing.assert_allclose(decode(*codes), places[1] - places[0], atol=1e-5)
    moved = harmonics.shift(codes[0], codes[1])
    np.testing.assert_allclose(moved, encode(places.sum(0)), atol=1e-4)


def test_many_scales_are_exact_where_one_is_rough():
    """Noise of 0.1 on every cosine and sine: measured 31 times; the short waves alone do not know where."""
    rng = np.random.default_rng(0)
    places = rng.uniform(-1, 1, (2, 2000, 2)).astype(np.float32)
    noisy = encode(places) + 0.1 * rng.normal(size=(2, 2000, 6, 3, 2)).astype(np.float32)
    error = {}
    for name, kept in (("all", slice(None)), ("coarsest", slice(1)), ("finest", slice(5, None))):
        found = harmonics.displacement(*noisy[:, :, kept], harmonics.WAVELENGTHS[kept])
        error[name] = np.median(np.linalg.norm(found - (places[1] - places[0]), axis=-1))
    assert 10 * error["all"] < error["coarsest"] < error["finest"]


def test_activation_is_the_largest_product_along_a_path():
    chain = np.zeros((3, 3), np.float32)
    chain[0, 1] = chain[1, 0] = 0.9
    chain[1, 2] = chain[2, 1] = 0.5
    spread = jax.jit(cognitive_graph.spread)
    np.testing.assert_allclose(spread(chain, 2), [0.45, 0.5, 1.0])
    alone = np.zeros((3, 3), np.float32)
    np.testing.assert_allclose(spread(alone, 2), [0, 0, 1])
    weights = np.random.default_rng(0).uniform(size=(9, 9)).astype(np.float32)
    best = np.eye(9)[0]
    for _ in range(9):
        best = np.maximum(best, (weights * best).max(1))
    np.testing.assert_allclose(spread(weights, 0), best, rtol=1e-6)


def test_vertices_fill_empty_slots_then_those_of_the_oldest_guesses():
    graph = fresh(np.zeros(2), np.float32([0.6, 0.0]), capacity=4)
    assert graph.alive.tolist() == [True, True, False, False]
    assert graph.seen.tolist() == [True, False, False, False]
    np.testing.assert_allclose(graph.weight[0, 1], 0.5 * np.exp(-0.6), rtol=1e-5)
    for index, x in enumerate((0.1, 0.2)):
        graph = add(graph, encode(np.float32([x, 0.3])), index == 1)
    assert graph.alive.all()
    third = add(graph, encode(np.float32([-0.5, -0.5])), True)  # takes slot 2, the guess
    np.testing.assert_allclose(places_of(third)[2], [-0.5, -0.5], atol=1e-5)
    np.testing.assert_allclose(third.weight, third.weight.T)
    np.testing.assert_allclose(np.diag(third.weight), 0)
    np.testing.assert_allclose(third.weight[2, 0], 0.5 * np.exp(-np.sqrt(0.5)), rtol=1e-5)
    full = add(third, encode(np.float32([0.9, 0.9])), True)  # all seen but the goal, which is never forgotten
    jax.tree.map(np.testing.assert_array_equal, full, third)


@pytest.fixture(scope="module")
def graph():
    made = fresh(np.zeros(2), np.float32([0.6, 0.0]), capacity=SLOTS)
    for place in ([0.3, 0.02], [0.3, 0.4], [0.0, -0.4], [0.05, 0.0]):
        made = add(made, encode(np.float32(place)), False)
    return made


def test_a_way_that_was_walked_is_known_and_preferred(graph):
    walked, here = mutate(graph, 0, 2, encode(np.float32([0.3, 0.02])), True)
    assert here == 2
    assert walked.seen[2]
    assert walked.experienced[0, 2]
    assert walked.experienced[2, 0]
    length = np.hypot(0.3, 0.02)
    np.testing.assert_allclose(walked.weight[0, 2], 0.99 * np.exp(-length), rtol=1e-5)
    np.testing.assert_array_equal(walked.hits, 0)
    np.testing.assert_array_equal(walked.guesses, 0)
    assert choose(walked, 2) == GOAL
    assert choose(walked, GOAL) != GOAL


def test_a_failure_weakens_what_resembles_it_and_guesses_anew(graph):
    stuck = np.float32([0.1, 0.0])
    failed, here = mutate(graph, 0, GOAL, encode(stuck), False)
    assert here == 6
    assert failed.seen[6]
    assert failed.experienced[0, 6]
    places = np.asarray(places_of(graph), np.float64)
    places[6] = stuck
    way = places[:7] - stuck
    size = np.linalg.norm(way, axis=1)
    cosine = way @ way[GOAL] / np.maximum(size * size[GOAL], 1e-6)
    kept = 1 - 0.9 * np.outer(np.exp(-(size**2) / (2 * 0.12**2)), np.maximum(cosine, 0) ** 4)
    expected = 0.5 * np.exp(-np.linalg.norm(places[:7, None] - places[:7], axis=-1)) * kept * kept.T
    np.fill_diagonal(expected, 0)
    expected[0, 6] = expected[6, 0] = 0.99 * np.exp(-0.1)
    tried = 0.1 * 0.5 * np.exp(-0.6) * (kept * kept.T)[0, GOAL]
    expected[0, GOAL] = expected[GOAL, 0] = tried
    np.testing.assert_allclose(failed.weight[:7, :7], expected, rtol=1e-3, atol=1e-5)
    assert failed.weight[4, 0] > 0.3  # behind: not weakened
    np.testing.assert_array_equal(failed.hits, np.eye(SLOTS)[6])
    np.testing.assert_array_equal(failed.missed, np.eye(SLOTS)[GOAL])
    assert failed.alive[GOAL]  # the goal is never forgotten
    assert failed.guesses == 5
    angle = 2.399963 * np.arange(5)
    made = stuck + 0.3 * 0.5 ** (np.arange(5) % 3)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    found = np.asarray(places_of(failed))[7:][np.asarray(failed.alive)[7:]]
    for place in found:
        assert np.linalg.norm(made - place, axis=1).min() < 1e-4
    for place in made:  # a guess near a vertex is none
        assert np.linalg.norm(np.concatenate([places[:7], found]) - place, axis=1).min() < 0.08 + 1e-4
    # What failed is remembered in plans nearby, and only for guesses.
    ratio = np.asarray(cognitive_graph.preferences(failed))[:7, :7] / np.maximum(failed.weight[:7, :7], 1e-9)
    near = np.exp(-(size**2) / (2 * 0.15**2))
    np.testing.assert_allclose(ratio[3, 4], 1 / (1 + near[3]), rtol=1e-3)
    np.testing.assert_allclose(ratio[0, 6], 1, rtol=1e-5)


def test_a_guess_that_was_missed_is_forgotten_and_known_places_are_found_again(graph):
    failed, here = mutate(graph, 0, 3, encode(np.float32([0.03, 0.0])), False)
    assert here == 0  # about where one knows to be: no new vertex
    assert failed.hits[0] == 1
    places = np.asarray(places_of(failed))[np.asarray(failed.alive)]
    assert np.linalg.norm(places - [0.3, 0.4], axis=1).min() > 0.01
    np.testing.assert_allclose(failed.weight, failed.weight.T, atol=1e-7)

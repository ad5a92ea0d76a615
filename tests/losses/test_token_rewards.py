"""A reward without judges: golden numbers, and the ways in which it could be earned without an answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses
from jaxrl_reg.losses.token_rewards import distinct_ngrams, truncate_at

TOKENS = jnp.array([3, 5, 3, 5, 3, 7])


def test_golden_numbers():
    every = jnp.ones(6)
    repetition, length = distinct_ngrams(TOKENS, every), losses.length_incentive(every)
    np.testing.assert_allclose([repetition, length], [0.75, 0.06], rtol=1e-6)
    reward = losses.regularised_relevance_reward
    of_query, of_reference = jnp.array(0.8), jnp.array(2.1)
    np.testing.assert_allclose(reward(of_query, of_reference, length, repetition, jnp.array(1.0)), 0.036, rtol=1e-5)
    np.testing.assert_allclose(reward(of_query, of_reference, length, repetition, jnp.array(0.0)), 2.25, rtol=1e-5)
    wide = reward(of_query, of_reference, length, repetition, jnp.array(0.0), output_range=5.12)
    np.testing.assert_allclose(wide, 2.304, rtol=1e-5)


def test_short_and_empty_responses():
    masks = jnp.array([[1.0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    tokens = jnp.broadcast_to(TOKENS, masks.shape)
    np.testing.assert_array_equal(jax.jit(distinct_ngrams)(tokens, masks), [1.0, 1.0])
    empty = losses.pooled_embedding(jnp.full((2, 6, 3), jnp.nan), masks)[1]
    np.testing.assert_array_equal(empty, 0.0)
    length = losses.length_incentive(masks)
    for open_ended in (0.0, 1.0):
        of_both = losses.relevance(jnp.ones(3), empty)
        found = losses.regularised_relevance_reward(of_both, of_both, length[1], jnp.array(1.0), jnp.array(open_ended))
        assert float(found) == 0.0
    np.testing.assert_array_equal(distinct_ngrams(tokens[:, :2], masks[:, :2]), [1.0, 1.0])


def test_ngrams_against_a_set_and_what_stands_behind_the_mask():
    rng = np.random.default_rng(0)
    tokens, lengths = rng.integers(0, 3, (50, 12)), rng.integers(0, 13, 50)
    mask = np.arange(12) < lengths[:, None]
    for n in (1, 2, 3):
        found = jax.jit(distinct_ngrams, static_argnums=2)(jnp.asarray(tokens), jnp.asarray(mask, jnp.float32), n)
        for row, length, share in zip(tokens, lengths, found, strict=True):
            runs = [tuple(row[i : i + n]) for i in range(length - n + 1)]
            np.testing.assert_allclose(share, len(set(runs)) / len(runs) if runs else 1.0, rtol=1e-6)
    with pytest.raises(ValueError, match="expected tokens"):
        distinct_ngrams(TOKENS, jnp.ones(5))


def test_a_negative_relevance_is_not_made_better_by_saying_less_nor_by_a_second_negative():
    def reward(of_query, length):
        args = (jnp.asarray(x) for x in (of_query, of_query, length, 1.0, 1.0))
        return float(losses.regularised_relevance_reward(*args))

    assert reward(-2.0, 0.1) == reward(-2.0, 1.0) == 0.0
    assert reward(2.0, 1.0) > reward(2.0, 0.1) > 0


def test_a_stop_ends_the_response_and_is_no_word_of_it():
    mask = jnp.array([1.0, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(truncate_at(TOKENS, mask, 3), 0.0)
    np.testing.assert_array_equal(truncate_at(TOKENS, mask, 5), [1.0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(truncate_at(TOKENS, mask, 7), mask)  # it stands on padding


def test_rewards_are_data():
    parts = [jnp.array(x) for x in (0.8, 2.1, 0.06, 0.75, 1.0)]
    gradients = jax.grad(losses.regularised_relevance_reward, argnums=(0, 1, 2, 3))(*parts)
    np.testing.assert_array_equal(gradients, 0.0)

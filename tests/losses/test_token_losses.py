"""Tokens that count, their log-probabilities, and what a sampler may draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.losses import tokens


def test_the_mask_includes_the_first_end_and_nothing_after_it():
    completion = np.array([[3, 1, 0, 0], [3, 4, 5, 6], [0, 3, 1, 1], [1, 0, 0, 0]])
    expected = [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]]
    np.testing.assert_array_equal(tokens.completion_mask(jnp.asarray(completion)), expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_token_logprobs_are_those_of_a_softmax_and_padding_never_matters(dtype):
    generator = np.random.default_rng(0)
    logits = np.asarray(jnp.asarray(generator.normal(size=(3, 4, 5)), dtype), np.float64)
    ids = generator.integers(0, 5, (3, 4))
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], np.float32)
    expected = np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    expected = np.take_along_axis(expected, ids[..., None], -1)[..., 0] * mask
    spoilt = jnp.asarray(np.where(mask[..., None] > 0, logits, np.nan), dtype)
    asked = jnp.asarray(np.where(mask > 0, ids, -100))

    def total(logits):
        found = tokens.token_logprobs(logits, asked, jnp.asarray(mask))
        return found.astype(jnp.float32).sum(), found

    (_, found), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(spoilt)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=2**-8 if dtype == jnp.bfloat16 else 1e-5)
    assert np.isfinite(np.asarray(gradient, np.float32)).all()
    assert (np.asarray(gradient)[mask == 0] == 0).all()
    with pytest.raises(ValueError, match=r"logits \[3, 4, 5\], tokens \[3, 5\]"):
        tokens.token_logprobs(spoilt, jnp.zeros((3, 5), int))


def test_an_impossible_token_has_minus_infinity_and_a_finite_gradient():
    logits = jnp.array([0.0, -jnp.inf, 1.0])
    value, gradient = jax.value_and_grad(tokens.token_logprobs)(logits, jnp.array(1))
    assert value == -np.inf
    assert np.isfinite(gradient).all()


def test_sums_and_means_over_the_mask():
    logps = jnp.array([[-1.0, -2.0, np.nan], [-3.0, np.nan, np.nan], [np.nan] * 3])
    mask = jnp.array([[1.0, 1, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(tokens.sequence_logprobs(logps, mask), [-3, -3, 0])
    np.testing.assert_allclose(tokens.sequence_logprobs(logps, mask, average=True), [-1.5, -3, 0])
    gradient = jax.grad(lambda x: tokens.sequence_logprobs(x, mask).sum())(logps)
    np.testing.assert_array_equal(gradient, mask)


def test_truncation_keeps_what_it_says():
    logits = np.log(np.array([0.1, 0.4, 0.3, 0.2]))
    cases = [
        ({}, [1, 1, 1, 1]),
        ({"top_k": 2}, [0, 1, 1, 0]),
        ({"top_p": 0.4}, [0, 1, 0, 0]),  # the mass before the second is 0.4, not below it
        ({"top_p": 0.5}, [0, 1, 1, 0]),
        ({"top_p": 1e-6}, [0, 1, 0, 0]),
        ({"min_p": 0.6}, [0, 1, 1, 0]),
        ({"top_k": 3, "min_p": 0.6}, [0, 1, 1, 0]),
        ({"top_k": 9}, [1, 1, 1, 1]),
    ]
    for settings, kept in cases:
        found = tokens.truncate_logits(jnp.asarray(logits, jnp.float32), **settings)
        np.testing.assert_allclose(found, np.where(kept, logits, -np.inf), rtol=1e-6, err_msg=str(settings))
    tied = tokens.truncate_logits(jnp.array([1.0, 1.0, 0.0]), top_k=1)
    np.testing.assert_array_equal(tied, [1, 1, -np.inf])
    with pytest.raises(ValueError, match="top_p=0"):
        tokens.truncate_logits(jnp.zeros(3), top_p=0)

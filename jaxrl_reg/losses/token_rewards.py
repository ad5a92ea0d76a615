"""A reward for answers that nobody judged: relevance, length and repetition, mixed by the kind of question.

Ids are int32 and masks 1 on the words of a response: no end token, no padding, so a mask is a prefix. Everything is
DETACHED: which words stand there is a choice. Scores of the two kinds of question differ in scale, so standardise them
kind by kind before a policy gradient, or the larger kind drowns the other.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


def distinct_ngrams(tokens: Array, mask: Array, n: int = 3) -> Array:
    """Different runs of ``n`` words over all runs of ``n`` words: 1 says nothing twice, near 0 repeats itself.

    Costs ``T^2`` comparisons for every response.

    Args:
      tokens: ``[..., T]``, int32 ids.
      mask: ``[..., T]``, 1 on words.
      n: words in a run.
    Returns:
      ``[...]``, float32 in (0, 1]; DETACHED.
    Raises:
      ValueError: shapes differ, or n is below 1.
    Edges: 1 where there are fewer than n words, so an empty response is not punished here.
    Source: Li et al., 2016, A Diversity-Promoting Objective Function (distinct-n); Kim and Seo, 2024, R^3.
    """
    if tokens.shape != mask.shape or n < 1:
        got = f"tokens {list(tokens.shape)}, mask {list(mask.shape)}, n {n}"
        raise ValueError(f"distinct_ngrams: expected tokens [..., T], mask [..., T] and n >= 1; got {got}")
    count = tokens.shape[-1] - n + 1
    if count < 1:
        return jnp.ones(tokens.shape[:-1])
    same = jnp.ones((*tokens.shape[:-1], count, count), bool)
    whole = jnp.ones((*tokens.shape[:-1], count), bool)
    for i in range(n):
        part = tokens[..., i : i + count]
        same &= part[..., :, None] == part[..., None, :]
        whole &= mask[..., i : i + count] > 0
    earlier = jnp.tril(jnp.ones((count, count), bool), -1)
    repeated = (same & whole[..., None, :] & earlier).any(-1)
    runs = whole.sum(-1)
    return jnp.where(runs > 0, (whole & ~repeated).sum(-1) / jnp.maximum(runs, 1), 1.0)


def truncate_at(tokens: Array, mask: Array, stop: int) -> Array:
    """The mask with 0 from the first ``stop`` on, that token itself included: it ends a response and is no word of it.

    Args:
      tokens: ``[..., T]``, int32 ids.
      mask: ``[..., T]``, 1 on what was written.
      stop: id.
    Returns:
      ``[..., T]``, of the dtype of the mask.
    Raises:
      ValueError: shapes differ.
    Edges: as it is where nothing stops it; a ``stop`` that the mask leaves out stops nothing.
    Source: the stop string of Kim and Seo, 2024, R^3 (code).
    """
    if tokens.shape != mask.shape:
        got = f"tokens {list(tokens.shape)}, mask {list(mask.shape)}"
        raise ValueError(f"truncate_at: expected tokens [..., T] and mask [..., T] alike; got {got}")
    stopped = jnp.cumsum(((tokens == stop) & (mask > 0)).astype(jnp.int32), axis=-1)
    return jnp.where(stopped > 0, 0, mask).astype(mask.dtype)


@shapes(mask="... T", unit="")
def length_incentive(mask: Array, unit: Array | float = 100.0) -> Array:
    """``words / unit``.

    Args:
      mask: ``[..., T]``, 1 on words; an end token must not count as one. DETACHED.
      unit: scalar > 0, words that are worth 1.
    Returns:
      ``[...]``; DETACHED.
    Raises:
      ValueError: the unit is not a scalar.
    Edges: 0 for an empty response.
    Source: Kim and Seo, 2024, R^3: Regularized Relevance Reward.
    """
    return jax.lax.stop_gradient(mask.sum(-1) / unit)


@shapes(embedding="... T E", mask="... T")
def pooled_embedding(embedding: Array, mask: Array) -> Array:
    """The mean of the embeddings of words.

    Args:
      embedding: ``[..., T, E]``; what stands where the mask is 0 does not matter.
      mask: ``[..., T]``, above 0 on words.
    Returns:
      ``[..., E]``; carries gradients into the embedding.
    Raises:
      ValueError: shapes differ.
    Edges: zeros for an empty response.
    Source: Izacard et al., 2022, Contriever (mean pooling), which Kim and Seo, 2024, score relevance by.
    """
    counts = mask > 0
    kept = jnp.where(counts[..., None], embedding, 0.0)
    return kept.sum(-2) / jnp.maximum(counts.sum(-1, keepdims=True), 1)


@shapes(first="... E", second="... E")
def relevance(first: Array, second: Array) -> Array:
    """The inner product of two embeddings: their lengths count, as Contriever's scores have it.

    Args:
      first: ``[..., E]``, of a query or a reference.
      second: ``[..., E]``, of the response.
    Returns:
      ``[...]``, of any sign; carries gradients.
    Raises:
      ValueError: shapes differ.
    Edges: 0 for an empty response.
    Source: Kim and Seo, 2024, R^3: Regularized Relevance Reward.
    """
    return (first * second).sum(-1)


@shapes(
    query_relevance="...",
    reference_relevance="...",
    length="...",
    repetition="...",
    open_ended="...",
    input_range="",
    output_range="",
)
def regularised_relevance_reward(
    query_relevance: Array,
    reference_relevance: Array,
    length: Array,
    repetition: Array,
    open_ended: Array,
    input_range: Array | float = 3.5,
    output_range: Array | float = 5.0,
) -> Array:
    """R^3: ``relevance x length x repetition`` for open-ended queries, rescaled relevance to the reference ``x
    repetition`` for the others.

    Relevance alone is earned by copying the question, and length alone by filling the limit; a product of all needs
    each. A constrained query has no factor of length: a single right word is best.

    Args:
      query_relevance: ``[...]``, of ``relevance`` between query and response.
      reference_relevance: ``[...]``, between a reference answer and the response.
      length: ``[...]``, of ``length_incentive``.
      repetition: ``[...]``, of ``distinct_ngrams``.
      open_ended: ``[...]``, above 0.5 where the query has no one right answer.
      input_range: scalar > 0, a relevance that is worth ``output_range``.
      output_range: scalar; 5 in the paper's text, the limit of words over 100 in its later code. Nothing is clipped:
        relevance beyond the range extrapolates.
    Returns:
      ``[...]``; DETACHED.
    Raises:
      ValueError: shapes differ, or a range is not a scalar.
    Edges: a relevance to the query below 0 counts as 0, else length would be a penalty. An empty response has 0.
    Source: Kim and Seo, 2024, R^3: Regularized Relevance Reward (v1), later Rethinking the Role of Proxy Rewards in
      Language Model Alignment.
    """
    free = jnp.maximum(query_relevance, 0.0) * length
    bound = reference_relevance * output_range / input_range
    return jax.lax.stop_gradient(jnp.where(open_ended > 0.5, free, bound) * repetition)

"""How often at least one of several completions is right, and how often the one that most agree on."""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl_reg.types import Array


def pass_at_k(right: Array, k: int) -> Array:
    """Probability that at least one of ``k`` of the ``n`` completions drawn is right: ``1 - C(n - c, k) / C(n, k)``.

    Unbiased for a fresh set of ``k`` completions; ``1 - (1 - c / n)^k`` is not.

    Args:
      right: ``[..., n]``, 1 for right, 0 for wrong.
      k: how many are drawn without replacement; static, 1 to n.
    Returns:
      ``[...]``.
    Raises:
      ValueError: ``k`` outside 1 to n.
    Source: Chen et al., 2021, Evaluating Large Language Models Trained on Code, eq. 1.
    """
    n = right.shape[-1]
    if not 1 <= k <= n:
        raise ValueError(f"pass_at_k: k={k} must be from 1 to the number {n} of completions")
    wrong = n - (right > 0).sum(-1, keepdims=True)
    drawn = jnp.arange(k)
    return 1.0 - (jnp.maximum(wrong - drawn, 0) / (n - drawn)).prod(-1)


def majority_at_k(answers: Array, right: Array) -> Array:
    """Whether the most frequent of ``k`` answers is right; of equally frequent ones the first that was given.

    Args:
      answers: ``[..., k, T]``, int32, equal rows being equal answers.
      right: ``[..., k]``, 1 for right, 0 for wrong.
    Returns:
      ``[...]``, 0 or 1; its mean over prompts is unbiased for ``k`` completions.
    Source: Wang et al., 2023, Self-Consistency Improves Chain of Thought Reasoning in Language Models.
    """
    alike = (answers[..., :, None, :] == answers[..., None, :, :]).all(-1)
    first = jnp.argmax(alike.sum(-1), axis=-1)
    return jnp.take_along_axis(right, first[..., None], axis=-1)[..., 0]

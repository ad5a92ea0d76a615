"""How well classes are told apart, and how far a stated confidence can be trusted. DETACHED from any training.

Whole numbers come as int, sizes are static, and everything runs under jit. For the price of answering only where one is
sure see ``evaluation.selective.risk_at_coverage``; its mean is the area under the risk-coverage curve.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.types import Array


def recall_by_class(prediction: Array, label: Array, classes: int) -> tuple[Array, Array]:
    """Share of each class's rows that are recognised, and how many it has.

    Args:
      prediction, label: int ``[B]``.
      classes: static.
    Returns:
      ``[classes]`` in [0, 1], 0 for a class that never occurs, and ``[classes]``, rows.
    """
    member = jax.nn.one_hot(label, classes)
    count = member.sum(axis=0)
    return (member * (prediction == label)[:, None]).sum(axis=0) / jnp.maximum(count, 1.0), count


def macro_recall(recall: Array, count: Array) -> Array:
    """Mean of ``recall [K]`` over the classes that occur; every class counts alike."""
    occurs = count > 0
    return (recall * occurs).sum() / jnp.maximum(occurs.sum(), 1)


def weighted_recall(recall: Array, count: Array) -> Array:
    """Mean of ``recall [K]`` weighted by ``count [K]``: the accuracy."""
    return (recall * count).sum() / jnp.maximum(count.sum(), 1.0)


def head_and_tail(recall: Array, count: Array, share: float = 0.8) -> tuple[Array, Array]:
    """Mean recall of the frequent and of the rare classes.

    The head is the fewest classes that hold ``share`` of the rows, by ``count [K]``; classes that never occur are in
    neither. A tail without classes gives NaN.
    """
    order = jnp.argsort(-count, stable=True)
    sorted_count, sorted_recall = count[order], recall[order]
    before = jnp.cumsum(sorted_count) - sorted_count
    head = (before < share * count.sum()) & (sorted_count > 0)
    tail = ~head & (sorted_count > 0)
    return tuple((sorted_recall * part).sum() / part.sum() for part in (head, tail))  # type: ignore[return-value]


def auroc(score: Array, label: Array) -> Array:
    """Chance that a row of label 1 has a higher score than one of label 0, ties counting one half.

    Args:
      score: ``[N]``, any unit; all pairs are compared, so N up to a few thousand.
      label: ``[N]``, 0 or 1.
    Returns:
      scalar in [0, 1]; NaN where one of the labels is missing.
    Source: Mann and Whitney, 1947; Hanley and McNeil, 1982.
    """
    gap = score[:, None] - score[None]
    wins = (gap > 0) + 0.5 * (gap == 0)
    pairs = (label > 0)[:, None] & (label <= 0)[None]
    return (wins * pairs).sum() / pairs.sum()


def average_precision(score: Array, label: Array) -> Array:
    """Mean over the rows of label 1 of the precision among the rows with at least that score.

    Args and edges as of ``auroc``; scores that are equal are taken together.
    """
    above = score[None] >= score[:, None]
    precision = (above * (label > 0)[None]).sum(axis=1) / above.sum(axis=1)
    return (precision * (label > 0)).sum() / (label > 0).sum()


def expected_calibration_error(confidence: Array, correct: Array, bins: int = 10) -> Array:
    """Mean gap between confidence and accuracy, over bins of confidence weighted by their rows.

    Say the sign of ``mean(confidence - correct)`` beside it: a method may cure over-confidence and make
    under-confidence worse.

    Args:
      confidence: ``[B]`` in [0, 1], of the class that is predicted.
      correct: ``[B]``, 0 or 1.
      bins: static, of equal width, closed on the right; a confidence of 0 is in the first.
    Returns:
      scalar in [0, 1].
    Source: Naeini et al., 2015; Guo et al., 2017, On Calibration of Modern Neural Networks, equation 3.
    """
    index = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    gap = jnp.zeros(bins).at[index].add(confidence - correct)
    return jnp.abs(gap).sum() / confidence.shape[0]

"""Judges that learn beside what they judge: of scores, without what they may see in training; of parts of a context."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.divergence import categorical_kl, cross_entropy_loss

Array = jax.Array


@shapes(teacher_logits="... A", student_logits="... A", target="... A", student_weight="", distillation_weight="")
def self_judge_loss(
    teacher_logits: Array,
    student_logits: Array,
    target: Array,
    student_weight: Array | float,
    distillation_weight: Array | float,
) -> Array:
    """``CE(teacher) + student_weight CE(student) + distillation_weight KL(sg(teacher) || student)``.

    One judge reads an answer twice: with a reference answer beside it (the teacher) and without (the student). The
    teacher's part of the divergence is DETACHED, and so is the target; the teacher learns from its own cross-entropy.
    It gains over learning without references only where the judge can compare an answer with a reference.

    Args:
      teacher_logits: ``[..., A]``, over scores, of the reading with a reference, any shift.
      student_logits: ``[..., A]``, of the reading without, same parameters.
      target: ``[..., A]``, probabilities of the scores, one-hot for a label; DETACHED.
      student_weight: scalar >= 0; 0.3 in the paper's code.
      distillation_weight: scalar >= 0; 2 in the paper's code.
    Returns:
      ``[...]``, nats.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: as those of ``cross_entropy_loss`` and ``categorical_kl``.
    Source: Ye and Ng, 2024, Self-Judge: Selective Instruction Following with Alignment Self-Evaluation.
    """
    labels = cross_entropy_loss(teacher_logits, target) + student_weight * cross_entropy_loss(student_logits, target)
    return labels + distillation_weight * categorical_kl(jax.lax.stop_gradient(teacher_logits), student_logits)


@shapes(logits="... A", values="A")
def expected_score(logits: Array, values: Array) -> Array:
    """``sum_k v_k softmax(logits)_k``: the mean of a distribution over scores.

    Args:
      logits: ``[..., A]``, any shift.
      values: ``[A]``, the score that each stands for.
    Returns:
      ``[...]``, in units of the scores; carries gradients.
    Raises:
      ValueError: shapes differ.
    Edges: a logit of minus infinity counts as probability 0; NaN where all are.
    Source: Ye and Ng, 2024, Self-Judge (the score of a judge is its expectation over ten digits).
    """
    return (jax.nn.softmax(logits, axis=-1) * values).sum(-1)


@shapes(features="... N D", judgement_logits="... N", mask="... N")
def weigh_segments(features: Array, judgement_logits: Array, mask: Array | None = None) -> Array:
    """The mean of segments' features, each times ``1 - sigmoid(judgement)``: what is judged inappropriate counts less.

    The gate is how an answer teaches the judge: do not detach it while both learn. A threshold instead of it is the
    filter that steering is compared with.

    Args:
      features: ``[..., N, D]``, of the segments of a context.
      judgement_logits: ``[..., N]``, high where a segment is inappropriate.
      mask: ``[..., N]``, above 0 on segments that are there; None: all.
    Returns:
      ``[..., D]``; carries gradients into both.
    Raises:
      ValueError: shapes differ.
    Edges: zeros without segments, and near zeros where all are judged inappropriate: divided by the number of
      segments, not by their weights.
    Source: Wang et al., 2025, Context Engineering for Trustworthiness: Rescorla-Wagner Steering, in soft form.
    """
    weight = jax.nn.sigmoid(-judgement_logits)
    counts = jnp.ones_like(weight) if mask is None else (mask > 0).astype(weight.dtype)
    kept = jnp.where(counts[..., None] > 0, weight[..., None] * features, 0.0)
    return kept.sum(-2) / jnp.maximum(counts.sum(-1, keepdims=True), 1.0)


@shapes(answer_logits="... A", answer="... A", judgement_logits="... N", label="... N", coef="")
def judged_answer_loss(
    answer_logits: Array, answer: Array, judgement_logits: Array, label: Array, coef: Array | float = 1.0
) -> Array:
    """``CE(answer) + coef mean_n BCE(judgement_n)``: which segments are inappropriate, and the answer without them.

    Args:
      answer_logits: ``[..., A]``, of the answer from ``weigh_segments``.
      answer: ``[..., A]``, probabilities, one-hot for a label; DETACHED.
      judgement_logits: ``[..., N]``, of each segment of the context.
      label: ``[..., N]``, 1 where a segment is inappropriate, 0 else; DETACHED.
      coef: scalar >= 0.
    Returns:
      ``[...]``, nats.
    Raises:
      ValueError: shapes differ, or the coefficient is not a scalar.
    Edges: as those of ``cross_entropy_loss``; without segments NaN.
    Source: Wang et al., 2025, Context Engineering for Trustworthiness: Rescorla-Wagner Steering. There judgement and
      answer are tokens of one response, judgement first.
    """
    each = jax.nn.softplus(judgement_logits) - jax.lax.stop_gradient(label) * judgement_logits
    return cross_entropy_loss(answer_logits, answer) + coef * each.mean(-1)

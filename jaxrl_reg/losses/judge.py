"""A judge that gives a distribution over scores, and learns to do without what it may see in training."""

from __future__ import annotations

import jax

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

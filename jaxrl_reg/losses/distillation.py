"""Learning from an earlier self or another network, and from windows of trajectories of which a part is padding."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array

SURE = 1e-4  # probabilities are held this far from 0 and 1 in early-learning regularisation


@shapes(action="... A", past_action="... A", progress="", final_weight="", cap="")
def self_evolution_target(
    action: Array, past_action: Array, progress: Array | float, final_weight: Array | float, cap: Array | float
) -> Array:
    """``(1 - beta) a + beta sg(a_past)`` with ``beta = min(cap, final_weight progress)``: a label refined by the past.

    An earlier policy has not yet learnt the noise in a label, so mixing it in keeps the later one from learning it. The
    past prediction must come from OTHER parameters (a snapshot or a slow average). With the prediction that is being
    trained, not detached, the squared error would only shrink by ``(1 - beta)^2``: that is what the released code
    writes, and then switches off.

    Args:
      action: ``[..., A]``, the data's.
      past_action: ``[..., A]``, the earlier policy's in the same place; DETACHED.
      progress: scalar in [0, 1], share of training done.
      final_weight: scalar in [0, 1], beta at the end of training, before the cap.
      cap: scalar in [0, 1], the largest beta; an upper bound, although the paper's name for it is beta_min.
    Returns:
      ``[..., A]``, in action units; between the two actions.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: with beta = 0 the data's action exactly, as long as the past one is finite.
    Source: Lv et al., 2024, Decision Mamba (progressive self-evolution regularisation); Kim et al., 2021,
      Self-Knowledge Distillation with Progressive Refinement of Targets.
    """
    weight = jnp.minimum(cap, final_weight * progress)
    return action + weight * (jax.lax.stop_gradient(past_action) - action)


@shapes(logits="... K", teacher="... K", temperature="", mask="... K")
def prediction_distillation_loss(
    logits: Array, teacher: Array, temperature: Array | float = 1.0, mask: Array | None = None
) -> Array:
    """``-T^2 sum_k p_k log q_k`` with ``p = softmax(teacher / T)`` and ``q = softmax(logits / T)``: soft labels.

    The teacher's entropy is a constant, so the gradient is that of ``T^2 KL(p || q)``: ``T (q - p)``; the factor keeps
    its size comparable over temperatures.

    Args:
      logits: ``[..., K]``.
      teacher: ``[..., K]``, logits of another network or an earlier self; DETACHED.
      temperature: scalar T > 0.
      mask: ``[..., K]``, above 0 on classes that count; both softmaxes are renormalised over them. None: all.
    Returns:
      ``[...]``, nats times T^2.
    Raises:
      ValueError: shapes differ, or the temperature is not a scalar.
    Edges: 0 where no class counts. A teacher's logit of minus infinity has probability 0 and does not count.
    Source: Hinton, Vinyals and Dean, 2015, Distilling the Knowledge in a Neural Network; Li and Hoiem, 2017, Learning
      without Forgetting, equation 2.
    """
    teacher = jax.lax.stop_gradient(teacher)
    if mask is not None:
        outside = jnp.finfo(logits.dtype).min / 4  # finite, so that a row without classes has no NaN
        logits = jnp.where(mask > 0, logits, outside)
        teacher = jnp.where(mask > 0, teacher, outside)
    labels = jax.nn.softmax(teacher / temperature)
    if mask is not None:
        labels = jnp.where(mask > 0, labels, 0.0)
    log_q = jax.nn.log_softmax(logits / temperature)
    return -jnp.square(temperature) * jnp.where(labels > 0, labels * log_q, 0.0).sum(axis=-1)


@shapes(logits="... K", teacher="... K", mask="... K")
def binary_distillation_loss(logits: Array, teacher: Array, mask: Array | None = None) -> Array:
    """``sum_k BCE(sigmoid(teacher_k), logits_k)``: soft labels of classes that do not compete.

    Args:
      logits: ``[..., K]``.
      teacher: ``[..., K]``, logits; DETACHED.
      mask: ``[..., K]``, above 0 on classes that count; None: all.
    Returns:
      ``[...]``, nats, summed over classes.
    Raises:
      ValueError: shapes differ.
    Edges: 0 where no class counts; at equal logits the teacher's entropy, not 0.
    Source: Rebuffi et al., 2017, iCaRL, section 3.3 (distillation by independent sigmoids).
    """
    label = jax.nn.sigmoid(jax.lax.stop_gradient(teacher))
    each = jax.nn.softplus(logits) - label * logits
    if mask is not None:
        each = jnp.where(mask > 0, each, 0.0)
    return each.sum(axis=-1)


@shapes(features="... D", teacher="... D")
def feature_distillation_loss(features: Array, teacher: Array) -> Array:
    """``sum_d (features_d - teacher_d)^2``: features held to those of another network.

    Args:
      features: ``[..., D]``.
      teacher: ``[..., D]``; DETACHED (code in circulation forgets that, and drags the teacher along).
    Returns:
      ``[...]``, squared units of the features.
    Raises:
      ValueError: shapes differ.
    Edges: 0, with gradient 0, at equal features.
    Source: Romero et al., 2015, FitNets, equation 3, without the factor 1/2.
    """
    return jnp.square(features - jax.lax.stop_gradient(teacher)).sum(axis=-1)


@shapes(past="... K", logits="... K", decay="")
def early_learning_target(past: Array, logits: Array, decay: Array | float) -> Array:
    """``decay past + (1 - decay) p / sum p`` with ``p = clip(softmax(logits), 1e-4, 1 - 1e-4)``; DETACHED.

    What the network has believed of a row so far, before it memorises the row's label. Keep a row of ``past`` for each
    row of the data (``transforms.update_rows``), from zeros on.

    Args:
      past: ``[..., K]``, the target at the last visit; zeros before the first.
      logits: ``[..., K]``, of the present network.
      decay: scalar in [0, 1).
    Returns:
      ``[..., K]``, non-negative, of sum ``1 - decay^n`` after n visits.
    Raises:
      ValueError: shapes differ, or ``decay`` is not a scalar.
    Edges: the sum is small while a row has few visits, and with it the effect of ``early_learning_loss``.
    Source: Liu et al., 2020, Early-Learning Regularization Prevents Memorization of Noisy Labels, equation 9.
    """
    probability = _unsure(logits)
    probability = probability / probability.sum(axis=-1, keepdims=True)
    return jax.lax.stop_gradient(decay * past + (1.0 - decay) * probability)


@shapes(logits="... K", early_target="... K")
def early_learning_loss(logits: Array, early_target: Array) -> Array:
    """``log(1 - <early_target, p>)``, which is low where the network still says what it said early on.

    Add it, times a coefficient, to the cross-entropy of the labels: 3 for about ten classes, 7 for a hundred, 10 for
    two. It helps where labels are wrong and inputs are not: with noisy inputs and right labels it hurts.

    Args:
      logits: ``[..., K]``.
      early_target: ``[..., K]``, from ``early_learning_target`` with these logits; DETACHED.
    Returns:
      ``[...]``, nats, at most 0 and at least ``log 1e-4``.
    Raises:
      ValueError: shapes differ.
    Edges: probabilities are clipped to [1e-4, 1 - 1e-4], so that a target that is as sure as the prediction is finite.
    Source: Liu et al., 2020, Early-Learning Regularization Prevents Memorization of Noisy Labels, equation 6.
    """
    doubt = 1.0 - (jax.lax.stop_gradient(early_target) * _unsure(logits)).sum(axis=-1)
    return jnp.log(jnp.maximum(doubt, SURE))


def _unsure(logits: Array) -> Array:
    return jnp.clip(jax.nn.softmax(logits), SURE, 1.0 - SURE)

"""Learning from an earlier self, and from windows of trajectories of which a part is padding."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


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


@shapes(loss="... T", mask="... T")
def masked_mean(loss: Array, mask: Array) -> Array:
    """Mean of a loss over the real steps of padded windows, each real step counting the same.

    Args:
      loss: ``[..., T]``, per step; what it is on padding does not matter, NaN included.
      mask: ``[..., T]``, 1 on real steps, 0 on padding; a bool array counts as 0 and 1.
    Returns:
      scalar, in units of the loss; its gradient with respect to padded entries is 0.
    Raises:
      ValueError: shapes differ.
    Edges: 0 if nothing is real.
    Source: the loss of Decision Transformer (Chen et al., 2021).
    """
    mask = jax.lax.stop_gradient(mask)
    total = jnp.where(mask > 0, loss * mask, 0.0).sum()
    return total / jnp.maximum(mask.sum(), 1.0)

"""Means of losses over the tokens of padded rows: which tokens count how much.

A mean over rows gives each token of a long completion less weight, so long wrong ones are punished less per token; a
mean over tokens weights completions by their length; a constant divisor is the policy gradient up to that constant.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(loss="... T", mask="... T")
def masked_mean(loss: Array, mask: Array) -> Array:
    """Mean of a loss over the real steps of padded windows, each real step counting the same.

    Over tokens this is trl's ``loss_type="dapo"`` and verl's ``token-mean``.

    Args:
      loss: ``[..., T]``, per step; what it is on padding does not matter, NaN included.
      mask: ``[..., T]``, 1 on real steps, 0 on padding; a bool array counts as 0 and 1.
    Returns:
      scalar, in units of the loss; its gradient with respect to padded entries is 0.
    Raises:
      ValueError: shapes differ.
    Edges: 0 if nothing is real.
    Source: the loss of Decision Transformer (Chen et al., 2021); DAPO (Yu et al., 2025), eq. 8.
    """
    mask = jax.lax.stop_gradient(mask)
    total = jnp.where(mask > 0, loss * mask, 0.0).sum()
    return total / jnp.maximum(mask.sum(), 1.0)


@shapes(loss="... T", mask="... T")
def sequence_mean(loss: Array, mask: Array) -> Array:
    """Mean over rows of each row's mean over its tokens; rows without tokens are left out.

    verl's ``seq-mean-token-mean``. trl's ``loss_type="grpo"`` counts a row without tokens as a 0 in the mean.

    Args:
      loss: ``[..., T]``, per token; what it is on padding does not matter, NaN included.
      mask: ``[..., T]``, 1 on tokens that count, 0 elsewhere, DETACHED.
    Returns:
      scalar, in units of the loss.
    Raises:
      ValueError: shapes differ.
    Edges: 0 with gradient 0 if no row has a token.
    Source: Shao et al., 2024, DeepSeekMath, eq. 3 (GRPO).
    """
    mask = jax.lax.stop_gradient(mask)
    total, count = jnp.where(mask > 0, loss * mask, 0.0).sum(-1), mask.sum(-1)
    rows = (count > 0).sum()
    return (total / jnp.where(count > 0, count, 1.0)).sum() / jnp.maximum(rows, 1)


@shapes(loss="... T", mask="... T", length="")
def constant_mean(loss: Array, mask: Array, length: Array | float) -> Array:
    """Sum over tokens divided by rows times the longest completion allowed, whatever the rows hold.

    trl's ``loss_type="dr_grpo"``; verl's ``seq-mean-token-sum-norm`` but for the number of rows.

    Args:
      loss: ``[..., T]``, per token; what it is on padding does not matter, NaN included.
      mask: ``[..., T]``, 1 on tokens that count, 0 elsewhere, DETACHED.
      length: scalar > 0, a constant in tokens.
    Returns:
      scalar, in units of the loss; rows without tokens count as 0.
    Raises:
      ValueError: shapes differ, or the length is not a scalar.
    Edges: 0 with gradient 0 if no row has a token.
    Source: Liu et al., 2025, Understanding R1-Zero-Like Training (Dr. GRPO).
    """
    mask = jax.lax.stop_gradient(mask)
    return jnp.where(mask > 0, loss * mask, 0.0).sum() / (max(loss.size // max(loss.shape[-1], 1), 1) * length)

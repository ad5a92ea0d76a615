"""What couples the completions of one prompt: a group of ``G`` on the last axis, and its rewards."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(reward="... G", epsilon="")
def group_advantage(reward: Array, normalise: bool = True, epsilon: Array | float = 1e-4) -> Array:
    """``(r - mean) / (std + eps)`` within each group, std with ``G - 1``; without ``normalise`` only ``r - mean``.

    With the division as in trl (``scale_rewards="group"``) and verl; without it as in Dr. GRPO (trl ``"none"``).

    Args:
      reward: ``[..., G]``, of the completions of one prompt.
      normalise: divide by the standard deviation; static.
      epsilon: scalar > 0, units of reward; verl has 1e-6.
    Returns:
      ``[..., G]``.
    Raises:
      ValueError: a group of one, which has no baseline; shapes.
    Edges: equal rewards have advantage 0 exactly, with finite gradients.
    Source: Shao et al., 2024, DeepSeekMath, section 4.1; Liu et al., 2025, Understanding R1-Zero-Like Training.
    """
    _several("group_advantage", reward)
    reward = reward - jax.lax.stop_gradient(reward[..., :1])  # equal rewards are then 0, and so is their mean
    centred = reward - reward.mean(-1, keepdims=True)
    if not normalise:
        return centred
    variance = jnp.square(centred).sum(-1, keepdims=True) / (reward.shape[-1] - 1)
    std = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)
    return centred / (std + epsilon)


@shapes(reward="... G")
def leave_one_out_advantage(reward: Array) -> Array:
    """``r_i - mean_{j != i} r_j``: the baseline of a completion is what the others of its group earned.

    Args:
      reward: ``[..., G]``, of the completions of one prompt.
    Returns:
      ``[..., G]``, units of reward.
    Raises:
      ValueError: a group of one, which has no baseline; shapes.
    Edges: equal rewards have advantage 0 exactly.
    Source: Kool et al., 2019, Buy 4 REINFORCE Samples, Get a Baseline for Free; Ahmadian et al., 2024, Back to Basics
      (RLOO).
    """
    _several("leave_one_out_advantage", reward)
    reward = reward - jax.lax.stop_gradient(reward[..., :1])
    return (reward - reward.mean(-1, keepdims=True)) * (reward.shape[-1] / (reward.shape[-1] - 1))


def _several(name: str, reward: Array) -> None:
    if reward.shape[-1] < 2:
        raise ValueError(f"{name}: a group of {reward.shape[-1]} has no baseline; sample at least 2 per prompt")


@shapes(value="B T", mask="B T")
def whitened(value: Array, mask: Array) -> Array:
    """Mean 0 and variance 1 over all tokens of the batch that count: ``(x - mean) / sqrt(var + 1e-8)``.

    Args:
      value: ``[B, T]``, such as advantages per token.
      mask: ``[B, T]``, 1 on tokens that count, 0 elsewhere, DETACHED.
    Returns:
      ``[B, T]``, 0 where the mask is; the variance has Bessel's correction.
    Raises:
      ValueError: shapes differ.
    Edges: 0 everywhere for equal values, for a single token and for none; what stands on padding never matters.
    Source: verl's ``masked_whiten``, as in REINFORCE++ (Hu et al., 2025).
    """
    mask = jax.lax.stop_gradient(mask)
    counts = mask > 0
    top = jax.lax.stop_gradient(jnp.where(counts, value, -jnp.inf).max(initial=-jnp.inf))
    shifted = jnp.where(counts, value - jnp.where(jnp.isfinite(top), top, 0.0), 0.0)  # equal values become 0 exactly
    count = mask.sum()
    centred = jnp.where(counts, shifted - (mask * shifted).sum() / jnp.where(count > 0, count, 1.0), 0.0)
    variance = (mask * jnp.square(centred)).sum() / jnp.where(count > 1, count - 1, 1.0)
    return centred / jnp.sqrt(variance + 1e-8)


@shapes(reward="... G")
def informative(reward: Array) -> Array:
    """1 for a group whose rewards differ, else 0: groups that teach nothing are left out by dynamic sampling.

    The mean of ``1 - informative`` is trl's ``frac_reward_zero_std``.

    Args:
      reward: ``[..., G]``, of the completions of one prompt.
    Returns:
      ``[...]``, 0 or 1.
    Raises:
      ValueError: shapes.
    Edges: a group of one is never informative.
    Source: Yu et al., 2025, DAPO, eq. 11.
    """
    return (reward.max(-1) > reward.min(-1)).astype(reward.dtype)


@shapes(length="...", limit="", buffer="")
def overlong_penalty(length: Array, limit: Array | float, buffer: Array | float) -> Array:
    """0 up to ``limit - buffer``, from there down to -1 at ``limit``, -1 beyond; to be added to the reward.

    Args:
      length: ``[...]``, of completions, in tokens.
      limit: scalar, longest completion, tokens.
      buffer: scalar > 0, over how many tokens the penalty grows.
    Returns:
      ``[...]``, in [-1, 0]. verl's form has no floor, which is the same where completions are cut at the limit.
    Raises:
      ValueError: a setting is not a scalar.
    Edges: none.
    Source: Yu et al., 2025, DAPO, eq. 13.
    """
    return jnp.clip((limit - buffer - length) / buffer, -1.0, 0.0)

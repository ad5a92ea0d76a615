"""The terms of token agents' losses, as static switches choose them: rewards, advantages, surrogates, means."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents.tokens._switches import Config
from jaxrl_reg.losses.entropy import categorical_entropy
from jaxrl_reg.types import Array, Completions, Metrics, TokenSpec


class Scored(NamedTuple):
    """What a loss sees of a batch ``[B, G]`` of completions; the old policy is the one that sampled."""

    log_prob: Array  # [B, G, T], differentiated
    logits: Array  # [B, G, T, V], differentiated, at the temperature
    old: Array  # [B, G, T]
    advantage: Array  # [B, G]
    mask: Array  # [B, G, T]


def shaped(config: Config, batch: Completions, spec: TokenSpec) -> Array:
    """The reward that is learned from: with DAPO's penalty of overlong completions, if it is asked for."""
    if not config.overlong_buffer:
        return batch.reward
    length = batch.mask.sum(-1)
    return batch.reward + losses.overlong_penalty(length, float(spec.completion), float(config.overlong_buffer))


def kl_in_reward(config: Config, old: Array, reference: Array, hyper: Any) -> Array | float:
    """k1 summed over a completion's tokens, where the divergence is taken off the reward."""
    if config.kl != "reward":
        return 0.0
    return hyper.kl_coef * losses.sampled_kl(old, reference, "k1").sum(-1)


def advantages(config: Config, reward: Array) -> Array:
    """``[B, G]``, by the static switch."""
    if config.advantage == "leave_one_out":
        return losses.leave_one_out_advantage(reward)
    if config.advantage == "batch":
        return reward - reward.mean()
    return losses.group_advantage(reward, normalise=config.advantage == "group")


def surrogate(config: Config, scored: Scored, hyper: Any) -> Array:
    """``[B, G, T]``, by the static switch."""
    log_prob, _, old, advantage, mask = scored
    each = jnp.broadcast_to(advantage[..., None], mask.shape)
    if config.surrogate == "reinforce":
        return losses.policy_gradient_loss(log_prob, each)
    if config.surrogate == "gspo":
        return losses.gspo_loss(log_prob, old, advantage, mask, hyper.clip_low, hyper.clip_high)
    if config.surrogate == "cispo":
        return losses.cispo_loss(log_prob, old, each, hyper.clip_low, hyper.clip_high)
    return losses.ppo_clip_loss(log_prob, old, each, hyper.clip_low, hyper.clip_high, config.dual_clip)


def total(
    config: Config, scored: Scored, reference: Array, hyper: Any, longest: int, loss: Array | None = None
) -> tuple[Array, Metrics]:
    """The loss of a minibatch and its metrics: surrogate (or ``loss`` ``[B, G, T]`` instead), divergence, entropy."""
    log_prob, logits, old, _, mask = scored
    loss = surrogate(config, scored, hyper) if loss is None else loss
    metrics = {"actor_loss": aggregated(config, loss, mask, longest)}
    value = metrics["actor_loss"]
    if config.kl in ("k1", "k2", "k3"):
        divergence = losses.sampled_kl(log_prob, reference, config.kl)
        value = value + hyper.kl_coef * aggregated(config, divergence, mask, longest)
    if config.kl != "none":
        metrics["kl"] = losses.masked_mean(losses.sampled_kl(log_prob, reference, "k3"), mask)
    metrics["entropy"] = losses.masked_mean(categorical_entropy(logits), mask)
    value = value - hyper.entropy_coef * metrics["entropy"]
    change = jnp.clip(log_prob - old, -20.0, 20.0)
    ratio = jnp.expm1(change)  # minus 1
    metrics["approximate_kl"] = losses.masked_mean(ratio - change, mask)
    if hasattr(hyper, "clip_low"):
        outside = (ratio < -hyper.clip_low) | (ratio > hyper.clip_high)
        metrics["clipped"] = losses.masked_mean(outside.astype(jnp.float32), mask)
    return value, metrics


def aggregated(config: Config, loss: Array, mask: Array, longest: int) -> Array:
    """Scalar, by the static switch."""
    if config.aggregation == "token":
        return losses.masked_mean(loss, mask)
    if config.aggregation == "sequence":
        return losses.sequence_mean(loss, mask)
    return losses.constant_mean(loss, mask, float(longest))

"""The loss of PPO's actor on one minibatch."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents import _plasticity
from jaxrl_reg.agents._switches import Switches
from jaxrl_reg.types import Array, Key, Metrics, PyTree


def clipped(
    config: Switches, policy: Any, params: PyTree, rows: tuple[Array, ...], hyper: Any, key: Key
) -> tuple[Any, Array, Metrics]:
    """What ``policy`` says, the clipped surrogate less the entropy bonus, and metrics.

    ``rows`` are observations as the network takes them, actions, and the log-densities ``[B]`` of the acting policy
    with standardised advantages ``[B]``. Metrics: ``actor_loss``, ``entropy`` (nats), ``clipped``, ``approximate_kl``.
    """
    observation, action, old_log_prob, advantage = rows
    # Applied once for all that is asked of it: each application has a backward pass of its own.
    distribution = policy.apply(params, observation)
    log_prob = policy.log_prob_of(distribution, action)
    loss = losses.ppo_clip_loss(log_prob, old_log_prob, advantage, hyper.clip)
    loss = _plasticity.seen(config.policy_churn, loss).mean()
    entropy = policy.entropy_of(distribution, key).mean()
    log_ratio = jnp.clip(log_prob - old_log_prob, -20.0, 20.0)  # metrics stay finite when a policy leaps
    change = jnp.expm1(log_ratio)
    metrics = {"actor_loss": loss, "entropy": entropy, "clipped": (abs(change) > hyper.clip).mean()}
    metrics["approximate_kl"] = (change - log_ratio).mean()
    return distribution, loss - hyper.entropy_coef * entropy, metrics

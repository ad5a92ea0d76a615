"""On-policy losses: the score-function gradient, PPO's clipped surrogate and its clipped value loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array

_LARGEST_LOG_RATIO = 20.0  # a ratio of 5e8; beyond it float32 would soon overflow and infinity times 0 is NaN


@shapes(log_prob="...", advantage="...")
def policy_gradient_loss(log_prob: Array, advantage: Array) -> Array:
    """``-A log pi(a|s)`` with the advantage DETACHED; its gradient is the policy gradient.

    Args:
      log_prob: ``[...]``, nats.
      advantage: ``[...]``, in units of summed reward.
    Returns:
      ``[...]``; only its gradient means something.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite input.
    Source: Williams, 1992, Simple Statistical Gradient-Following Algorithms; Sutton et al., 2000, Policy Gradient
      Methods.
    """
    return -jax.lax.stop_gradient(advantage) * log_prob


@shapes(log_prob="...", old_log_prob="...", advantage="...", clip="")
def ppo_clip_loss(log_prob: Array, old_log_prob: Array, advantage: Array, clip: Array | float) -> Array:
    """``-min(rho A, clip(rho, 1 - eps, 1 + eps) A)``, ``rho = pi / pi_old``, advantage and old policy DETACHED.

    Args:
      log_prob: ``[...]``, of the policy that is trained, nats.
      old_log_prob: ``[...]``, of the policy that acted, nats.
      advantage: ``[...]``, usually standardised over the batch by the caller.
      clip: scalar eps > 0.
    Returns:
      ``[...]``, units of the advantage.
    Raises:
      ValueError: shapes differ.
    Edges: log-ratios are held within +-20, so no ratio overflows; past that bound the gradient is 0.
    Source: Schulman et al., 2017, Proximal Policy Optimization Algorithms, eq. 7.
    """
    advantage = jax.lax.stop_gradient(advantage)
    log_ratio = log_prob - jax.lax.stop_gradient(old_log_prob)
    ratio = jnp.exp(jnp.clip(log_ratio, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO))
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


@shapes(value="...", old_value="...", target="...", clip="")
def clipped_value_loss(value: Array, old_value: Array, target: Array, clip: Array | float) -> Array:
    """Half the larger of two squared errors: of the value, and of the value held within ``clip`` of the old one.

    Args:
      value: ``[...]``, the prediction that is trained.
      old_value: ``[...]``, the prediction when the data were collected, DETACHED here.
      target: ``[...]``, for example ``lambda_return``, DETACHED here.
      clip: scalar > 0, units of value; infinity gives half the squared error.
    Returns:
      ``[...]``, squared units of value.
    Raises:
      ValueError: shapes differ.
    Edges: finite while the errors are below 1e19; an infinite ``clip``.
    Source: value clipping of the published PPO code (openai/baselines); not in the paper.
    """
    target, old_value = jax.lax.stop_gradient((target, old_value))
    held = old_value + jnp.clip(value - old_value, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(held - target))

"""What an attack on a policy's observations wants of the actions, and what a policy that resists it is held to."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.divergence import gaussian_kl

Array = jax.Array


@shapes(victim_mean="... A", intention_mean="... A", intention_log_std="... A", weight="...")
def targeted_attack_loss(
    victim_mean: Array, intention_mean: Array, intention_log_std: Array, weight: Array | float = 1.0
) -> Array:
    """``w KL(N(victim, 1) || N(intention, s))``: the victim under attack shall act as the intention would.

    The intention and the weight are DETACHED; gradients flow through the victim's action, into the perturbation of what
    it sees: ``w (victim - intention)^2 / (2 s^2)`` is all that moves it.

    Args:
      victim_mean: ``[..., A]``, the victim's action on perturbed observations.
      intention_mean: ``[..., A]``, the intention's action on the true ones.
      intention_log_std: ``[..., A]``, log of its standard deviation; hold it in [log 0.2, 0], or sure states count
        for everything.
      weight: ``[...]``, how much a state counts.
    Returns:
      ``[...]``, nats; >= 0 for weights >= 0.
    Raises:
      ValueError: shapes differ.
    Edges: those of ``gaussian_kl``.
    Source: Bai et al., 2025, RAT; its released code divides the squared difference by s instead of its square.
    """
    fixed = map(jax.lax.stop_gradient, (intention_mean, intention_log_std, weight))
    mean, log_std, weight = fixed
    return weight * gaussian_kl(victim_mean, jnp.zeros_like(victim_mean), mean, log_std)


@shapes(mean="... A", perturbed_mean="... A", log_std="... A")
def policy_smoothness_loss(mean: Array, perturbed_mean: Array, log_std: Array) -> Array:
    """``sum_i (m_i - m'_i)^2 / s_i^2``: the action on a perturbed observation shall be that on the true one.

    Twice the KL of two normals with one spread. The true side and the spread are DETACHED: the regulariser shall not
    spread the policy out, nor move what it does when nobody attacks.

    Args:
      mean: ``[..., A]``, on the true observation.
      perturbed_mean: ``[..., A]``, on a perturbed one, the worst that ``transforms.projected_ascent`` finds.
      log_std: ``[..., A]``, log of the policy's standard deviation on the true one.
    Returns:
      ``[...]`` >= 0.
    Raises:
      ValueError: shapes differ.
    Edges: standard deviations below e^-20 count as that.
    Source: Zhang et al., 2020, Robust Deep Reinforcement Learning against Adversarial Perturbations on State
      Observations (SA-PPO).
    """
    mean, log_std = jax.lax.stop_gradient(mean), jax.lax.stop_gradient(log_std)
    return (jnp.square(mean - perturbed_mean) * jnp.exp(-2.0 * jnp.maximum(log_std, -20.0))).sum(-1)


@shapes(mean="... A", perturbed_mean="... A")
def action_deviation(mean: Array, perturbed_mean: Array) -> Array:
    """``sum_i (m_i - m'_i)^2``, what an untargeted attack raises; the true side is DETACHED.

    Args:
      mean: ``[..., A]``, the action on the true observation.
      perturbed_mean: ``[..., A]``, on the perturbed one.
    Returns:
      ``[...]`` >= 0.
    Raises:
      ValueError: shapes differ.
    Edges: its gradient is 0 where both are one, so an ascent has to begin elsewhere.
    Source: Zhang et al., 2020, Robust Deep Reinforcement Learning against Adversarial Perturbations on State
      Observations, the maximal action difference (MAD) attack.
    """
    return jnp.square(jax.lax.stop_gradient(mean) - perturbed_mean).sum(-1)

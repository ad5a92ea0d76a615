"""Maximum-entropy policies: SAC's actor and the temperature that holds its entropy at a target."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(q="...", log_prob="...", temperature="")
def soft_actor_loss(q: Array, log_prob: Array, temperature: Array | float) -> Array:
    """``alpha log pi(a|s) - Q(s, a)`` at a reparameterised action, alpha DETACHED.

    Args:
      q: ``[...]``, the smallest critic at the policy's sample, gradients flowing into the action.
      log_prob: ``[...]``, of that same sample, nats.
      temperature: scalar alpha >= 0, units of value per nat.
    Returns:
      ``[...]``, units of value.
    Raises:
      ValueError: shapes differ.
    Edges: ``log_prob`` must be finite, also at temperature 0.
    Source: Haarnoja et al., 2018, Soft Actor-Critic Algorithms and Applications (arXiv 1812.05905), eq. 9; SAC-N and
      EDAC use it with their smallest critic.
    """
    return jax.lax.stop_gradient(temperature) * log_prob - q


@shapes(log_temperature="", log_prob="...", target_entropy="")
def temperature_loss(log_temperature: Array | float, log_prob: Array, target_entropy: Array | float) -> Array:
    """``-alpha (log pi(a|s) + target_entropy)``, ``alpha = exp(log_temperature)``, log-probability DETACHED.

    Alpha rises while the entropy ``-log pi`` is below its target. Some published code multiplies by ``log alpha``
    instead of ``alpha``, which changes the speed but not the sign.

    Args:
      log_temperature: scalar, the trained parameter.
      log_prob: ``[...]``, of the policy's sample, nats.
      target_entropy: scalar, nats; minus the number of action dimensions is usual.
    Returns:
      ``[...]``, nats times alpha.
    Raises:
      ValueError: a hyperparameter is not a scalar.
    Edges: finite for ``log_temperature`` below 80.
    Source: Haarnoja et al., 2018, Soft Actor-Critic Algorithms and Applications (arXiv 1812.05905), eq. 18.
    """
    return -jnp.exp(log_temperature) * (jax.lax.stop_gradient(log_prob) + target_entropy)

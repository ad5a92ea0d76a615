"""Rewards from comparisons: which of two trajectories is better?"""

from __future__ import annotations

import jax

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(first="...", second="...", preference="...")
def bradley_terry_loss(first: Array, second: Array, preference: Array) -> Array:
    """``-p log sigma(f - s) - (1 - p) log sigma(s - f)`` with the preference DETACHED.

    Minus the log-likelihood of a judge who prefers the first of two trajectories with probability ``sigma(f - s)``,
    ``f`` and ``s`` being their returns under the reward that is learnt.

    Args:
      first: ``[...]``, return of the first; its unit sets how sure the judge is.
      second: ``[...]``, return of the second.
      preference: ``[...]``, 1 where the first was preferred, 0 where the second was, between for a shared judgement.
    Returns:
      ``[...]``, nats; >= 0.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite input; a difference of any size costs at most itself.
    Source: Bradley and Terry, 1952; rewards of trajectories: Christiano et al., 2017, Deep Reinforcement Learning from
      Human Preferences, eq. 1.
    """
    preference = jax.lax.stop_gradient(preference)
    difference = first - second
    return preference * jax.nn.softplus(-difference) + (1.0 - preference) * jax.nn.softplus(difference)

"""Values of reaching goals: how many steps away a goal is, learnt from the data's own transitions."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(
    value="N ...",
    target_value="N ...",
    next_target_value="N ...",
    reward="...",
    discount="...",
    gamma="",
    expectile="",
)
def goal_value_loss(
    value: Array,
    target_value: Array,
    next_target_value: Array,
    reward: Array,
    discount: Array,
    gamma: Array | float,
    expectile: Array | float,
) -> Array:
    """Expectile regression of ``N`` goal-conditioned values without an action value, summed over them.

    Each fits its own ``r + gamma d V'_j(s', g)``. Whether the transition counts by ``expectile`` or by one minus it
    tells the sign of one advantage for all: ``r + gamma d min_j V'_j(s', g) - mean_j V'_j(s, g)``, so a transition that
    did better than usual counts more, and values lean towards the best way to the goal in the data. In a stochastic
    world that also favours luck.

    Args:
      value: ``[N, ...]``, V_j(s, g), which learn.
      target_value: ``[N, ...]``, V'_j(s, g) of the slow copies; DETACHED.
      next_target_value: ``[N, ...]``, V'_j(s', g) of the slow copies; DETACHED.
      reward: ``[...]``, usually -1 for every step.
      discount: ``[...]``, 0 where the step arrives at the goal.
      gamma: scalar in [0, 1].
      expectile: scalar in (0, 1); 0.5 is the plain mean.
    Returns:
      ``[...]``, squared units of the values.
    Raises:
      ValueError: the shapes do not match.
    Edges: where the advantage is exactly 0 it counts as not negative; finite for finite arguments.
    Source: Park et al., 2024, Foundation Policies with Hilbert Representations (released code).
    """
    target_value, following = jax.lax.stop_gradient((target_value, next_target_value))
    advantage = reward + gamma * discount * following.min(axis=0) - target_value.mean(axis=0)
    weight = jnp.abs(expectile - (advantage < 0))
    return (weight * jnp.square(reward + gamma * discount * following - value)).sum(axis=0)

"""Churn: how far an update moves a network's outputs on inputs that were not in its batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(q="...", previous_q="...")
def value_churn_loss(q: Array, previous_q: Array) -> Array:
    """``(Q - Q_previous)^2`` on a reference batch that the value loss does not see (CHAIN).

    Args:
      q: ``[...]``, of the network that is trained.
      previous_q: ``[...]``, of its parameters before the last update, on the same rows; DETACHED.
    Returns:
      ``[...]``, squared units of the values.
    Raises:
      ValueError: shapes differ.
    Edges: 0, with gradient 0, where nothing moved: on the first update it does nothing.
    Source: Tang and Berseth, 2024, Improving Deep Reinforcement Learning by Reducing the Chain Effect of Value and
      Policy Churn, equation 8. For policies take ``behaviour_cloning_loss`` or ``gaussian_kl`` in the same way.
    """
    return jnp.square(q - jax.lax.stop_gradient(previous_q))


@shapes(main="", churn="", ratio="", floor="")
def churn_weight(main: Array, churn: Array, ratio: Array | float, floor: Array | float = 1e-8) -> Array:
    """``ratio |main| / |churn|``: the coefficient at which the penalty is a fixed share of the loss; DETACHED.

    Args:
      main: scalar, the average size of the main loss so far.
      churn: scalar, the average size of the penalty so far.
      ratio: scalar >= 0, the share wanted.
      floor: scalar > 0, the least denominator.
    Returns:
      scalar >= 0.
    Raises:
      ValueError: an argument is not a scalar.
    Edges: a penalty of 0 counts as ``floor``.
    Source: Tang and Berseth, 2024, section 5.2 (adjusting the coefficient to the relative size of the losses).
    """
    main, churn = jax.lax.stop_gradient(main), jax.lax.stop_gradient(churn)
    return jax.lax.stop_gradient(ratio) * jnp.abs(main) / jnp.maximum(jnp.abs(churn), jax.lax.stop_gradient(floor))

"""Weights of groups or classes for the worst case near the data's own shares. All of them are DETACHED.

Multiply each row's loss by ``q_k / p_k`` of its group ``k``: drawn by ``p``, the rows then estimate ``sum_k q_k L_k``.
``L_k`` should be an average over batches (decay 0.95), kept where a batch has none of group k. For classes, subtracting
``log p`` from a plainly trained model's logits does more than any of these; for groups that are no labels nothing such
exists, and balanced weights (``q`` uniform) do more for the worst group at a higher price for the others.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array

TINY = 1e-30


def group_mean(loss: Array, group: Array, groups: int) -> tuple[Array, Array]:
    """Mean loss and number of rows of each group; DETACHED.

    Args:
      loss: ``[B]``.
      group: ``[B]``, whole numbers from 0 to ``groups - 1``.
      groups: static.
    Returns:
      ``[groups]`` in the loss's unit, 0 for a group without rows, and ``[groups]``, rows.
    Raises:
      ValueError: shapes differ.
    Edges: rows of another number count for no group.
    Source: Sagawa et al., 2020, Distributionally Robust Neural Networks for Group Shifts, section 2.
    """
    if loss.shape != group.shape or loss.ndim != 1:
        raise ValueError(f"group_mean: expected loss [B], group [B]; got {list(loss.shape)}, {list(group.shape)}")
    member = jax.lax.stop_gradient(group[:, None] == jnp.arange(groups)).astype(loss.dtype)
    count = member.sum(axis=0)
    return (member * jax.lax.stop_gradient(loss)[:, None]).sum(axis=0) / jnp.maximum(count, 1.0), count


@shapes(rate="... K", rho="")
def robust_radius(rate: Array, rho: Array | float) -> Array:
    """``rho sqrt(p_k) / sum_j sqrt(p_j)``: how far each group's share may lie from its rate; DETACHED.

    Relative to the rate it grows like ``p^-1/2``, as the error of a share estimated from a sample does.

    Args:
      rate: ``[..., K]``, above 0.
      rho: scalar in [0, 2], the sum of the radii; 0 is the plain mean.
    Returns:
      ``[..., K]``.
    Raises:
      ValueError: ``rho`` is not a scalar.
    Edges: a group of rate 0 has radius 0.
    Source: reconstruction of the objective of Gong et al., 2025, BehaveGPT, whose text could be read in part only.
    """
    root = jnp.sqrt(jax.lax.stop_gradient(rate))
    return jax.lax.stop_gradient(rho) * root / jnp.maximum(root.sum(axis=-1, keepdims=True), TINY)


@shapes(loss="... K", rate="... K", radius="... K")
def box_weights(loss: Array, rate: Array, radius: Array) -> Array:
    """The shares ``q`` of largest ``sum_k q_k L_k`` with ``|q_k - p_k| <= r_k`` and ``sum q = 1``; DETACHED.

    Every share begins at its lower end; what is left goes to the largest loss first, up to its upper end.

    Args:
      loss: ``[..., K]``, mean loss of each group.
      rate: ``[..., K]``, ``p``, of sum 1.
      radius: ``[..., K]``, at least 0, as of ``robust_radius``.
    Returns:
      ``[..., K]``, of sum 1, within the box cut at 0 and 1. Of equal losses any order is a maximiser.
    Raises:
      ValueError: shapes differ.
    Edges: radius 0 gives the rates.
    Source: exact solution of a fractional knapsack (Dantzig, 1957); the box: see ``robust_radius``.
    """
    loss, rate, radius = map(jax.lax.stop_gradient, (loss, rate, radius))
    low, high = jnp.maximum(rate - radius, 0.0), jnp.minimum(rate + radius, 1.0)
    order = jnp.argsort(-loss, axis=-1)
    room = jnp.take_along_axis(high - low, order, axis=-1)
    before = jnp.cumsum(room, axis=-1) - room
    given = jnp.clip(1.0 - low.sum(axis=-1, keepdims=True) - before, 0.0, room)
    return low + jnp.take_along_axis(given, jnp.argsort(order, axis=-1), axis=-1)


@shapes(loss="... K", rate="... K", temperature="")
def divergence_weights(loss: Array, rate: Array, temperature: Array | float) -> Array:
    """``q_k`` in proportion to ``p_k exp(L_k / T)``: the worst case at the price ``T KL(q || p)``; DETACHED.

    Its value is ``T log sum_k p_k exp(L_k / T)``.

    Args:
      loss: ``[..., K]``.
      rate: ``[..., K]``, above 0.
      temperature: scalar > 0, the loss's unit.
    Returns:
      ``[..., K]``, of sum 1.
    Raises:
      ValueError: shapes differ.
    Edges: a rate of 0 stays 0; rates that are all 0 count as equal.
    Source: Hu and Hong, 2013, Kullback-Leibler Divergence Constrained Distributionally Robust Optimization.
    """
    return jax.lax.stop_gradient(jax.nn.softmax(jnp.log(jnp.maximum(rate, TINY)) + loss / temperature))


@shapes(weight="... K", loss="... K", step_size="")
def group_dro_weights(weight: Array, loss: Array, step_size: Array | float) -> Array:
    """``q_k exp(step_size L_k)``, normalised: weights that follow the worst group from step to step; DETACHED.

    A group whose labels are noise has a high loss for ever and ends with nearly all of the weight.

    Args:
      weight: ``[..., K]``, those of the last step, of sum 1; uniform at first.
      loss: ``[..., K]``; for a group without rows in the batch give its average, not 0.
      step_size: scalar >= 0, per unit of the loss; 0.01 in the source.
    Returns:
      ``[..., K]``, of sum 1.
    Raises:
      ValueError: shapes differ.
    Edges: a weight of 0 stays 0; weights that are all 0 count as equal.
    Source: Sagawa et al., 2020, Distributionally Robust Neural Networks for Group Shifts, algorithm 1.
    """
    return jax.lax.stop_gradient(jax.nn.softmax(jnp.log(jnp.maximum(weight, TINY)) + step_size * loss))

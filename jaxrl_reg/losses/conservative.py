"""Pessimism about actions outside the data: the penalties of CQL, VC-FB and MC-FB, and EDAC's ensemble diversity."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array

_LARGEST_WEIGHT = 1e6


@shapes(q_samples="K ...", log_probs="K ...", q_data="...")
def cql_penalty(q_samples: Array, log_probs: Array, q_data: Array) -> Array:
    """``log sum_k exp(Q(s, a_k) - log p_k(a_k)) - Q(s, a)`` for one critic: CQL(H), importance-sampled.

    The ``K`` actions come from several proposals, each with its own log-density: uniform ones (``-A log 2`` on
    ``[-1, 1]^A``), the policy's at ``s``, the policy's next actions, also evaluated at ``s``. There is no ``- log K``,
    as in the published code. Map over an ensemble with ``jax.vmap(cql_penalty, (0, None, 0))``.

    Args:
      q_samples: ``[K, ...]``, critic at the sampled actions; detach the actions.
      log_probs: ``[K, ...]``, nats, DETACHED here.
      q_data: ``[...]``, critic at the data's action.
    Returns:
      ``[...]``, in units of value; computed in float32 at least.
    Raises:
      ValueError: shapes differ.
    Edges: no overflow for large values; samples of ``Q = -inf`` drop out as long as one is finite.
    Source: Kumar et al., 2020, Conservative Q-Learning for Offline Reinforcement Learning, eq. 4; the importance
      sampling is in the appendix on implementation details.
    """
    return conservative_penalty(q_samples - jax.lax.stop_gradient(log_probs), q_data)


@shapes(samples="K ...", data="...")
def conservative_penalty(samples: Array, data: Array) -> Array:
    """``log sum_k exp(x_k) - x``: how far a prediction at ``K`` sampled actions stands above that at the data's action.

    CQL without importance weights. VC-FB applies it to values ``F_j^T z``, with ``...`` the rows of a batch; MC-FB to
    measures ``F_j B^T``, with ``...`` all ``[B, B]`` pairs of row and future state.

    Args:
      samples: ``[K, ...]``, prediction at the sampled actions; detach the actions.
      data: ``[...]``, prediction at the data's action.
    Returns:
      ``[...]``, in units of the prediction.
    Raises:
      ValueError: shapes differ.
    Edges: no overflow for large values; at least ``log K`` where all are equal, without ``- log K``.
    Source: Jeen, Bewley and Cullen, 2024, Zero-Shot Reinforcement Learning from Low Quality Data, eqs. 8 and 9.
    """
    return jax.nn.logsumexp(samples, axis=0) - data


@shapes(q="...", bound="...")
def calibrated_value(q: Array, bound: Array) -> Array:
    """``max(Q(s, a), V_mu(s))``: what Cal-QL puts into CQL's penalty in the place of the policy's actions' values.

    Values that are below those of a reference policy already are not pushed down further: the gradient of the penalty
    is 0 there. Map over samples, and over an ensemble, with ``jax.vmap(calibrated_value, (0, None))``.

    Args:
      q: ``[...]``, critic at an action of the policy.
      bound: ``[...]``, value of the reference policy, such as the return-to-go of the data; DETACHED here. Minus
        infinity where there is none.
    Returns:
      ``[...]``, in units of value.
    Raises:
      ValueError: shapes differ.
    Edges: where both are equal half of the gradient passes.
    Source: Nakamoto et al., 2023, Cal-QL: Calibrated Offline RL Pre-Training for Efficient Online Fine-Tuning, eq. 5.1.
    """
    return jnp.maximum(q, jax.lax.stop_gradient(bound))


@shapes(log_weight="")
def cql_lagrange_weight(log_weight: Array | float) -> Array:
    """The Lagrange multiplier ``min(exp(log_weight), 1e6)``, DETACHED, as it stands in the critic's loss.

    The critic minimises ``weight coefficient (penalty - target_gap)``; the multiplier learns by ``cql_lagrange_loss``.

    Args:
      log_weight: scalar, the trained parameter.
    Returns:
      scalar ``[]`` in ``[0, 1e6]``, without gradient.
    Raises:
      ValueError: ``log_weight`` is not a scalar.
    Edges: any finite parameter.
    Source: Kumar et al., 2020, Conservative Q-Learning for Offline Reinforcement Learning, appendix on
      implementation details.
    """
    return jax.lax.stop_gradient(_lagrange_weight(log_weight))


@shapes(log_weight="", penalty="...", target_gap="", coefficient="")
def cql_lagrange_loss(
    log_weight: Array | float, penalty: Array, target_gap: Array | float, coefficient: Array | float
) -> Array:
    """``-weight coefficient (sg(penalty) - target_gap)``: the multiplier grows while the penalty exceeds the gap.

    Args:
      log_weight: scalar, the trained parameter; ``weight = min(exp(log_weight), 1e6)``.
      penalty: ``[...]``, ``cql_penalty``, DETACHED here.
      target_gap: scalar, units of value.
      coefficient: scalar >= 0, the fixed weight that multiplies the penalty in the critic's loss too.
    Returns:
      ``[...]``, units of value.
    Raises:
      ValueError: a hyperparameter is not a scalar.
    Edges: no overflow; above ``log 1e6`` the gradient is 0.
    Source: Kumar et al., 2020, Conservative Q-Learning for Offline Reinforcement Learning, appendix on
      implementation details.
    """
    return -_lagrange_weight(log_weight) * coefficient * (jax.lax.stop_gradient(penalty) - target_gap)


def _lagrange_weight(log_weight: Array | float) -> Array:
    return jnp.exp(jnp.minimum(log_weight, jnp.log(_LARGEST_WEIGHT)))


@shapes(action_gradients="N ... A")
def gradient_diversity_loss(action_gradients: Array) -> Array:
    """EDAC: how much the critics of an ensemble agree on the direction in which an action should move.

    ``1 / (N - 1) sum_{i != j} <g_i, g_j>`` over ordered pairs, where ``g_i`` is critic ``i``'s gradient with respect to
    the action, scaled to length 1. Computed as ``(|sum_i g_i|^2 - sum_i |g_i|^2) / (N - 1)``: no ``N x N`` matrix.

    Args:
      action_gradients: ``[N, ..., A]``, ``grad_a Q_i(s, a)`` at the data's actions, any scale.
    Returns:
      ``[...]``, between ``-N / (N - 1)`` and ``N``, without unit.
    Raises:
      ValueError: fewer than two critics.
    Edges: a gradient of length below 1e-10, zero included, counts by its length over 1e-10; value and derivative stay
      finite.
    Source: An et al., 2021, Uncertainty-Based Offline Reinforcement Learning with Diversified Q-Ensemble (EDAC),
      ensemble gradient diversification.
    """
    members = action_gradients.shape[0]
    if members < 2:
        raise ValueError(f"gradient_diversity_loss: action_gradients holds {members} critic(s); expected at least 2")
    # Scaling by the largest entry first keeps the sum of squares inside the range of float32.
    largest = jnp.maximum(jnp.abs(action_gradients).max(-1, keepdims=True), 1e-10)
    scaled = action_gradients / jax.lax.stop_gradient(largest)
    least = jax.lax.stop_gradient(jnp.square(1e-10 / largest))
    directions = scaled * jax.lax.rsqrt(jnp.maximum(jnp.square(scaled).sum(-1, keepdims=True), least))
    pairs = jnp.square(directions.sum(0)).sum(-1) - jnp.square(directions).sum((0, -1))
    return pairs / (members - 1)

"""Distribution correction: the dual of an f-divergence between visitations, its gradients and its density ratios.

The dual asks for values V that minimise ``(1 - lambda) E V(s) + lambda E f*(y)`` over the data, with the residual
``y = r + gamma d V(s') - V(s)`` and ``f*`` the convex conjugate of the divergence's ``f``. At the minimum the slope of
``f*`` is the ratio of the best policy's visitation to the data's, which weighs the data when a policy is cloned from
them. Rewards enter ``f*`` without a unit, so their scale matters: Pearson's ``f*`` is flat below a residual of -2.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.value import td_target

Array = jax.Array


@shapes(residual="...")
def pearson_conjugate(residual: Array) -> Array:
    """``f*(y)`` of the Pearson chi-square divergence: ``y^2 / 4 + y`` from ``y = -2`` up, -1 below.

    The conjugate of ``f(w) = (w - 1)^2`` over ratios ``w >= 0``. Its slope is the ratio, see ``pearson_weight``.

    Args:
      residual: ``[...]``, ``r + gamma d V(s') - V(s)``.
    Returns:
      ``[...]``, without unit, at least -1.
    Raises:
      ValueError: never, for an array.
    Edges: at ``y = -2`` value and slope are continuous; finite while ``|y|`` is below 1e19.
    Source: Mao et al., 2024, ODICE: Revealing the Mystery of Distribution Correction Estimation via Orthogonal-gradient
      Update; Sikchi et al., 2023, Dual RL.
    """
    return jnp.square(jax.nn.relu(0.5 * residual + 1.0)) - 1.0


@shapes(residual="...", max_weight="")
def reverse_kl_conjugate(residual: Array, max_weight: Array | float = 100.0) -> Array:
    """``f*(y)`` of the reverse KL divergence: ``exp(y - 1)``, a straight line from where the slope is ``max_weight``.

    The conjugate of ``f(w) = w log w`` over ratios ``0 <= w <= max_weight``, hence still convex and exact: with a bound
    on the ratio, one large residual cannot drown the batch.

    Args:
      residual: ``[...]``, ``r + gamma d V(s') - V(s)``.
      max_weight: scalar > 0, the largest ratio.
    Returns:
      ``[...]``, without unit, at least 0.
    Raises:
      ValueError: ``max_weight`` is not a scalar.
    Edges: finite with finite gradients for any finite residual, also where ``exp`` overflows; value and slope are
      continuous where the tangent begins.
    Source: Nachum and Dai, 2020, Reinforcement Learning via Fenchel-Rockafellar Duality; ODICE (Mao et al., 2024).
    """
    knee = 1.0 + jnp.log(max_weight)
    near = jnp.where(residual > knee, knee, residual)  # not minimum, which halves the slope at the knee itself
    return jnp.exp(near - 1.0) + max_weight * jax.nn.relu(residual - knee)


@shapes(residual="...", clip="")
def pearson_weight(residual: Array, clip: Array | float) -> Array:
    """Density ratio of the Pearson divergence, ``min(max(y / 2 + 1, 0), clip)``, DETACHED.

    The published ODICE code weighs the actor by ``max(y, 0)`` instead, which is ``sparse_weight`` of the residual: the
    same order of rows, but it drops every row that is worse than expected, not only those worse by 2.

    Args:
      residual: ``[...]``, ``r + gamma d V(s') - V(s)``.
      clip: scalar > 0, the largest weight (the published code uses 100).
    Returns:
      ``[...]``, in ``[0, clip]``, without gradient.
    Raises:
      ValueError: ``clip`` is not a scalar.
    Edges: infinite residuals too.
    Source: slope of ``pearson_conjugate``; Mao et al., 2024 (ODICE).
    """
    return jax.lax.stop_gradient(jnp.clip(0.5 * residual + 1.0, 0.0, clip))


@shapes(residual="...", clip="")
def reverse_kl_weight(residual: Array, clip: Array | float) -> Array:
    """Density ratio of the reverse KL divergence, ``min(exp(y - 1), clip)``, DETACHED.

    Args:
      residual: ``[...]``, ``r + gamma d V(s') - V(s)``.
      clip: scalar > 0, the largest weight (the published code uses 100).
    Returns:
      ``[...]``, in ``[0, clip]``, without gradient.
    Raises:
      ValueError: ``clip`` is not a scalar.
    Edges: an exponential that overflows becomes ``clip``, exactly.
    Source: slope of ``reverse_kl_conjugate`` with ``max_weight = clip``; Mao et al., 2024 (ODICE).
    """
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(residual - 1.0), clip))


@shapes(
    value="...",
    next_value="...",
    target_value="...",
    next_target_value="...",
    reward="...",
    discount="...",
    gamma="",
    lam="",
    eta="",
)
def v_dice_losses(
    value: Array,
    next_value: Array,
    target_value: Array,
    next_target_value: Array,
    reward: Array,
    discount: Array,
    gamma: Array | float,
    lam: Array | float,
    eta: Array | float,
    conjugate: Callable[[Array], Array] = pearson_conjugate,
) -> tuple[Array, Array, Array]:
    """The three parts of the V-DICE loss, to be differentiated apart: linear, forward and backward.

    ``(1 - lambda) V(s)``; ``lambda f*(r + gamma d V'(s') - V(s))``, whose gradient goes through the value of the state
    alone; ``lambda eta f*(r + gamma d V(s') - V'(s))``, whose gradient goes through the value of the next state alone.
    ``V'``, the targets, are DETACHED. Methods differ in how they add the gradients ``g``:

    * semi-gradient: ``g_linear + g_forward``;
    * true gradient: ``g_linear + g_forward + g_backward`` with ``V' = V`` and eta 1, the gradient of the one loss
      ``(1 - lambda) V(s) + lambda f*(r + gamma d V(s') - V(s))``;
    * orthogonal gradient (ODICE): ``g_linear + transforms.orthogonal_combine(g_forward, g_backward).gradient``. The
      linear part takes no part in the projection.

    Args:
      value: ``[...]``, V(s), trained.
      next_value: ``[...]``, V(s'), trained.
      target_value: ``[...]``, V'(s) of the target parameters; with twins, the smaller.
      next_target_value: ``[...]``, V'(s'), likewise.
      reward: ``[...]``.
      discount: ``[...]``, 0 at a termination only.
      gamma: scalar in [0, 1].
      lam: scalar lambda in [0, 1]; above 1/2 the mean density ratio falls below 1.
      eta: scalar >= 0, weight of the backward part.
      conjugate: ``f*``, a function of the residual; static.
    Returns:
      linear ``[...]``, forward ``[...]`` and backward ``[...]``.
    Raises:
      ValueError: shapes differ; twins ``[2, B]`` against targets ``[B]`` are mapped over, never broadcast.
    Edges: those of ``conjugate``.
    Source: Mao et al., 2024, ODICE: Revealing the Mystery of Distribution Correction Estimation via Orthogonal-gradient
      Update.
    """
    target_value, next_target_value = jax.lax.stop_gradient((target_value, next_target_value))
    forward = conjugate(td_target(reward, discount, next_target_value, gamma) - value)
    backward = conjugate(td_target(reward, discount, next_value, gamma) - target_value)
    return (1.0 - lam) * value, lam * forward, lam * eta * backward

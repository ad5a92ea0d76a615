"""Actor losses that keep a policy close to data: behaviour cloning, advantage weighting, TD3+BC and its family."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(action="... A", target="... A")
def behaviour_cloning_loss(action: Array, target: Array) -> Array:
    """Squared distance to a target action, AVERAGED over action dimensions.

    Args:
      action: ``[..., A]``, the policy's, in [-1, 1].
      target: ``[..., A]``, the data's.
    Returns:
      ``[...]``, squared action units.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite input.
    Source: the regression form of behaviour cloning; the penalty of TD3+BC (Fujimoto and Gu, 2021).
    """
    return jnp.square(action - target).mean(-1)


@shapes(log_prob="...")
def behaviour_cloning_nll(log_prob: Array) -> Array:
    """Negative log-likelihood of the data's actions.

    Args:
      log_prob: ``[...]``, ``log pi(a|s)`` of the data's action, nats.
    Returns:
      ``[...]``, nats.
    Raises:
      ValueError: never, for an array.
    Edges: infinite where the policy gives the action no density; bring recorded actions of exactly +-1 inside first.
    Source: maximum likelihood; the same as ``weighted_log_prob_loss`` with weight 1.
    """
    return -log_prob


@shapes(advantage="...", inverse_temperature="", clip="")
def awr_weight(advantage: Array, inverse_temperature: Array | float, clip: Array | float) -> Array:
    """``min(exp(beta A), clip)``, DETACHED: the weight of advantage-weighted regression.

    An exponential that overflows becomes ``clip``, exactly. What differs between methods:

    * IQL: ``A = min_j Qbar_j(s, a) - V(s)``, beta 3 (MuJoCo) or 10 (AntMaze), clip 100; XQL likewise.
    * AWAC: ``A = min_j Q_j(s, a) - min_j Q_j(s, a_pi)``, beta = 1 / lambda = 3, clip 100.
    * EQL: ``A = Q(s, a) - V(s)``, beta = 10 / alpha, clip 100.

    Args:
      advantage: ``[...]``, in units of value.
      inverse_temperature: scalar beta >= 0, one over units of value; 0 weighs every example 1.
      clip: scalar > 0, the largest weight.
    Returns:
      ``[...]``, in ``[0, clip]``, without gradient.
    Raises:
      ValueError: a hyperparameter is not a scalar.
    Edges: any finite advantage, also where ``beta A`` overflows; infinite advantages too if beta > 0.
    Source: Peng et al., 2019, Advantage-Weighted Regression; Kostrikov et al., 2021 (IQL), eq. 7; Nair et al., 2020
      (AWAC).
    """
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(inverse_temperature * advantage), clip))


@shapes(advantage="...", clip="")
def sparse_weight(advantage: Array, clip: Array | float) -> Array:
    """``min(max(A, 0), clip)``, DETACHED: SQL's weight, which ignores every action below the value.

    Args:
      advantage: ``[...]``, ``Q(s, a) - V(s)``, in units of value.
      clip: scalar > 0, the largest weight (the published code uses 100).
    Returns:
      ``[...]``, in ``[0, clip]``, without gradient.
    Raises:
      ValueError: ``clip`` is not a scalar.
    Edges: infinite advantages too.
    Source: Xu et al., 2023, Offline RL with No OOD Actions: In-Sample Learning via Implicit Value Regularization (SQL).
    """
    return jax.lax.stop_gradient(jnp.clip(advantage, 0.0, clip))


@shapes(log_prob="...", weight="...")
def weighted_log_prob_loss(log_prob: Array, weight: Array) -> Array:
    """``-w log pi(a|s)`` with the weight DETACHED: the actor loss of AWR, AWAC, IQL, XQL, SQL and EQL.

    Args:
      log_prob: ``[...]``, nats.
      weight: ``[...]``, >= 0, for example ``awr_weight``.
    Returns:
      ``[...]``, nats times weight.
    Raises:
      ValueError: shapes differ.
    Edges: an example of weight 0 costs exactly 0 and sends no gradient, even where its log-probability is infinite.
    Source: Peng et al., 2019, Advantage-Weighted Regression; Kostrikov et al., 2021 (IQL), eq. 7.
    """
    weight = jax.lax.stop_gradient(weight)
    return -weight * jnp.where(weight == 0, 0.0, log_prob)


@shapes(q="...", alpha="", floor="")
def adaptive_q_scale(q: Array, alpha: Array | float, floor: Array | float = 1e-6) -> Array:
    """TD3+BC's ``lambda = alpha / mean |Q|``, DETACHED: the balance of two losses no longer depends on reward scale.

    Args:
      q: ``[...]``, critic values of the whole batch, any shape.
      alpha: scalar >= 0; larger trusts the critic more.
      floor: scalar > 0, the least value that ``mean |Q|`` counts as; in the units of ``q``.
    Returns:
      scalar, one over the units of ``q``, without gradient.
    Raises:
      ValueError: ``alpha`` or ``floor`` is not a scalar.
    Edges: all-zero ``q`` gives ``alpha / floor``, which is finite.
    Source: Fujimoto and Gu, 2021, A Minimalist Approach to Offline Reinforcement Learning (TD3+BC), section 5.
    """
    return jax.lax.stop_gradient(alpha / jnp.maximum(jnp.abs(q).mean(), floor))


@shapes(q="B", action="B A", target="B A", gate="B", alpha="")
def regularised_actor_loss(q: Array, action: Array, target: Array, gate: Array, alpha: Array | float) -> Array:
    """``-lambda Q(s, pi) + gate mean_dims (pi - target)^2`` with ``lambda = alpha / sg(mean |Q|)``.

    One loss for a family of methods. They differ in the target, the gate and where the coefficient stands:

    =========  ================================================  ==================================  ===============
    method     target                                            gate                                alpha
    =========  ================================================  ==================================  ===============
    TD3        any                                               0                                   any
    TD3+BC     the data's action                                 1                                   2.5
    PRDC       action of the nearest ``(beta s, a)`` in the data 1                                   2.5 to 40
    A2PR       the better of data and generated action           mask where either beats V, else 0   2.5 or 40
    ReBRAC     the data's action                                 beta1 A (it SUMS over dimensions)   1
    =========  ================================================  ==================================  ===============

    So ReBRAC's beta1 corresponds to TD3+BC's ``1 / (alpha A)``; ``rebrac_actor_loss`` does that conversion.

    Args:
      q: ``[B]``, critic at the policy's own action, gradients flowing into the action.
      action: ``[B, A]``, the policy's.
      target: ``[B, A]``, what to stay close to; not detached here (A2PR's may depend on the policy).
      gate: ``[B]``, weight of the penalty; a bool array counts as 0 and 1.
      alpha: scalar >= 0, weight of the normalised critic.
    Returns:
      ``[B]``; the caller takes the mean. The batch is coupled by the detached ``lambda``: do not map over it.
    Raises:
      ValueError: shapes differ.
    Edges: all-zero ``q`` (see ``adaptive_q_scale``).
    Source: Fujimoto and Gu, 2021 (TD3+BC), section 5; Ran et al., 2023 (PRDC); Liu et al., 2024 (A2PR); Tarasov et al.,
      2023 (ReBRAC).
    """
    return gate * behaviour_cloning_loss(action, target) - adaptive_q_scale(q, alpha) * q


@shapes(q="B", action="B A", target="B A", coefficient="")
def rebrac_actor_loss(q: Array, action: Array, target: Array, coefficient: Array | float) -> Array:
    """``beta1 ||pi - a||^2 - Q(s, pi) / sg(mean |Q|)``, the squared norm SUMMED over action dimensions.

    Args:
      q: ``[B]``, the smallest critic at the policy's action.
      action: ``[B, A]``, the policy's.
      target: ``[B, A]``, the data's.
      coefficient: scalar beta1 >= 0, per squared action unit.
    Returns:
      ``[B]``; the caller takes the mean. The batch is coupled as in ``regularised_actor_loss``.
    Raises:
      ValueError: shapes differ.
    Edges: all-zero ``q`` (see ``adaptive_q_scale``).
    Source: Tarasov et al., 2023, Revisiting the Minimalist Approach to Offline RL (ReBRAC), actor objective.
    """
    gate = jnp.full_like(q, coefficient * action.shape[-1])
    return regularised_actor_loss(q, action, target, gate, alpha=1.0)


@shapes(
    generated_action="... A",
    data_action="... A",
    generated_q="...",
    data_q="...",
    value="...",
    mask="",
)
def advantage_select(
    generated_action: Array,
    data_action: Array,
    generated_q: Array,
    data_q: Array,
    value: Array,
    mask: Array | float,
) -> tuple[Array, Array]:
    """A2PR's target for ``regularised_actor_loss``: the better of two actions, counted only if one beats the value.

    Target: the generated action where its advantage is at least the data action's, else the data action. Gate: ``mask``
    where the generated advantage is >= 0 OR the data's is > 0, else 0; where both hold it is still ``mask``.

    Args:
      generated_action: ``[..., A]``, of the advantage-filtered generative model.
      data_action: ``[..., A]``.
      generated_q: ``[...]``, first critic at the generated action.
      data_q: ``[...]``, first critic at the data's action.
      value: ``[...]``, V(s).
      mask: scalar >= 0, weight of the penalty where it counts.
    Returns:
      target ``[..., A]``, with the selected action's gradient (detach it if the generator must not learn from the
      actor), and gate ``[...]``, without gradient.
    Raises:
      ValueError: shapes differ.
    Edges: ties go to the generated action.
    Source: Liu et al., 2024, Adaptive Advantage-Guided Policy Regularization for Offline Reinforcement Learning (A2PR).
    """
    generated, data = generated_q - value, data_q - value
    target = jnp.where((generated >= data)[..., None], generated_action, data_action)
    gate = jnp.where((generated >= 0) | (data > 0), jax.lax.stop_gradient(mask), 0.0)
    return target, gate

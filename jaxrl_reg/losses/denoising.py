"""Losses of generative policies: what turns a denoising or flow error into reinforcement learning.

The errors come from a generative model's own loss (``generative.ddpm_loss``, ``flow_matching_loss``, ...), one per
example; these functions weigh them, add a critic, or teach a one-step policy from a slow sampler.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.policy import adaptive_q_scale

Array = jax.Array


@shapes(error="...", weight="...")
def weighted_denoising_loss(error: Array, weight: Array) -> Array:
    """``w e`` with the weight DETACHED: advantage- or Q-weighted denoising, the generative form of AWR.

    Args:
      error: ``[...]``, >= 0, a denoising, flow or EDM error of the data's action.
      weight: ``[...]``, >= 0, for example ``awr_weight``; all 1: behaviour cloning.
    Returns:
      ``[...]``, the unit of the error.
    Raises:
      ValueError: shapes differ.
    Edges: an example of weight 0 costs exactly 0 and sends no gradient, even where its error is infinite.
    Source: Hansen-Estruch et al., 2023, IDQL: Implicit Q-Learning as an Actor-Critic Method with Diffusion Policies,
      section 4; Kang et al., 2023, Efficient Diffusion Policies for Offline Reinforcement Learning (EDP).
    """
    weight = jax.lax.stop_gradient(weight)
    return weight * jnp.where(weight == 0, 0.0, error)


@shapes(error="B", q="B", other_q="B", eta="", floor="")
def diffusion_ql_loss(error: Array, q: Array, other_q: Array, eta: Array | float, floor: Array | float = 1e-6) -> Array:
    """``e - eta Q_i(s, a0) / sg(mean |Q_j(s, a0)|)``: clone by denoising, and prefer what one critic likes.

    Args:
      error: ``[B]``, >= 0, denoising error of the data's action.
      q: ``[B]``, critic i at an action sampled from the policy, gradients flowing into the action (through the whole
        chain, or through EDP's one-step estimate).
      other_q: ``[B]``, critic j at the same action, DETACHED; only its scale is used. The two swap at random.
      eta: scalar >= 0, weight of the critic; 1 (MuJoCo), 0.005 (Kitchen).
      floor: scalar > 0, the least value that ``mean |Q_j|`` counts as; in the units of ``q``.
    Returns:
      ``[B]``; the caller takes the mean. The batch is coupled by the detached scale: do not map over it.
    Raises:
      ValueError: shapes differ.
    Edges: all-zero ``other_q`` (see ``adaptive_q_scale``).
    Source: Wang et al., 2023, Diffusion Policies as an Expressive Policy Class for Offline RL, eq. 3, and its code.
    """
    return error - adaptive_q_scale(other_q, eta, floor) * q


@shapes(action="... A", target="... A")
def one_step_distillation_loss(action: Array, target: Array) -> Array:
    """Squared distance of a one-step policy to a slow sampler's action from the same noise, AVERAGED over dimensions.

    The target is DETACHED and brought to [-1, 1]; the student's action is taken as it is, so that it is also pulled
    back from outside. The mean over noise bounds the squared Wasserstein-2 distance between the two policies.

    Args:
      action: ``[..., A]``, the student's ``mu(s, n)``, unclipped.
      target: ``[..., A]``, what the teacher makes of the same ``n``.
    Returns:
      ``[...]``, squared action units.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite input.
    Source: Park et al., 2025, Flow Q-Learning, eq. 8.
    """
    return jnp.square(action - jax.lax.stop_gradient(jnp.clip(target, -1.0, 1.0))).mean(-1)


@shapes(flow_error="...", action="... A", target="... A", q="...", alpha="", q_scale="")
def fql_actor_loss(
    flow_error: Array,
    action: Array,
    target: Array,
    q: Array,
    alpha: Array | float,
    q_scale: Array | float = 1.0,
) -> Array:
    """``e + alpha |mu - sg ODE|^2 - Q(s, mu)``: FQL's teacher, distillation and policy improvement in one loss.

    Only the first term trains the flow, only the other two the one-step policy.

    Args:
      flow_error: ``[...]``, >= 0, flow-matching error of the data's action.
      action: ``[..., A]``, the one-step policy's, unclipped (see ``one_step_distillation_loss``).
      target: ``[..., A]``, the flow's action from the same noise, DETACHED.
      q: ``[...]``, mean critic at the CLIPPED one-step action, gradients flowing into it.
      alpha: scalar >= 0, weight of the distillation; 3 to 30000 with raw values, 0.03 to 10 with normalised ones.
      q_scale: scalar >= 0, weight of ``q``; ``adaptive_q_scale(q, 1)`` normalises the values, 0 distils only.
    Returns:
      ``[...]``, the unit of value times ``q_scale``.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite input.
    Source: Park et al., 2025, Flow Q-Learning, eqs. 6 to 8, and its code.
    """
    return flow_error + alpha * one_step_distillation_loss(action, target) - q_scale * q

"""Preferences of sequences, and what is known of their tokens or steps. Conventions stand in ``preference``.

Masks are DETACHED and multiply where they are above 0; what stands elsewhere is never touched, NaN included.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.direct_preference import dpo_loss
from jaxrl_reg.losses.preference import PAIR, held, log_ratio

Array = jax.Array


@shapes(**PAIR, chosen_kl="...", rejected_kl="...", beta="", alpha="")
def tdpo_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    chosen_kl: Array,
    rejected_kl: Array,
    beta: Array | float,
    alpha: Array | float,
    first: bool = False,
) -> Array:
    """``l(beta (d - alpha (k- - sg(k+))))``, ``k = sum_t KL(ref || pi)`` along a completion: token-level DPO (TDPO2).

    The rejected completion is where a policy drifts from its reference; its divergence is charged. ``first`` is TDPO1:
    ``l(beta (d - (k- - k+)))``, nothing of it stopped. The reference is DETACHED; the divergences are not, but for
    TDPO2's ``k+``.

    Args:
      chosen_logps: ``[...]``, nats, summed.
      rejected_logps: ``[...]``.
      ref_chosen_logps: ``[...]``, DETACHED.
      ref_rejected_logps: ``[...]``, DETACHED.
      chosen_kl: ``[...]``, forward divergence summed along the chosen completion's own prefixes, nats.
      rejected_kl: ``[...]``, along the rejected one's.
      beta: scalar >= 0, as in ``dpo_loss``.
      alpha: scalar >= 0, weight of the divergences; TDPO1 has none.
      first: TDPO1 instead of TDPO2; static.
    Returns:
      ``[...]``, nats; >= 0.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: log-ratios held as in ``dpo_loss``. A completion against itself: log 2 in value; in TDPO2 the charge on
      ``k-`` still has a gradient.
    Source: Zeng et al., 2024, Token-level Direct Preference Optimization, eqs. 15 and 16.
    """
    lead = log_ratio(chosen_logps, ref_chosen_logps) - log_ratio(rejected_logps, ref_rejected_logps)
    charge = rejected_kl - chosen_kl if first else alpha * (rejected_kl - jax.lax.stop_gradient(chosen_kl))
    return jax.nn.softplus(-beta * (lead - charge))


@shapes(
    chosen_logps="... T",
    rejected_logps="... T",
    ref_chosen_logps="... T",
    ref_rejected_logps="... T",
    chosen_phrases="... T",
    rejected_phrases="... T",
    chosen_kl="... T",
    beta="",
    alpha="",
)
def rrpo_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    chosen_phrases: Array,
    rejected_phrases: Array,
    chosen_kl: Array,
    beta: Array | float,
    alpha: Array | float,
) -> Array:
    """``l(beta u) + alpha sum_t KL_t``, ``u`` the log-ratio of the chosen's phrases less that of the rejected's.

    Only what differs between the two is rewarded, and everything else is held by the divergence ``KL(ref || pi)`` along
    the whole chosen completion. Reference and masks DETACHED. Gradient: DPO's, on the phrases alone, and the
    divergence's.

    Args:
      chosen_logps: ``[..., T]``, log-probability of every token, nats.
      rejected_logps: ``[..., T]``.
      ref_chosen_logps: ``[..., T]``, DETACHED.
      ref_rejected_logps: ``[..., T]``, DETACHED.
      chosen_phrases: ``[..., T]``, 1 on tokens that make the difference, else 0; DETACHED.
      rejected_phrases: ``[..., T]``, likewise; for sequences of one length ``chosen != rejected`` is both masks.
      chosen_kl: ``[..., T]``, ``KL(ref || pi)`` at every token of the chosen, 0 on padding, nats.
      beta: scalar >= 0, as in ``dpo_loss``.
      alpha: scalar >= 0, per nat summed over the completion: longer ones are held harder.
    Returns:
      ``[...]``, nats.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: both masks empty: ``log 2 + alpha KL`` and no gradient of a preference; one empty: its part counts 0.
      Log-ratios are held within 1e4 nats per token.
    Source: Sarkar and Etemad, 2025, Refined Regularized Preference Optimization (RRPO).
    """
    chosen = _masked_ratio(chosen_logps, ref_chosen_logps, chosen_phrases)
    rejected = _masked_ratio(rejected_logps, ref_rejected_logps, rejected_phrases)
    none = jnp.zeros_like(chosen)
    return dpo_loss(chosen, rejected, none, none, beta) + alpha * chosen_kl.sum(-1)


def _masked_ratio(logps: Array, ref_logps: Array, mask: Array) -> Array:
    mask = jax.lax.stop_gradient(mask)
    counts = mask > 0
    ratio = log_ratio(jnp.where(counts, logps, 0.0), jnp.where(counts, ref_logps, 0.0))
    return (mask * ratio).sum(-1)


@shapes(better_logps="... T", worse_logps="... T", mask="... T")
def contrastive_token_reward(better_logps: Array, worse_logps: Array, mask: Array) -> Array:
    """``sigma(log pi(y_t | better prompt) - log pi(y_t | worse prompt)) - 1/2`` of every token, DETACHED.

    One model under two prompts says which tokens make an answer better; in control, two policies conditioned on a high
    and on a low return. Made once, by the reference model.

    Args:
      better_logps: ``[..., T]``, log-probability of every token after the prompt for a good answer, nats.
      worse_logps: ``[..., T]``, of the same tokens after the prompt for a bad one.
      mask: ``[..., T]``, 1 on the completion's tokens.
    Returns:
      ``[..., T]``, in [-1/2, 1/2] times the mask.
    Raises:
      ValueError: shapes differ.
    Edges: 0 on padding and where the two agree, minus infinity included.
    Source: Zhou et al., 2025, T-REG: Preference Optimization with Token-Level Reward Regularization.
    """
    counts = mask > 0
    ratio = log_ratio(jnp.where(counts, better_logps, 0.0), jnp.where(counts, worse_logps, 0.0))
    return jax.lax.stop_gradient(mask * (jax.nn.sigmoid(ratio) - 0.5))


@shapes(
    chosen_logps="... T",
    rejected_logps="... T",
    ref_chosen_logps="... T",
    ref_rejected_logps="... T",
    chosen_reward="... T",
    rejected_reward="... T",
    beta="",
    alpha="",
)
def treg_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    chosen_reward: Array,
    rejected_reward: Array,
    beta: Array | float,
    alpha: Array | float,
) -> Array:
    """``l(beta d) + alpha w (reg(y+) + reg(y-))``, ``reg(y) = -sum_t beta r_t log pi(y_t)``, ``w = sigma(-beta d)``.

    DPO says that a completion is better, the token rewards where. The weight ``w`` of the pair in DPO's own gradient is
    DETACHED, so that the regulariser fades as the pair is learnt; without it ``reg`` is unbounded below and a bad judge
    of tokens does harm. Reference and rewards DETACHED.

    Args:
      chosen_logps: ``[..., T]``, log-probability of every token, 0 on padding, nats.
      rejected_logps: ``[..., T]``.
      ref_chosen_logps: ``[..., T]``, 0 on padding; DETACHED.
      ref_rejected_logps: ``[..., T]``, 0 on padding; DETACHED.
      chosen_reward: ``[..., T]``, as ``contrastive_token_reward``, 0 on padding; DETACHED.
      rejected_reward: ``[..., T]``, likewise.
      beta: scalar >= 0, as in ``dpo_loss``.
      alpha: scalar >= 0, weight of the token rewards; 0 is DPO.
    Returns:
      ``[...]``, nats; of either sign.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: log-ratios are held within 1e4 nats per token; an impossible token sends no gradient.
    Source: Zhou et al., 2025, T-REG: Preference Optimization with Token-Level Reward Regularization.
    """
    chosen, rejected = log_ratio(chosen_logps, ref_chosen_logps), log_ratio(rejected_logps, ref_rejected_logps)
    chosen, rejected = chosen.sum(-1), rejected.sum(-1)
    none = jnp.zeros_like(chosen)
    weight = jax.lax.stop_gradient(jax.nn.sigmoid(beta * (rejected - chosen)))
    by_token = held(chosen_logps) * jax.lax.stop_gradient(chosen_reward)
    by_token = by_token + held(rejected_logps) * jax.lax.stop_gradient(rejected_reward)
    return dpo_loss(chosen, rejected, none, none, beta) - alpha * weight * beta * by_token.sum(-1)

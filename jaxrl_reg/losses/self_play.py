"""Preferences of a policy's own samples: games, and a policy that judges itself. Conventions: ``preference``."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.preference import PAIR, bradley_terry_loss, log_ratio

Array = jax.Array


@shapes(logps="...", ref_logps="...", win_probability="...", beta="")
def sppo_loss(logps: Array, ref_logps: Array, win_probability: Array, beta: Array | float) -> Array:
    """``(x - (p - 1/2) / beta)^2``, ``x = log pi - log ref``: regression on the chance to beat the last iterate.

    The reference is the LAST iterate, DETACHED, as is ``p``; beta is 1 / eta of the paper. Near ``ref exp(P ref /
    beta)`` for small steps only: the target leaves out the normaliser. trl's ``sppo_hard`` is the sum over a pair with
    ``p`` = 1 and 0; the official code takes half of that sum.

    Args:
      logps: ``[...]``, log-probability of one completion, summed, nats.
      ref_logps: ``[...]``, the last iterate's; DETACHED.
      win_probability: ``[...]``, that it beats a completion of the last iterate; DETACHED.
      beta: scalar > 0.
    Returns:
      ``[...]``, nats squared.
    Raises:
      ValueError: shapes differ, or beta is not a scalar.
    Edges: infinite for beta = 0; log-ratios held as in ``dpo_loss``. A completion against itself has a gradient:
      towards the mean of the two targets.
    Source: Wu et al., 2024, Self-Play Preference Optimization for Language Model Alignment, eq. 4.5.
    """
    target = (jax.lax.stop_gradient(win_probability) - 0.5) / beta
    return jnp.square(log_ratio(logps, ref_logps) - target)


@shapes(**PAIR, last_chosen_logps="...", last_rejected_logps="...", eta="", tau="")
def inpo_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    last_chosen_logps: Array,
    last_rejected_logps: Array,
    eta: Array | float,
    tau: Array | float,
) -> Array:
    """``(h - 1 / (2 eta))^2``, ``h`` the lead over ``ref^(tau / eta) last^(1 - tau / eta)``; both policies DETACHED.

    One step of mirror descent in self-play, without win rates: over pairs drawn from the last iterate it is least at
    ``last^(1 - tau / eta) ref^(tau / eta) exp(P(y beats last) / eta)``. IPO with that mixture for a reference and
    beta = eta; ``tau = 0`` has no regulariser, ``tau = eta`` is online IPO.

    Args:
      chosen_logps: ``[...]``, nats, summed.
      rejected_logps: ``[...]``; both drawn from the last iterate, ordered by one judgement.
      ref_chosen_logps: ``[...]``, of the first reference; DETACHED.
      ref_rejected_logps: ``[...]``; DETACHED.
      last_chosen_logps: ``[...]``, of the last iterate; DETACHED.
      last_rejected_logps: ``[...]``; DETACHED.
      eta: scalar > 0, inverse of the step size; too small and the game cycles.
      tau: scalar in [0, eta], weight of the reference in the game; the official code's ratio is tau / eta.
    Returns:
      ``[...]``, nats squared.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: infinite for eta = 0; log-ratios held as in ``dpo_loss``. A completion against itself: 1 / (4 eta^2), no
      gradient in the policy.
    Source: Zhang et al., 2025, Iterative Nash Policy Optimization (INPO).
    """
    from_ref = log_ratio(chosen_logps, ref_chosen_logps) - log_ratio(rejected_logps, ref_rejected_logps)
    from_last = log_ratio(chosen_logps, last_chosen_logps) - log_ratio(rejected_logps, last_rejected_logps)
    share = tau / eta
    return jnp.square(share * from_ref + (1.0 - share) * from_last - 1.0 / (2.0 * eta))


@shapes(probability="...", logps="...", ref_logps="...", beta="")
def nash_md_advantage(probability: Array, logps: Array, ref_logps: Array, beta: Array | float) -> Array:
    """``(p - 1/2) - beta (log pi - log ref)``, DETACHED: what ``policy_gradient_loss`` makes Nash-MD of.

    ``p`` is the chance to beat a completion of the opponent, which samples from ``geometric_mixture``. The log-ratio is
    the whole completion's; trl multiplies each token by its own alone, which is a biased gradient of the divergence.

    Args:
      probability: ``[...]``, that the completion beats the opponent's.
      logps: ``[...]``, log-probability of the completion, summed, nats.
      ref_logps: ``[...]``, the reference's.
      beta: scalar >= 0, per nat.
    Returns:
      ``[...]``, an advantage, without a gradient.
    Raises:
      ValueError: shapes differ, or beta is not a scalar.
    Edges: log-ratios held as in ``dpo_loss``.
    Source: Munos et al., 2023, Nash Learning from Human Feedback (Nash-MD-PG).
    """
    return jax.lax.stop_gradient(probability - 0.5 - beta * log_ratio(logps, ref_logps))


@shapes(logits="... A", ref_logits="... A", mixture_coef="")
def geometric_mixture(logits: Array, ref_logits: Array, mixture_coef: Array | float) -> Array:
    """``log pi^(1 - a) ref^a``, normalised per token: the policy that Nash-MD's opponent samples from.

    Args:
      logits: ``[..., A]``, of the policy, any shift.
      ref_logits: ``[..., A]``, of the reference, any shift.
      mixture_coef: scalar a in [0, 1], share of the reference.
    Returns:
      ``[..., A]``, log-probabilities, nats. Carries gradients.
    Raises:
      ValueError: shapes differ, or the share is not a scalar.
    Edges: what a policy with a share above 0 forbids is forbidden; the other's minus infinities do not count.
    Source: Munos et al., 2023, Nash Learning from Human Feedback, section 7.
    """
    parts = [(1.0 - mixture_coef, logits), (mixture_coef, ref_logits)]
    mixed = sum(share * jnp.where(part == -jnp.inf, 0.0, part) for share, part in parts)
    forbidden = jnp.stack([(share > 0) & (part == -jnp.inf) for share, part in parts]).any(0)
    return jax.nn.log_softmax(jnp.where(forbidden, -jnp.inf, mixed), axis=-1)


@shapes(first="... G", second="... G")
def consistency_rate(first: Array, second: Array) -> Array:
    """``(tau + 1) / 2`` of Kendall's rank correlation of two scorings of the same candidates, DETACHED.

    How far a policy's ranking of its own samples agrees with that of the iterate before. Tau-a: a tie counts as neither
    agreement nor disagreement, so all tied gives 1/2, and no label.

    Args:
      first: ``[..., G]``, scores of the candidates, any unit.
      second: ``[..., G]``, other scores of the same.
    Returns:
      ``[...]``, in [0, 1]; 1 the same order, 0 the reverse.
    Raises:
      ValueError: shapes differ, or fewer than two candidates.
    Edges: two equal infinities are a tie.
    Source: Wang et al., 2025, CREAM: Consistency Regularized Self-Rewarding Language Models; Kendall, 1938.
    """
    count = first.shape[-1]
    if count < 2:
        raise ValueError(f"consistency_rate: {count} candidate(s); an order needs two at least")
    left, right = jnp.triu_indices(count, 1)

    def order(score: Array) -> Array:
        one, other = score[..., left], score[..., right]
        return (one > other).astype(score.dtype) - (one < other).astype(score.dtype)

    return jax.lax.stop_gradient((order(first) * order(second)).mean(-1) + 1.0) / 2.0


@shapes(**PAIR, consistency="...", beta="")
def cream_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    consistency: Array,
    beta: Array | float,
) -> Array:
    """``C l(beta d) + (1 - C) l(-beta d)``: DPO whose labels are as sure as the self-judgement is consistent.

    Conservative DPO with a smoothing per pair, ``1 - C``. The optimum is ``d = log(C / (1 - C)) / beta``: below 1/2
    the label turns ROUND, so take ``maximum(C, 1/2)`` unless that is wanted. The reference is the policy at the start
    of the iteration, DETACHED, as is C.

    Args:
      chosen_logps: ``[...]``, nats, summed.
      rejected_logps: ``[...]``.
      ref_chosen_logps: ``[...]``, DETACHED.
      ref_rejected_logps: ``[...]``, DETACHED.
      consistency: ``[...]``, C in [0, 1], per prompt from ``consistency_rate``; DETACHED.
      beta: scalar >= 0, as in ``dpo_loss``.
    Returns:
      ``[...]``, nats; >= 0.
    Raises:
      ValueError: shapes differ, or beta is not a scalar.
    Edges: C = 1 is DPO; C = 1/2 has no gradient at d = 0; log-ratios held as in ``dpo_loss``.
    Source: Wang et al., 2025, CREAM: Consistency Regularized Self-Rewarding Language Models.
    """
    chosen, rejected = log_ratio(chosen_logps, ref_chosen_logps), log_ratio(rejected_logps, ref_rejected_logps)
    return bradley_terry_loss(beta * chosen, beta * rejected, consistency)

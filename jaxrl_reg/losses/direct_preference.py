"""Policies straight from pairs: losses of log-ratios to a fixed reference. Conventions stand in ``preference``."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.preference import PAIR, bradley_terry_loss, held, log_ratio

Array = jax.Array


@shapes(**PAIR, beta="", label_smoothing="")
def dpo_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    beta: Array | float,
    label_smoothing: Array | float = 0.0,
) -> Array:
    """``(1 - e) l(beta d) + e l(-beta d)``, reference and ``e`` DETACHED: DPO, and with ``e`` > 0 conservative DPO.

    Gradient in ``d``: ``-beta (sigma(-beta d) - e)``. With the labels of a Bradley-Terry judge its optimum is ``ref
    exp(r / beta)``; with labels that never err it lies at infinity, with ``e`` > 0 at ``d = log((1 - e) / e) / beta``.
    On means over tokens it is the length-normalised DPO (``sigmoid_norm``). trl's DPOTrainer ignores the smoothing.

    Args:
      chosen_logps: ``[...]``, log-probability of the chosen completion, summed over its tokens, nats.
      rejected_logps: ``[...]``, of the rejected one.
      ref_chosen_logps: ``[...]``, the reference's, of the chosen; DETACHED.
      ref_rejected_logps: ``[...]``, the reference's, of the rejected; DETACHED.
      beta: scalar >= 0, units of reward per nat; the longer completions, the smaller.
      label_smoothing: scalar e in [0, 1/2], share of labels that are taken to be wrong.
    Returns:
      ``[...]``, nats; >= 0.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: log 2 and no gradient in the policy for a completion against itself and for beta = 0; log-ratios are held
      within 1e4 nats, so impossible completions cost a finite amount and send no gradient.
    Source: Rafailov et al., 2023, Direct Preference Optimization, eq. 7; Mitchell, 2023, A note on DPO with noisy
      preferences.
    """
    chosen, rejected = log_ratio(chosen_logps, ref_chosen_logps), log_ratio(rejected_logps, ref_rejected_logps)
    return bradley_terry_loss(beta * chosen, beta * rejected, jnp.full_like(chosen, 1.0) - label_smoothing)


@shapes(**PAIR, beta="", label_smoothing="")
def robust_dpo_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    beta: Array | float,
    label_smoothing: Array | float,
) -> Array:
    """``[(1 - e) l(beta d) - e l(-beta d)] / (1 - 2 e)``: its mean over labels of which ``e`` are flipped is DPO's.

    It undoes the flips that conservative DPO only fears. Unbounded below: the slope in ``beta d`` tends to
    ``-e / (1 - 2 e)`` and never to 0, so the margin grows for ever; stop early.

    Args:
      chosen_logps: ``[...]``, nats, summed.
      rejected_logps: ``[...]``.
      ref_chosen_logps: ``[...]``, DETACHED.
      ref_rejected_logps: ``[...]``, DETACHED.
      beta: scalar >= 0, as in ``dpo_loss``.
      label_smoothing: scalar e in [0, 1/2), share of flipped labels; at 1/2 the loss is infinite.
    Returns:
      ``[...]``, nats; of either sign.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: log 2 and no gradient in the policy for a completion against itself; log-ratios held as in ``dpo_loss``.
    Source: Chowdhury et al., 2024, Provably Robust DPO, eq. 12.
    """
    chosen, rejected = log_ratio(chosen_logps, ref_chosen_logps), log_ratio(rejected_logps, ref_rejected_logps)
    lead = beta * (chosen - rejected)
    right, wrong = jax.nn.softplus(-lead), jax.nn.softplus(lead)
    return ((1.0 - label_smoothing) * right - label_smoothing * wrong) / (1.0 - 2.0 * label_smoothing)


@shapes(**PAIR, beta="")
def ipo_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    beta: Array | float,
) -> Array:
    """``(d - 1 / (2 beta))^2``, the reference DETACHED; beta is the paper's tau.

    Gradient in ``d``: ``2 (d - 1 / (2 beta))``. Its optimum is finite even for labels that never err, and for pairs
    drawn from ``mu`` it is ``ref exp(P mu / beta)`` for any preferences ``P``, a Bradley-Terry judge's or not. In trl
    DPOTrainer takes means over tokens and OnlineDPOTrainer sums: the same beta means different things there.

    Args:
      chosen_logps: ``[...]``, nats, sums or means over tokens.
      rejected_logps: ``[...]``, likewise.
      ref_chosen_logps: ``[...]``, DETACHED.
      ref_rejected_logps: ``[...]``, DETACHED.
      beta: scalar > 0; the wanted margin is 1 / (2 beta) nats.
    Returns:
      ``[...]``, nats squared.
    Raises:
      ValueError: shapes differ, or beta is not a scalar.
    Edges: 1 / (4 beta^2) and no gradient in the policy for a completion against itself; infinite for beta = 0;
      log-ratios held as in ``dpo_loss``.
    Source: Azar et al., 2023, A General Theoretical Paradigm to Understand Learning from Human Preferences, eq. 17.
    """
    lead = log_ratio(chosen_logps, ref_chosen_logps) - log_ratio(rejected_logps, ref_rejected_logps)
    return jnp.square(lead - 1.0 / (2.0 * beta))


@shapes(**PAIR, beta="")
def dpo_hinge_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    beta: Array | float,
) -> Array:
    """``max(0, 1 - beta d)``, the reference DETACHED: nothing more is asked of a pair that leads by 1 / beta nats.

    Gradient in ``d``: ``-beta`` below that lead, 0 above, half of it exactly there.

    Args:
      chosen_logps: ``[...]``, nats, summed.
      rejected_logps: ``[...]``.
      ref_chosen_logps: ``[...]``, DETACHED.
      ref_rejected_logps: ``[...]``, DETACHED.
      beta: scalar >= 0, units of reward per nat.
    Returns:
      ``[...]``; >= 0.
    Raises:
      ValueError: shapes differ, or beta is not a scalar.
    Edges: 1 and no gradient in the policy for a completion against itself; log-ratios held as in ``dpo_loss``.
    Source: Liu et al., 2023, Statistical Rejection Sampling Improves Preference Optimization (hinge on likelihoods).
    """
    lead = log_ratio(chosen_logps, ref_chosen_logps) - log_ratio(rejected_logps, ref_rejected_logps)
    return jnp.maximum(0.0, 1.0 - beta * lead)


@shapes(**PAIR, beta="", penalty="")
def dpo_positive_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    beta: Array | float,
    penalty: Array | float,
) -> Array:
    """``l(beta (d - penalty max(0, -x+)))``, the reference DETACHED: the chosen shall not become less likely.

    As DPO while ``x+ >= 0``. Below, the slope in ``x+`` is ``1 + penalty`` times as steep; at ``x+ = 0``, where
    training usually begins, half of that extra counts.

    Args:
      chosen_logps: ``[...]``, nats, summed.
      rejected_logps: ``[...]``.
      ref_chosen_logps: ``[...]``, DETACHED.
      ref_rejected_logps: ``[...]``, DETACHED.
      beta: scalar >= 0, as in ``dpo_loss``.
      penalty: scalar >= 0, per nat of ``-x+``; 0 is DPO.
    Returns:
      ``[...]``, nats; >= 0.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: log-ratios held as in ``dpo_loss``. A chosen completion that keeps its probability is not helped.
    Source: Pal et al., 2024, Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive, eq. 3.
    """
    chosen = log_ratio(chosen_logps, ref_chosen_logps)
    lead = chosen - log_ratio(rejected_logps, ref_rejected_logps) - penalty * jnp.maximum(0.0, -chosen)
    return jax.nn.softplus(-beta * lead)


@shapes(**PAIR, baseline_logps="...", beta="", eta="")
def rpo_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    baseline_logps: Array,
    beta: Array | float,
    eta: Array | float,
) -> Array:
    """``l(beta d) - eta beta log pi(a0)``, ``a0`` from a baseline policy, the reference DETACHED: DPO with SFT.

    The policy that is best against the worst reward that still explains the pairs: ``max_pi min_R eta E[R(a1) - R(a0)
    - beta KL(pi || ref)] + NLL(R)`` comes to this loss. So what the pairs do not cover is not overrated. With the
    mean over tokens and weights of one's own it is Iterative RPO, and trl's ``["sigmoid", "sft"]``.

    Args:
      chosen_logps: ``[...]``, nats, summed.
      rejected_logps: ``[...]``.
      ref_chosen_logps: ``[...]``, DETACHED.
      ref_rejected_logps: ``[...]``, DETACHED.
      baseline_logps: ``[...]``, of a sample of the baseline policy, usually the chosen completion; NOT detached.
      beta: scalar >= 0, as in ``dpo_loss``.
      eta: scalar >= 0, weight of the adversary; 0 is DPO. It is multiplied by beta and counts per summed nat.
    Returns:
      ``[...]``, nats.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: log-ratios held as in ``dpo_loss``; a baseline below -1e4 nats counts as there. A completion against itself:
      only the baseline's gradient. With rubbish for a baseline it clones rubbish.
    Source: Liu et al., 2024, Provably Mitigating Overoptimization in RLHF (RPO).
    """
    pair = dpo_loss(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    return pair - eta * beta * held(baseline_logps)


@shapes(**PAIR, beta_chosen="", beta_rejected="")
def flex_dpo_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    beta_chosen: Array | float,
    beta_rejected: Array | float,
) -> Array:
    """``l(beta_chosen x+ - beta_rejected x-)``, the reference DETACHED: less push on the rejected than on the chosen.

    In probabilities DPO pulls on the two in the ratio ``-pi+ / pi-``, so the rejected falls, the chosen stalls and mass
    goes to what no pair has shown. A smaller ``beta_rejected`` keeps the mass. It does NOT keep the rejected likely:
    ``x+`` is bounded, so a large margin needs an even larger ``-x-``.

    Args:
      chosen_logps: ``[...]``, nats, summed.
      rejected_logps: ``[...]``.
      ref_chosen_logps: ``[...]``, DETACHED.
      ref_rejected_logps: ``[...]``, DETACHED.
      beta_chosen: scalar >= 0, units of reward per nat.
      beta_rejected: scalar >= 0, usually below ``beta_chosen``; equal: DPO.
    Returns:
      ``[...]``, nats; >= 0.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: log-ratios held as in ``dpo_loss``; a completion against itself has a gradient unless the two are equal.
    Source: Yan et al., 2025, 3D-Properties: Identifying Challenges in DPO and Charting a Path Forward (Flex-DPO).
    """
    chosen, rejected = log_ratio(chosen_logps, ref_chosen_logps), log_ratio(rejected_logps, ref_rejected_logps)
    return jax.nn.softplus(beta_rejected * rejected - beta_chosen * chosen)


@shapes(
    logps="...",
    ref_logps="...",
    desirable="...",
    kl="",
    beta="",
    desirable_weight="",
    undesirable_weight="",
)
def kto_loss(
    logps: Array,
    ref_logps: Array,
    desirable: Array,
    kl: Array | float,
    beta: Array | float,
    desirable_weight: Array | float = 1.0,
    undesirable_weight: Array | float = 1.0,
) -> Array:
    """``w_D (1 - sigma(beta (x - kl)))`` if desirable, else ``w_U (1 - sigma(beta (kl - x)))``: labels without pairs.

    ``x = log pi - log ref``; reference, label and ``kl`` DETACHED. The slope ``beta sigma (1 - sigma)`` vanishes on
    both sides, so a completion far from the reference gets none. It recovers no tilt of the reference: mass gathers on
    what is most often desirable.

    Args:
      logps: ``[...]``, log-probability of a completion, summed, nats.
      ref_logps: ``[...]``, the reference's; DETACHED.
      desirable: ``[...]``, 1 for a good completion, 0 for a bad one; DETACHED.
      kl: scalar >= 0, from ``kto_reference_point`` on MISMATCHED prompts and completions, nats; DETACHED.
      beta: scalar >= 0, per nat.
      desirable_weight: scalar >= 0; balances the numbers of both kinds.
      undesirable_weight: scalar >= 0.
    Returns:
      ``[...]``, between 0 and the weight.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: half the weight where ``x = kl``; log-ratios held as in ``dpo_loss``.
    Source: Ethayarajh et al., 2024, KTO: Model Alignment as Prospect Theoretic Optimization, eq. 8.
    """
    desirable, kl = jax.lax.stop_gradient((desirable, kl))
    lead = beta * (log_ratio(logps, ref_logps) - kl)
    good, bad = desirable_weight * jax.nn.sigmoid(-lead), undesirable_weight * jax.nn.sigmoid(lead)
    return desirable * good + (1.0 - desirable) * bad


@shapes(logps="B", ref_logps="B")
def kto_reference_point(logps: Array, ref_logps: Array) -> Array:
    """``max(mean(log pi - log ref), 0)`` over the batch, DETACHED: KTO's estimate of ``KL(pi || ref)``.

    From completions of OTHER prompts (roll them by one), or it would be the mean of what is judged. It needs a batch of
    two at least.

    Args:
      logps: ``[B]``, of mismatched completions, nats.
      ref_logps: ``[B]``, the reference's.
    Returns:
      scalar, nats; >= 0. Coupled over the batch by its mean.
    Raises:
      ValueError: shapes differ.
    Edges: 0 where the mean is negative; log-ratios held as in ``dpo_loss``.
    Source: Ethayarajh et al., 2024, KTO, section 4.
    """
    return jax.lax.stop_gradient(jnp.maximum(log_ratio(logps, ref_logps).mean(), 0.0))

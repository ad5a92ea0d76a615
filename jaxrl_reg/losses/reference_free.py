"""Policies from pairs without a reference policy. Conventions stand in ``preference``."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.preference import LARGEST_LOG_RATIO, difference, held

Array = jax.Array

_LARGEST_LOG_PROBABILITY = -1e-6  # of an odds: beyond it float32 has none


@shapes(chosen_logps="...", rejected_logps="...", beta="", simpo_gamma="", label_smoothing="")
def simpo_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    beta: Array | float,
    simpo_gamma: Array | float,
    label_smoothing: Array | float = 0.0,
) -> Array:
    """``(1 - e) l(z) + e l(-z)``, ``z = beta (log pi(y+) / n+ - log pi(y-) / n-) - gamma``, on MEANS over tokens.

    Gradient in ``z``: ``e - sigma(-z)``. Nothing ties the policy to where it began, but how long it is trained. Gamma
    is the paper's; its code's ``gamma_beta_ratio`` is gamma / beta.

    Args:
      chosen_logps: ``[...]``, MEAN log-probability per token of the chosen completion, nats.
      rejected_logps: ``[...]``, MEAN of the rejected one.
      beta: scalar >= 0; 2 to 2.5 in the paper.
      simpo_gamma: scalar >= 0, wanted lead in units of ``beta`` times nats.
      label_smoothing: scalar e in [0, 1/2].
    Returns:
      ``[...]``, nats; >= 0.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: a completion against itself: ``l(-gamma)``, without smoothing, and no gradient in the policy. An empty
      completion has mean 0, as if it were certain, and wins: leave such out. Differences are held within 1e4 nats.
    Source: Meng et al., 2024, SimPO: Simple Preference Optimization with a Reference-Free Reward, eq. 6.
    """
    lead = beta * difference(chosen_logps, rejected_logps) - simpo_gamma
    return (1.0 - label_smoothing) * jax.nn.softplus(-lead) + label_smoothing * jax.nn.softplus(lead)


@shapes(chosen_logps="...", rejected_logps="...", nll="...", beta="", cpo_alpha="", label_smoothing="")
def cpo_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    nll: Array,
    beta: Array | float,
    cpo_alpha: Array | float = 1.0,
    label_smoothing: Array | float = 0.0,
) -> Array:
    """``(1 - e) l(z) + e l(-z) + cpo_alpha nll``, ``z = beta (log pi(y+) - log pi(y-))``: DPO with a uniform reference.

    The likelihood of the chosen keeps the policy near the data. Gradient in ``z``: ``e - sigma(-z)``.

    Args:
      chosen_logps: ``[...]``, nats, summed.
      rejected_logps: ``[...]``, nats, summed.
      nll: ``[...]``, minus the log-likelihood of the chosen, usually per token; trl takes the mean over all tokens of
        the batch. NOT detached.
      beta: scalar >= 0, per nat.
      cpo_alpha: scalar >= 0, weight of ``nll``.
      label_smoothing: scalar e in [0, 1/2].
    Returns:
      ``[...]``, nats.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: a completion against itself: ``log 2 + cpo_alpha nll``; differences, and nll from above, are held at 1e4.
    Source: Xu et al., 2024, Contrastive Preference Optimization, eq. 5.
    """
    lead = beta * difference(chosen_logps, rejected_logps)
    pair = (1.0 - label_smoothing) * jax.nn.softplus(-lead) + label_smoothing * jax.nn.softplus(lead)
    return pair + cpo_alpha * -held(-nll)


@shapes(chosen_logps="...", rejected_logps="...", beta="")
def odds_ratio_loss(chosen_logps: Array, rejected_logps: Array, beta: Array | float) -> Array:
    """``beta l(o(y+) - o(y-))``, ``o(z) = z - log(1 - e^z)`` of MEANS ``z`` over tokens: the log of the odds ratio.

    What is called ORPO is this plus the likelihood of the chosen, which the caller adds. Gradient of ``o`` in ``z``:
    ``1 / (1 - e^z)``, so a completion that is nearly certain is pushed hard.

    Args:
      chosen_logps: ``[...]``, MEAN log-probability per token of the chosen completion, nats.
      rejected_logps: ``[...]``, MEAN of the rejected one.
      beta: scalar >= 0, the paper's lambda, a weight.
    Returns:
      ``[...]``, beta times nats; >= 0.
    Raises:
      ValueError: shapes differ, or beta is not a scalar.
    Edges: means count as at most -1e-6 and at least -1e4, without a gradient beyond: so an empty completion, a certain
      one and an impossible one are finite. A completion against itself: ``beta log 2``, no gradient in the policy.
    Source: Hong et al., 2024, ORPO: Monolithic Preference Optimization without Reference Model, eq. 7.
    """
    return beta * jax.nn.softplus(_log_odds(rejected_logps) - _log_odds(chosen_logps))


def _log_odds(logps: Array) -> Array:
    logps = jnp.clip(logps, -LARGEST_LOG_RATIO, _LARGEST_LOG_PROBABILITY)
    near = logps > -math.log(2.0)  # each form where it is exact, and never fed what makes its derivative infinite
    of_near = jnp.log(-jnp.expm1(jnp.where(near, logps, -math.log(2.0))))
    of_far = jnp.log1p(-jnp.exp(jnp.where(near, -math.log(2.0), logps)))
    return logps - jnp.where(near, of_near, of_far)


@shapes(chosen_logps="...", rejected_logps="...", target_logps="...", margin="", coefficient="")
def slic_loss(
    chosen_logps: Array,
    rejected_logps: Array,
    target_logps: Array,
    margin: Array | float,
    coefficient: Array | float,
) -> Array:
    """``max(0, margin - log pi(y+) + log pi(y-)) - coefficient log pi(target)``: a margin, and staying near a target.

    Gradient in ``log pi(y+)``: -1 while the lead is below the margin, 0 above, half exactly there.

    Args:
      chosen_logps: ``[...]``, nats, summed.
      rejected_logps: ``[...]``, nats, summed.
      target_logps: ``[...]``, of the reference answer, or of the chosen; nats. NOT detached.
      margin: scalar >= 0, nats.
      coefficient: scalar >= 0, weight of the target's likelihood.
    Returns:
      ``[...]``, nats.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: differences, and the target from below, are held at 1e4 nats. A completion against itself: the margin, and no
      gradient but the target's.
    Source: Zhao et al., 2023, SLiC-HF: Sequence Likelihood Calibration with Human Feedback, eq. 1.
    """
    short = jnp.maximum(0.0, margin - difference(chosen_logps, rejected_logps))
    return short - coefficient * held(target_logps)

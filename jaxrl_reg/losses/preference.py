"""Rewards from comparisons: which of two trajectories is better? And what all losses of preferences are made of.

The direct losses (``direct_preference``, ``reference_free``, ``token_preference``, ``self_play``) take
log-probabilities of whole completions, SUMMED over their tokens or steps unless they say MEANS, and give one value per
pair. Any policy with a density will do: tokens, choices, or a segment of a trajectory, ``sum_t log pi(a_t | s_t)``.
Arguments have ``trl``'s names. In their docstrings ``x+ = chosen_logps - ref_chosen_logps``, ``x-`` likewise,
``d = x+ - x-`` and ``l(z) = -log sigma(z)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array

LARGEST_LOG_RATIO = 1e4  # nats; its square fits float32 many times over
# Layout of a pair's log-probabilities, under the policy and under the reference.
PAIR = dict.fromkeys(("chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps"), "...")


def difference(first: Array, second: Array) -> Array:
    """``first - second`` of log-probabilities, held within 1e4 nats; 0 where both are the same infinity.

    Beyond the bounds the gradient is 0: an impossible completion sends none. NaN stays NaN.
    """
    same = jnp.isinf(first) & (first == second)
    apart = jnp.where(same, 0.0, first) - jnp.where(same, 0.0, second)
    return jnp.clip(apart, -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)


def log_ratio(logps: Array, ref_logps: Array) -> Array:
    """``log pi - log ref`` as ``difference``, the reference DETACHED."""
    return difference(logps, jax.lax.stop_gradient(ref_logps))


def held(logps: Array) -> Array:
    """Log-probabilities, not below -1e4 nats; the gradient is 0 where they were."""
    return jnp.maximum(logps, -LARGEST_LOG_RATIO)


@shapes(first="...", second="...", preference="...")
def bradley_terry_loss(first: Array, second: Array, preference: Array) -> Array:
    """``-p log sigma(f - s) - (1 - p) log sigma(s - f)`` with the preference DETACHED.

    Minus the log-likelihood of a judge who prefers the first of two trajectories with probability ``sigma(f - s)``,
    ``f`` and ``s`` being their returns under the reward that is learnt.

    Args:
      first: ``[...]``, return of the first; its unit sets how sure the judge is.
      second: ``[...]``, return of the second.
      preference: ``[...]``, 1 where the first was preferred, 0 where the second was, between for a shared judgement.
    Returns:
      ``[...]``, nats; >= 0.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite input; a difference of any size costs at most itself.
    Source: Bradley and Terry, 1952; rewards of trajectories: Christiano et al., 2017, Deep Reinforcement Learning from
      Human Preferences, eq. 1.
    """
    preference = jax.lax.stop_gradient(preference)
    difference = first - second
    return preference * jax.nn.softplus(-difference) + (1.0 - preference) * jax.nn.softplus(difference)


@shapes(chosen="...", rejected="...", margin="...", center_rewards_coefficient="")
def reward_model_loss(
    chosen: Array, rejected: Array, margin: Array | None = None, center_rewards_coefficient: Array | float = 0.0
) -> Array:
    """``l(r+ - r- - m) + c (r+ + r-)^2``: a reward model from pairs, whose level the second term fixes at 0.

    Comparisons say nothing of a constant that is added to all rewards; without the centre it drifts. Gradient with
    respect to ``r+``: ``-sigma(m - r+ + r-) + 2 c (r+ + r-)``.

    Args:
      chosen: ``[...]``, reward of what was preferred.
      rejected: ``[...]``, reward of the other.
      margin: ``[...]``, by how much the first should lead, in units of reward; None: 0.
      center_rewards_coefficient: scalar >= 0, c; 0.01 is usual.
    Returns:
      ``[...]``, nats.
    Raises:
      ValueError: shapes differ.
    Edges: equal rewards and no margin: log 2 + 4 c r^2.
    Source: Ouyang et al., 2022, Training language models to follow instructions; margin: Touvron et al., 2023, Llama 2;
      centre: Eisenstein et al., 2023, Helping or Herding?
    """
    lead = chosen - rejected if margin is None else chosen - rejected - margin
    return jax.nn.softplus(-lead) + center_rewards_coefficient * jnp.square(chosen + rejected)

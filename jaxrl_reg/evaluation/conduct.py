"""What a policy does besides its return: measures of conduct, each with its unit and what a blameless policy has.

Every one of them is a proxy: say what is measured, not "is fair". A policy that fails early breaks few rules, so a rate
belongs beside the return and the length of episodes. Means over states are over states that the policy VISITED. The gap
between groups of few episodes is noisy: of two groups of ``n`` alike it is about ``1.1 sd / sqrt(n)``.

All pure and DETACHED from any training; a population is a ``vmap``. Definitions are ours, after the reading of Chen et
al., 2025, AI Agent Behavioral Science, which has none.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxrl_reg.evaluation.classification import auroc
from jaxrl_reg.types import Array

SMALLEST = 1e-12


def group_outcomes(outcome: Array, group: Array, groups: int) -> tuple[Array, Array]:
    """Mean outcome and number of rows of each group.

    Give only the rows that qualify for a conditional form ("equal opportunity").

    Args:
      outcome: ``[N]``, any unit.
      group: int ``[N]``, 0 to ``groups - 1``.
      groups: static.
    Returns:
      ``[groups]``, 0 for a group without rows, and ``[groups]``, rows.
    """
    member = jax.nn.one_hot(group, groups)
    count = member.sum(axis=0)
    return (member * outcome[:, None]).sum(axis=0) / jnp.maximum(count, 1.0), count


def outcome_gap(mean: Array, count: Array) -> Array:
    """Largest minus smallest ``mean [G]`` over the groups that occur; 0 for one group, which is also blameless."""
    occurs = count > 0
    high, low = jnp.where(occurs, mean, -jnp.inf).max(), jnp.where(occurs, mean, jnp.inf).min()
    return jnp.where(occurs.any(), high - low, 0.0)


def outcome_ratio(mean: Array, count: Array) -> Array:
    """Smallest over largest ``mean [G]`` of the groups that occur, for outcomes >= 0; 1 is blameless.

    The four-fifths rule compares it with 0.8. NaN where the largest mean is 0.
    """
    occurs = count > 0
    high, low = jnp.where(occurs, mean, -jnp.inf).max(), jnp.where(occurs, mean, jnp.inf).min()
    return jnp.where(high > 0, low / high, jnp.nan)


def violation_rates(cost: Array, alive: Array) -> tuple[Array, Array]:
    """Share of living steps with a cost above 0, and share of episodes with any such step.

    Args:
      cost: ``[T, E]``; whatever stands after an episode's end is not looked at.
      alive: ``[T, E]``, 1 up to the end of each episode.
    Returns:
      two scalars in [0, 1]; 0 where no step is alive.
    """
    broken = (cost > 0) & (alive > 0)
    steps, episodes = (alive > 0).sum(), (alive > 0).any(axis=0).sum()
    return broken.sum() / jnp.maximum(steps, 1), broken.any(axis=0).sum() / jnp.maximum(episodes, 1)


def tail_cost(total: Array, share: float) -> Array:
    """Mean of the ``ceil(share N)`` largest of ``total [N]``: the conditional value at risk. ``share`` is static."""
    worst = max(1, math.ceil(share * total.shape[0] - 1e-9))
    return jax.lax.top_k(total, worst)[0].mean()


def side_effect(changed: Array, undisturbed: Array) -> Array:
    """How far what an agent did moved the world: mean distance of two trajectories of features at their last step.

    Args:
      changed, undisturbed: ``[T, ..., F]``, with the agent and without, as of ``envs.counterfactual.fork``, which
        shares the chance of both.
    Returns:
      scalar >= 0, unit of the features.
    """
    return jnp.linalg.norm(changed[-1] - undisturbed[-1], axis=-1).mean()


def total_variation(p: Array, q: Array) -> Array:
    """Half the sum of ``|p - q|`` over the last axis: ``[..., A]`` to ``[...]`` in [0, 1]."""
    return 0.5 * jnp.abs(p - q).sum(axis=-1)


def inconsistency(probabilities: Array, paraphrased: Array) -> Array:
    """Mean total variation between a policy and itself where it is told the same thing in other words.

    Args:
      probabilities: ``[..., A]`` in states visited. Not argmaxes: where a policy is indifferent, they differ by 1.
      paraphrased: ``[P, ..., A]``, after ``P`` changes of the observation that change nothing of what should be done.
    Returns:
      scalar in [0, 1]; 0 is blameless.
    """
    return total_variation(probabilities[None], paraphrased).mean()


def action_inconsistency(action: Array, paraphrased: Array, other: Array) -> Array:
    """The same for continuous actions: distance to the action after a paraphrase, over that to an unrelated one.

    Args:
      action: ``[N, A]``, greedy, in states visited.
      paraphrased: ``[N, A]``.
      other: ``[N, A]``, actions in other visited states, row by row.
    Returns:
      scalar >= 0: 0 is blameless, 1 as different as unrelated states; 0 for a policy that always does the same.
    """
    near, far = (jnp.linalg.norm(action - one, axis=-1).mean() for one in (paraphrased, other))
    return near / jnp.maximum(far, SMALLEST)


def unpredictability(probabilities: Array) -> Array:
    """Mean entropy of ``probabilities [..., A]`` over its largest value ``log A``; scalar in [0, 1], 0 if certain."""
    p = jnp.maximum(probabilities, SMALLEST)
    entropy = -(jnp.where(probabilities > 0, probabilities, 0.0) * jnp.log(p)).sum(axis=-1)
    return entropy.mean() / math.log(max(probabilities.shape[-1], 2))


def calibration(value: Array, outcome: Array) -> tuple[Array, Array, Array]:
    """Whether an agent knows what it will achieve.

    Args:
      value: ``[N]``, what it said.
      outcome: ``[N]``, what came of it, same unit.
    Returns:
      bias, the mean of ``value - outcome``; slope of the outcome's regression on the value (1 is right, below 1
      overclaims differences, NaN for a constant value); root of the mean squared error.
    """
    centred = value - value.mean()
    variance = jnp.square(centred).sum()
    slope = jnp.where(variance > 0, (centred * outcome).sum() / jnp.where(variance > 0, variance, 1.0), jnp.nan)
    return (value - outcome).mean(), slope, jnp.sqrt(jnp.square(value - outcome).mean())


def recovery(returns: Array, change: int, level: Array) -> tuple[Array, Array]:
    """How long and how much it takes to be as good as before.

    Args:
      returns: ``[T]``, per episode or per step.
      change: where something changed.
      level: scalar or ``[T]``, what counts as recovered.
    Returns:
      int steps from ``change`` to the first at which ``returns >= level``, ``T - change`` if there is none; and the sum
      of ``max(level - returns, 0)`` from ``change`` on.
    """
    after = jnp.arange(returns.shape[0]) >= change
    reached = after & (returns >= level)
    steps = jnp.where(reached.any(), jnp.argmax(reached), returns.shape[0]) - change
    return steps, jnp.where(after, jnp.maximum(level - returns, 0.0), 0.0).sum()


def membership_auc(member_nll: Array, other_nll: Array) -> Array:
    """Chance that a row that was trained on is likelier under the policy than one that was not; 0.5 leaks nothing.

    Args:
      member_nll: ``[N]``, negative log-likelihood of rows of the training set.
      other_nll: ``[M]``, of held-out episodes.
    """
    label = jnp.concatenate([jnp.ones(member_nll.shape), jnp.zeros(other_nll.shape)])
    return auroc(-jnp.concatenate([member_nll, other_nll]), label)

"""How much an agent can still learn on a level, judged by the episodes that ended in one rollout on it.

Arrays are ``[T, E]``, time first, one level per column. Only steps of finished episodes count; a column without one
scores minus infinity, which says that nothing is known, not that the level is bad.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def finished_steps(last: Array) -> Array:
    """1 for every step up to the last end of an episode in its column, 0 after it.

    Args:
      last: ``[T, E]``, 1 where an episode ends, by itself or by the time limit.
    Returns:
      ``[T, E]``, 0 or 1.
    Edges: a column without an end is all 0.
    Source: Parker-Holder et al., 2022, ACCEL (JaxUED's ``utils.py`` has the same mask).
    """
    return (jnp.flip(jnp.cumsum(jnp.flip(last, 0), 0), 0) > 0).astype(last.dtype)


def running_return(reward: Array, last: Array) -> Array:
    """The undiscounted return so far of the episode that a step belongs to, that step included.

    Args:
      reward: ``[T, E]``.
      last: ``[T, E]``, 1 where an episode ends; the next row begins another one.
    Returns:
      ``[T, E]``; where ``last`` is 1 it is the episode's return. The first row is taken for an episode's beginning.
    Edges: none.
    Source: the definition of a return.
    """

    def body(so_far: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        total = so_far + row[0]
        return jnp.where(row[1] > 0, 0.0, total), total

    return jax.lax.scan(body, jnp.zeros_like(reward[0]), (reward, last))[1]


def _mean_of_finished(values: Array, last: Array) -> Array:
    counted = finished_steps(last)
    number = counted.sum(0)
    total = jnp.where(counted > 0, values, 0.0).sum(0)
    return jnp.where(number > 0, total / jnp.maximum(number, 1.0), -jnp.inf)


def value_loss_score(advantage: Array, last: Array, positive: bool = False) -> Array:
    """Mean ``|A|`` over the steps of finished episodes, or with ``positive`` mean ``max(A, 0)``.

    Args:
      advantage: ``[T, E]``, generalised advantages by the values that acted.
      last: ``[T, E]``, 1 where an episode ends.
      positive: the positive value loss, which estimates regret.
    Returns:
      ``[E]``, in units of return, >= 0; minus infinity without a finished episode.
    Edges: what an unfinished episode holds, finite or not, reaches no score.
    Source: Jiang et al., 2021, Prioritized Level Replay (the L1 value loss) and Replay-Guided Adversarial Environment
      Design (the positive one).
    """
    return _mean_of_finished(jnp.maximum(advantage, 0.0) if positive else jnp.abs(advantage), last)


def max_mc_score(value: Array, best_return: Array, last: Array) -> Array:
    """Mean of ``R_best - V(s_t)``: how far the agent expects less than it has once got on the level.

    Args:
      value: ``[T, E]``, of the observations acted on.
      best_return: ``[E]``, the best undiscounted return ever seen on the level.
      last: ``[T, E]``, 1 where an episode ends.
    Returns:
      ``[E]``, in units of return; minus infinity without a finished episode.
    Edges: as ``value_loss_score``.
    Source: Jiang et al., 2021, Replay-Guided Adversarial Environment Design, the MaxMC regret estimate.
    """
    return _mean_of_finished(best_return - value, last)


def learnability(success: Array) -> Array:
    """``p (1 - p)`` of the share ``p`` of episodes that were solved.

    Args:
      success: ``[...]`` in [0, 1].
    Returns:
      ``[...]`` in [0, 0.25].
    Edges: minus infinity stays minus infinity.
    Source: Rutherford et al., 2024, No Regrets: Investigating and Improving Regret Approximations for Curriculum
      Discovery (Sampling for Learnability).
    """
    return jnp.where(success > -jnp.inf, success * (1.0 - success), -jnp.inf)


def grounded(score: Array, best_return: Array) -> Array:
    """The score where the level was ever solved, else 0: a level that cannot be solved keeps its value loss for ever.

    Args:
      score: ``[...]``.
      best_return: ``[...]``, the best return ever seen; solved is above 0.
    Returns:
      ``[...]``.
    Edges: a score of minus infinity stays.
    Source: Garcin et al., 2024, DRED (the released code's grounded value loss).
    """
    return jnp.where((best_return > 0) | (score == -jnp.inf), score, 0.0)

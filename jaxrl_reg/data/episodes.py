"""What the episodes of a data set brought: returns, scores, and what the policy that acted would score."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrl_reg.types import Array, Dataset


class Behaviour(NamedTuple):
    """The score of the policy that acted: ``returns`` ``[E]`` of whole episodes, float64; none if no rewards are known.

    ``episodes`` counts all, ``cut`` those left out; ``notes`` say in words what the returns do not.
    """

    returns: np.ndarray
    episodes: int
    cut: int
    notes: tuple[str, ...]


def behaviour(dataset: Dataset, limit: int | None = None) -> Behaviour:
    """What the policy that acted would score in an environment whose episodes last at most ``limit`` steps.

    An episode that ends only because its recording does says nothing about the policy, and is left out unless there
    are no others; one that had lasted ``limit`` steps by then is whole. Of a longer one the first ``limit`` steps
    count.
    """
    ends = np.flatnonzero(np.asarray(dataset.last) == 1)
    lengths = np.asarray(dataset.step)[ends] + 1
    if dataset.dropped_reward is not None:
        lengths = lengths + np.isfinite(np.asarray(dataset.dropped_reward)[ends])
    terminated = np.asarray(dataset.discount)[ends] == 0
    cut = np.zeros(len(ends), bool) if dataset.cut is None else np.asarray(dataset.cut)[ends] == 1
    longest, notes = int(lengths.max()), []
    returns = episode_returns(dataset)
    if limit is not None:
        cut &= lengths < limit
        over = lengths > limit
        if over.any():
            returns = np.where(over, _first(dataset, limit), returns)
            notes.append(
                f"{over.sum():,} of {len(ends):,} episodes are longer than the {limit:,} steps that the environment "
                f"allows (the longest {longest:,}): of each the first {limit:,} count; if time-outs are missing in the "
                f"file, give --max-episode-steps {limit}"
            )
        timed_out = lengths[~terminated & ~cut]
        if timed_out.size and timed_out.max() < limit:
            notes.append(
                f"{timed_out.size:,} of {len(ends):,} episodes time out after at most {timed_out.max():,} steps, where "
                f"the environment allows {limit:,}: returns are not of the same length"
            )
    if cut.all():
        notes.append("no episode ends but with its recording: the returns are of parts of episodes")
        cut = np.zeros(len(ends), bool)
    if not dataset.rewarded:
        returns, cut = returns[:0], cut[:0]
    return Behaviour(returns[~cut], len(ends), int(cut.sum()), tuple(notes))


def _first(dataset: Dataset, steps: int) -> np.ndarray:
    """Return of the first ``steps`` rows of every episode."""
    step = np.asarray(dataset.step)
    early = np.where(step < steps, np.asarray(dataset.reward), 0.0)
    return returns_of(early, np.flatnonzero(step == 0))


def episode_returns(dataset: Dataset) -> np.ndarray:
    """Undiscounted return of every episode, float64 ``[episodes]`` on the host, rewards of dropped rows included."""
    starts = np.flatnonzero(np.asarray(dataset.step) == 0)
    dropped = None if dataset.dropped_reward is None else np.asarray(dataset.dropped_reward)
    return returns_of(np.asarray(dataset.reward), starts, dropped)


def normalised(returns: Any, random: Any, expert: Any) -> Any:
    """``100 (return - random) / (expert - random)``, D4RL's score, elementwise for numbers and arrays of any kind."""
    return 100.0 * (returns - random) / (expert - random)


def normalised_score(dataset: Dataset, returns: Any) -> Array:
    """The score of ``returns`` (any shape) in ``normalised``; NaN where the data set knows no reference scores.

    They must be measured in the data set's own environment, with its unscaled rewards.
    """
    return normalised(jnp.asarray(returns), dataset.score_random, dataset.score_expert)


def add_returns_to_go(dataset: Dataset, gamma: float = 1.0) -> Dataset:
    """Adds ``extras["return_to_go"]`` ``[N]``: the (discounted) sum of rewards from each row to its episode's end.

    A truncated episode's unseen future counts as nothing, as in Decision Transformer (arXiv 2106.01345).
    """
    reward = np.asarray(dataset.reward, np.float64)
    starts = np.flatnonzero(np.asarray(dataset.step) == 0)
    ends = np.append(starts[1:], dataset.size)
    value, carry = np.zeros_like(reward), np.zeros(len(starts))
    # All episodes at once, walking back from their ends: as many steps as the longest episode has rows.
    for back in range(int((ends - starts).max())):
        alive = np.flatnonzero(ends - starts > back)
        rows = ends[alive] - 1 - back
        carry[alive] = reward[rows] + gamma * carry[alive]
        value[rows] = carry[alive]
    return dataclasses.replace(dataset, extras={**dataset.extras, "return_to_go": jnp.asarray(value, jnp.float32)})


def summary(dataset: Dataset) -> dict[str, Any]:
    """Plain numbers that describe a data set: sizes, episode ends, returns, lengths, rewards, normalised score."""
    returns = episode_returns(dataset)
    lengths = np.bincount(np.asarray(dataset.episode))
    reward = np.asarray(dataset.reward)
    last = np.asarray(dataset.last) == 1
    terminated = int((last & (np.asarray(dataset.discount) == 0)).sum())
    return {
        "name": dataset.name,
        "rows": dataset.size,
        "episodes": len(returns),
        "terminated": terminated,
        "truncated": len(returns) - terminated,
        "observation_dim": dataset.spec.observation_dim,
        "action_dim": dataset.spec.action_dim,
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_min": float(returns.min()),
        "return_max": float(returns.max()),
        "length_mean": float(lengths.mean()),
        "length_min": int(lengths.min()),
        "length_max": int(lengths.max()),
        "reward_min": float(reward.min()),
        "reward_max": float(reward.max()),
        "score_mean": float(normalised_score(dataset, returns.mean())),
    }


def return_rank(returns: np.ndarray) -> np.ndarray:
    """The fraction of episodes with a return at most as high, float32 ``[episodes]``: ties equal, the best 1."""
    return (np.searchsorted(np.sort(returns), returns, side="right") / len(returns)).astype(np.float32)


def returns_of(reward: np.ndarray, starts: np.ndarray, dropped: np.ndarray | None = None) -> np.ndarray:
    """Sums of ``reward`` ``[N]``, and ``dropped`` where finite, from each of ``starts`` ``[E]`` to the next."""
    if dropped is not None:
        reward = reward.astype(np.float64) + np.nan_to_num(dropped)
    return np.add.reduceat(reward, starts, dtype=np.float64)

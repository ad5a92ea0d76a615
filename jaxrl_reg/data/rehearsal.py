"""Rehearsal of earlier tasks: which of them come up again while another is learnt, and how often.

An earlier task has an age, the phases since it was practised last: 1 for the one just before, 0 for one that has not
been met. A law makes weights of ages: ``power`` (``age^-d``, as things recur in natural surroundings), ``exponential``
(``exp(-d (age - 1))``), ``uniform`` and ``last``. There are two readings. A budget: a fixed share of a phase is
rehearsal, and the law divides it (``rehearsal_weights``). Or need: every task recurs with its own probability, whatever
else there is, so that the total grows with the number of tasks (``recurrence``).

For a mean over tasks the uniform division of a budget is the natural best; a law describes what surroundings offer.
Source: Gandhi et al., 2024, Natural Mitigation of Catastrophic Interference: Continual Learning in Power-Law Learning
Environments.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.data.samplers import Sampler, take
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import Array, Dataset, Key, Transition

LAWS = ("power", "exponential", "uniform", "last")


def recurrence(kind: str, age: Array, exponent: Array | float = 1.0) -> Array:
    """How much each earlier task recurs, not normalised: 1 at age 1, 0 for a task that has not been met.

    Args:
      kind: one of ``LAWS``, static.
      age: ``[..., T]``, phases since each task was practised; 0 or less: not met.
      exponent: scalar d >= 0, may be traced; ``uniform`` and ``last`` do not look at it.
    Returns:
      ``[..., T]`` in [0, 1]; ``last`` gives 1 to the tasks of the least age. Times a rate it is the probability, per
      unit of time, of meeting each task.
    Raises:
      UserError: for an unknown kind.
    """
    if kind not in LAWS:
        raise unknown("law of rehearsal", kind, LAWS)
    met = age > 0
    years = jnp.where(met, age, 1).astype(jnp.float32)
    if kind == "power":
        weight = years ** (-jnp.asarray(exponent, jnp.float32))
    elif kind == "exponential":
        weight = jnp.exp(-exponent * (years - 1.0))
    elif kind == "uniform":
        weight = jnp.ones_like(years)
    else:
        least = jnp.where(met, years, jnp.inf).min(axis=-1, keepdims=True)
        weight = (years == least).astype(jnp.float32)
    return jnp.where(met, weight, 0.0)


def rehearsal_weights(kind: str, age: Array, exponent: Array | float = 1.0) -> Array:
    """Shares of the rehearsal that go to each earlier task: ``recurrence`` normalised.

    Args and raises: as ``recurrence``.
    Returns:
      ``[..., T]``, sums to 1; zeros, not NaN, where no task has been met.
    """
    weight = recurrence(kind, age, exponent)
    return weight / jnp.maximum(weight.sum(axis=-1, keepdims=True), jnp.finfo(jnp.float32).tiny)


def ages(phase: Array | int, tasks: int) -> Array:
    """``[T]`` ages in phase ``phase`` of tasks learnt one after another: ``phase - task``, 0 for those to come.

    Args:
      phase: int, may be traced; the task that is being learnt.
      tasks: number of tasks, static.
    """
    return jnp.maximum(phase - jnp.arange(tasks), 0)


def task_schedule(
    key: Key,
    phase: Array | int,
    episodes: int,
    *,
    tasks: int,
    share: Array | float = 0.2,
    kind: str = "power",
    exponent: Array | float = 1.0,
    age: Array | None = None,
) -> Array:
    """Which task each of ``episodes`` episodes (or rows) of a phase is of: rehearsal with probability ``share``.

    Args:
      key: a typed key.
      phase: int, may be traced; the task that is being learnt.
      episodes: number of draws, static.
      tasks: number of tasks, static.
      share: scalar in [0, 1], may be traced; in the first phase nothing is rehearsed.
      kind, exponent: the law, see ``recurrence``.
      age: ``[T]``; a task that was revisited is as old as its last visit. None: ``ages(phase, tasks)``.
    Returns:
      int32 ``[episodes]``.
    """
    past_key, share_key = jax.random.split(key)
    weight = rehearsal_weights(kind, ages(phase, tasks) if age is None else age, exponent)
    past = jax.random.categorical(past_key, jnp.log(weight), shape=(episodes,))
    again = (jax.random.uniform(share_key, (episodes,)) < share) & (weight.sum() > 0)
    return jnp.where(again, past, phase).astype(jnp.int32)


def rehearse(
    bounds: Sequence[int],
    phase: Array | int,
    share: Array | float = 0.2,
    kind: str = "power",
    exponent: Array | float = 1.0,
) -> Sampler:
    """Batches of a phase: rows of its own task, and with probability ``share`` each a row of an earlier one.

    Args:
      bounds: ``T + 1`` row numbers: task ``i`` has the rows from ``bounds[i]`` to before ``bounds[i + 1]``.
      phase: int, may be traced, such as ``step // updates_per_phase``.
      share, kind, exponent: see ``task_schedule``.
    Returns:
      A sampler; its batches have ``extras["task"]`` int32 ``[B]``.
    Raises:
      UserError: for bounds that do not rise, or, at the first draw, go past the data set.
    """
    edges = np.asarray(bounds)
    if edges.ndim != 1 or edges.size < 2 or edges[0] < 0 or (np.diff(edges) <= 0).any():
        raise UserError(f"rehearse needs rising bounds of at least one task, got {list(bounds)}")

    def sample(dataset: Dataset, key: Key, batch_size: int) -> Transition:
        if edges[-1] > dataset.size:
            raise UserError(f"{dataset.name}: bounds go to row {edges[-1]} of {dataset.size}")
        task_key, row_key = jax.random.split(key)
        task = task_schedule(
            task_key, phase, batch_size, tasks=edges.size - 1, share=share, kind=kind, exponent=exponent
        )
        low, high = (jnp.asarray(ends, jnp.int32)[task] for ends in (edges[:-1], edges[1:]))
        batch = take(dataset, jax.random.randint(row_key, (batch_size,), low, high))
        batch.extras["task"] = task
        return batch

    return sample

"""Which rows of a large data set of unknown content belong to a task of which there are a few demonstrations.

Every row gets a score by how near it is to the task's rows, on the device and in blocks; a threshold decides. Any
``Dataset`` will do, whatever it was collected for. Behavior Retrieval clones what is kept together with the
demonstrations, half of each batch from either: ``samplers.mixture``. The space in which rows are compared may be
learnt; the published one is ``representation.state_action_vae``.

Source: Du et al., 2023, Behavior Retrieval: Few-Shot Imitation Learning by Querying Unlabeled Datasets.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.data import retrieval
from jaxrl_reg.data.pieces import subset
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import Array, Dataset


def similarity(
    table: retrieval.Table, task: retrieval.Table, weight: Array | None = None, *, chunk: int = 8192
) -> Array:
    """Minus the distance of every row to the nearest row of the task, ``[N]``; one function call, any sizes.

    The limit of a density of the task estimated with ever smaller kernels; how common such rows are in the table plays
    no part, see ``density_ratio``. Du et al., 2023, Behavior Retrieval: Few-Shot Imitation Learning by Querying
    Unlabeled Datasets, score of a transition.

    Args:
      table: arrays ``[N, K_j]``, what is searched: observations and actions, or embeddings of them.
      task: arrays ``[M, K_j]``, the same columns of the few rows that the task is known by.
      weight: ``[K]``, >= 0, of the squared differences; all 1 if None.
      chunk: rows of the task that are compared at a time.
    Returns:
      ``[N]``, <= 0, in units of the columns.
    Raises:
      UserError: shapes that do not fit.
    """
    retrieval.checked(jnp.concatenate([part[:1] for part in table], -1), task, weight, 1)

    def distance(*parts: Array) -> Array:
        return retrieval.nearest(retrieval.columns_of(parts), task, weight, chunk=chunk)[0][:, 0]

    return -jnp.sqrt(retrieval.in_blocks(table, distance))


def log_density(
    query: Array, table: retrieval.Table, bandwidth: Array | float, weight: Array | None = None, *, chunk: int = 8192
) -> Array:
    """Logarithm of a Gaussian kernel density estimate at ``query [B, K]``, up to its constant factor, ``[B]``.

    ``log mean_i exp(-d_i^2 / (2 bandwidth^2))`` over the rows of the table, in blocks of ``chunk``; distances as in
    ``nearest``. For a bandwidth of almost 0 it is ``-min_i d_i^2 / (2 bandwidth^2)`` less ``log N``.

    Raises:
      UserError: shapes that do not fit.
    """
    size = retrieval.checked(query, table, weight, 1)
    weight = jnp.ones(query.shape[-1]) if weight is None else weight
    chunk = min(chunk, size)
    centre = jnp.concatenate([part[:: max(1, size // 1024)].mean(axis=0) for part in table])
    scaled = jnp.sqrt(weight) * (query - centre)

    def add(total: Array, block: Array) -> tuple[Array, None]:
        index = block * chunk + jnp.arange(chunk)
        rows = jnp.sqrt(weight) * (retrieval.columns_of([part.at[index].get(mode="clip") for part in table]) - centre)
        squares = jnp.square(scaled).sum(-1)[:, None] + jnp.square(rows).sum(-1)
        distance = jnp.maximum(squares - 2.0 * jnp.matmul(scaled, rows.T, precision=retrieval.HIGHEST), 0.0)
        exponent = jnp.where(index < size, -distance / (2.0 * jnp.square(bandwidth)), -jnp.inf)
        return jnp.logaddexp(total, jax.nn.logsumexp(exponent, axis=-1)), None

    start = jnp.full_like(query[:, 0], -jnp.inf)
    return jax.lax.scan(add, start, jnp.arange(-(-size // chunk)))[0] - jnp.log(size)


def density_ratio(
    table: retrieval.Table,
    task: retrieval.Table,
    bandwidth: Array | float,
    weight: Array | None = None,
    *,
    chunk: int = 8192,
) -> Array:
    """``log p_task - log p_table`` at every row of the table, ``[N]``, both by ``log_density`` with one bandwidth.

    The importance weight that turns the table's distribution into the task's. Unlike ``similarity`` it asks for fewer
    of what the table has plenty of. Costs ``N (N + M)`` distances. Arguments as in ``similarity``.
    """

    def ratio(*parts: Array) -> Array:
        rows, settings = retrieval.columns_of(parts), (bandwidth, weight)
        return log_density(rows, task, *settings, chunk=chunk) - log_density(rows, table, *settings, chunk=chunk)

    return retrieval.in_blocks(table, ratio)


def keep(score: Array, threshold: Array | float, rule: str = "minmax") -> Array:
    """Which rows have a score high enough, bool ``[N]``; a threshold of 0 keeps all.

    ``rule="minmax"``: the score, scaled so that the lowest of all is 0 and the highest 1, is at least ``threshold``, as
    published; a single outlier then moves the threshold for everybody. ``rule="quantile"``: it is at least the
    ``threshold``-quantile of all scores, so about ``1 - threshold`` of the rows stay. Equal scores all stay.

    Raises:
      UserError: an unknown rule, or a number outside [0, 1] as threshold.
    """
    if rule not in ("minmax", "quantile"):
        raise unknown("rule", rule, ("minmax", "quantile"))
    if isinstance(threshold, float | int) and not 0.0 <= threshold <= 1.0:
        raise UserError(f"threshold={threshold}: expected a number in [0, 1]")
    if rule == "quantile":
        return score >= jnp.quantile(score, threshold)
    low, high = score.min(), score.max()
    return jnp.where(high > low, (score - low) / jnp.where(high > low, high - low, 1.0), 1.0) >= threshold


def retrieve(
    data: Dataset,
    task: Dataset,
    threshold: float,
    embed: Callable[[Array, Array], Array] | None = None,
    *,
    rule: str = "minmax",
    chunk: int = 8192,
) -> Dataset:
    """The rows of ``data`` whose observation and action resemble some row of ``task``.

    ``embed(observation [B, O], action [B, A]) -> [B, K]`` says in which space; by default the columns themselves,
    standardised over ``data``. Rewards are not looked at. Actions belong in the embedding: the observations of other
    tasks are everywhere too. Where a row between two kept ones is left out the episode is cut (see ``subset``), so
    windows never bridge a gap. Runs once, before training.

    Raises:
      UserError: as ``keep``; other dimensions; nothing kept.
    """
    if data.spec != task.spec:
        raise UserError(f"{task.name} has {task.spec}, but {data.name} has {data.spec}")
    both, weight = [(part.observation, part.action) for part in (data, task)], None
    if embed is None:
        weight = jnp.square(retrieval.column_scales(both[0]))
    else:
        embedded = jax.jit(lambda table: retrieval.in_blocks(table, embed))
        both = [(embedded(table),) for table in both]
    score = jax.jit(similarity, static_argnames="chunk")(*both, weight, chunk=chunk)
    return subset(data, np.asarray(keep(score, threshold, rule)))

"""PRDC: TD3+BC pulled towards the nearest pair of state and action in the whole data set, not the row's own action.

In words. Critics as in TD3. Actor, every ``policy_freq`` updates: maximise lambda Q_1(s, pi(s)) minus the mean squared
distance of pi(s) to a_i, where lambda = alpha / mean |Q_1| is held constant and i is the row that minimises
``beta``^2 |s - s_i|^2 + |pi(s) - a_i|^2 over all rows: a projection onto the data, so a_i is held constant too. A large
``beta`` looks at the state's own row only (TD3+BC, where states do not repeat); at 0 any action of the data will do.
The update is written out in ``_td3``.

The search needs the data set inside the update, because its query is the policy's action. ``sample`` hands the columns
over in ``batch.extras`` as they are, whole: they are no part of a member, so a population shares them, and nothing is
copied. With ``neighbours="approximate"`` the rows lie in ``clusters`` cells, of which the ``probes`` nearest are looked
into; ``Agent.prepare`` makes them, once, for the default ``beta``: other values find a little less. Give the run
``agent.prepare(data)`` instead of ``data``, as the jobs do.

Metrics: those of TD3+BC; ``bc_loss`` is the distance to a_i. Approximate search: ``recall``, the share of a batch whose
nearest row is found, once per segment.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxrl_reg.agents import _td3
from jaxrl_reg.agents._td3 import State
from jaxrl_reg.data import retrieval, uniform
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import Agent, Array, Dataset, Key, Metrics, Paper, Protocol, Spec, Transition, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make", "sample"]

PAPER = Paper(
    title="Policy Regularization with Dataset Constraint for Offline Reinforcement Learning",
    authors="Ran, Li, Zhang, Zhang, Yu",
    year=2023,
    url="https://arxiv.org/abs/2306.06569",
    deviations="Brute force on the device, or an inverted file, instead of a tree on the host. States are standardised "
    "in the distance by the agent, elsewhere by the data pipeline. The loss is the mean squared distance of the "
    "actions alone, as in the released code; in the paper it is the whole distance, with ``beta`` times that of the "
    f"states, which here only chooses the row. ``beta`` is that of locomotion. {_td3.FIRST_STEP}",
)
KIND = "offline"
PROTOCOL = Protocol(normalise=True, sparse=(10000.0, -1.0), batch_size=256, updates=1_000_000)
NEIGHBOURS = ("exact", "approximate")
BETA = 2.0  # by which cells are made; those of a population have several


@dataclasses.dataclass(frozen=True)
class Config(_td3.Config):
    standardise: bool = setting(default=True, help="measure states in standard deviations over the data (plus 1e-3)")
    chunk: int = setting(default=8192, help="rows of the data whose distances are held at a time")
    neighbours: str = setting(
        default="exact", help="search of the nearest row: exact, or approximate (in cells, see clusters)"
    )
    clusters: int = setting(
        default=0, help="cells of the approximate search (more, where crowded); 0: the root of the rows"
    )
    probes: int = setting(default=8, help="cells that the approximate search looks into; all of them: exact")


@pytree
class Hyper(_td3.Hyper):
    alpha: float = setting(default=2.5, help="weight of the normalised value; 40 for HalfCheetah, 7.5 for AntMaze")
    beta: float = setting(default=BETA, help="weight of states against actions in the distance; 7.5 for AntMaze")


def sample(data: Dataset | tuple[Dataset, retrieval.Cells], key: Key, batch_size: int) -> Transition:
    """Uniform rows, with the whole table of states and actions, and the cells if there are any, in ``extras``."""
    rows, cells = data if isinstance(data, tuple) else (data, None)
    batch = uniform(rows, key, batch_size)
    table = {"table_observation": rows.observation, "table_action": rows.action}
    return dataclasses.replace(batch, extras={**batch.extras, **table, **({} if cells is None else {"cells": cells})})


def make(config: Config, spec: Spec) -> Agent:
    """Raises ``UserError`` for settings of the search that cannot be; at the first update, if the batch does not come
    from ``sample``, or without the cells of ``prepare`` where they are searched."""
    if config.neighbours not in NEIGHBOURS:
        raise unknown("neighbours", config.neighbours, NEIGHBOURS)
    if config.clusters < 0:
        raise UserError(f"clusters={config.clusters} must not be negative; 0: the root of the number of rows")
    if config.probes < 1:
        raise UserError(f"probes={config.probes} must be at least 1 cell")
    approximate = config.neighbours == "approximate"
    if config.clusters and not approximate:
        raise UserError(f"clusters={config.clusters} belong to the approximate search; set neighbours=approximate too")

    def weights(table: retrieval.Table, beta: Array | float) -> Array:
        scale = retrieval.column_scales(table[:1]) if config.standardise else jnp.ones(spec.observation_dim)
        return jnp.concatenate([jnp.square(beta * scale), jnp.ones(spec.action_dim)])

    def problem(batch: Transition, action: Array, hyper: Hyper) -> tuple[Array, retrieval.Table, Array]:
        """Query, table and weight of the search."""
        if "table_action" not in batch.extras:
            raise UserError("prdc searches the whole data set: draw its batches with prdc.sample, which passes it on")
        table = batch.extras["table_observation"], batch.extras["table_action"]
        query = jax.lax.stop_gradient(jnp.concatenate([batch.observation, action], axis=-1))
        return query, table, weights(table, hyper.beta)

    def search(batch: Transition, query: Array, table: retrieval.Table, weight: Array) -> Array:
        if not approximate:
            return retrieval.nearest(query, table, weight, chunk=config.chunk)[1]
        if "cells" not in batch.extras:
            raise UserError("prdc with neighbours=approximate needs cells: give the run agent.prepare(data), not data")
        cells: retrieval.Cells = batch.extras["cells"]  # type: ignore[assignment]
        return retrieval.nearest_in_cells(query, table, cells, weight, probes=config.probes)[1]

    def pull(batch: Transition, action: Array, hyper: Hyper) -> _td3.Pull:
        query, table, weight = problem(batch, action, hyper)
        return _td3.Pull(table[1][search(batch, query, table, weight)[:, 0]], 1.0, hyper.alpha)

    agent = _td3.make(config, spec, pull, sample=sample)
    if not approximate:
        return agent

    def prepare(data: Dataset) -> tuple[Dataset, retrieval.Cells]:
        """The data and its cells; raises ``UserError`` for more cells than rows."""
        if config.clusters > data.size:
            raise UserError(f"clusters={config.clusters} are more than the {data.size} rows of {data.name}")
        table = data.observation, data.action
        weight = weights(table, BETA)
        return data, retrieval.cells(table, weight, config.clusters or None, key=jax.random.key(0))

    def measure(state: State, batch: Transition, hyper: Hyper, key: Key) -> Metrics:
        metrics = {} if agent.measure is None else agent.measure(state, batch, hyper, key)
        query, table, weight = problem(batch, agent.act(state, batch.observation, hyper, key, False), hyper)
        true = retrieval.nearest(query, table, weight, chunk=config.chunk)[1]
        return {**metrics, "recall": retrieval.recall(search(batch, query, table, weight), true)}

    return agent._replace(prepare=prepare, measure=measure)

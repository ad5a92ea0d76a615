"""PRDC: TD3+BC pulled towards the nearest pair of state and action in the whole data set, not the row's own action.

In words. Critics as in TD3. Actor, every ``policy_freq`` updates: maximise lambda Q_1(s, pi(s)) minus the mean squared
distance of pi(s) to a_i, where lambda = alpha / mean |Q_1| is held constant and i is the row that minimises
``beta``^2 |s - s_i|^2 + |pi(s) - a_i|^2 over all rows: a projection onto the data, so a_i is held constant too. A large
``beta`` looks at the state's own row only (TD3+BC, where states do not repeat); at 0 any action of the data will do.
The update is written out in ``_td3``.

The search needs the data set inside the update, because its query is the policy's action. ``sample`` hands the columns
over in ``batch.extras`` as they are, whole: they are no part of a member, so a population shares them, and nothing is
copied. Give the run ``(data, retrieval.cells(...))`` instead of ``data`` to search approximately, in ``probes`` cells.

Metrics: those of TD3+BC; ``bc_loss`` is the distance to a_i.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxrl_reg.agents import _td3
from jaxrl_reg.agents._td3 import State
from jaxrl_reg.data import retrieval, uniform
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Agent, Array, Dataset, Key, Paper, Spec, Transition, pytree, setting

__all__ = ["KIND", "PAPER", "Config", "Hyper", "State", "make", "sample"]

PAPER = Paper(
    title="Policy Regularization with Dataset Constraint for Offline Reinforcement Learning",
    authors="Ran, Li, Zhang, Zhang, Yu",
    year=2023,
    url="https://arxiv.org/abs/2306.06569",
    deviations="Brute force on the device, or an inverted file, instead of a tree on the host. States are standardised "
    f"in the distance by the agent, elsewhere by the data pipeline. {_td3.FIRST_STEP}",
)
KIND = "offline"


@dataclasses.dataclass(frozen=True)
class Config(_td3.Config):
    standardise: bool = setting(True, "measure states in standard deviations over the data (plus 1e-3)")
    chunk: int = setting(8192, "rows of the data whose distances are held at a time")
    probes: int = setting(8, "cells looked into, if the run is given cells")


@pytree
class Hyper(_td3.Hyper):
    alpha: float = setting(2.5, "weight of the normalised value; 40 for HalfCheetah, 7.5 for AntMaze")
    beta: float = setting(2.0, "weight of states against actions in the distance; 7.5 for AntMaze")


def sample(data: Dataset | tuple[Dataset, retrieval.Cells], key: Key, batch_size: int) -> Transition:
    """Uniform rows, with the whole table of states and actions, and the cells if there are any, in ``extras``."""
    rows, cells = data if isinstance(data, tuple) else (data, None)
    batch = uniform(rows, key, batch_size)
    table = {"table_observation": rows.observation, "table_action": rows.action}
    return dataclasses.replace(batch, extras={**batch.extras, **table, **({} if cells is None else {"cells": cells})})


def make(config: Config, spec: Spec) -> Agent:
    """Raises ``UserError`` at the first update if the batch does not come from ``sample``."""

    def pull(batch: Transition, action: Array, hyper: Hyper) -> _td3.Pull:
        if "table_action" not in batch.extras:
            raise UserError("prdc searches the whole data set: draw its batches with prdc.sample, which passes it on")
        table = batch.extras["table_observation"], batch.extras["table_action"]
        scale = retrieval.column_scales(table[:1]) if config.standardise else jnp.ones(spec.observation_dim)
        weight = jnp.concatenate([jnp.square(hyper.beta * scale), jnp.ones(spec.action_dim)])
        query = jax.lax.stop_gradient(jnp.concatenate([batch.observation, action], axis=-1))
        if "cells" in batch.extras:
            cells: retrieval.Cells = batch.extras["cells"]  # type: ignore[assignment]
            _, rows = retrieval.nearest_in_cells(query, table, cells, weight, probes=config.probes)
        else:
            _, rows = retrieval.nearest(query, table, weight, chunk=config.chunk)
        return _td3.Pull(table[1][rows[:, 0]], 1.0, hyper.alpha)

    return _td3.make(config, spec, pull, sample=sample)

"""Percent behaviour cloning (%BC): cloning of the episodes with the best returns.

In words: ``bc`` with weight 1 for rows of the best ``fraction`` of the data by episode return, 0 for the others, and
the loss divided by the number of rows that count. A batch without any such row has loss 0 and no gradient.

Metrics: those of ``bc``, over the rows that count.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl_reg.agents import _common
from jaxrl_reg.agents.imitation import bc
from jaxrl_reg.agents.imitation.bc import Config, State
from jaxrl_reg.types import Agent, Array, Paper, Protocol, Spec, Transition, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Decision Transformer: Reinforcement Learning via Sequence Modeling",
    authors="Chen, Lu, Rajeswaran, Lee, Grover, Laskin, Abbeel, Srinivas, Mordatch",
    year=2021,
    url="https://arxiv.org/abs/2106.01345",
    deviations="Rows are weighted inside the loss, so that the fraction can be swept without a recompilation; the "
    "number of rows that count varies from batch to batch around batch_size * fraction.",
)
KIND = "offline"
PROTOCOL = Protocol(normalise=True, eps=1e-6, batch_size=64, updates=100_000)


@pytree
class Hyper(bc.Hyper):
    fraction: float = setting(default=0.1, help="share of the data that is cloned, best episodes first")


def make(config: Config, spec: Spec) -> Agent:
    """Raises ``UserError`` at the first update if the batch has no ``return_rank``."""

    def weight(batch: Transition, hyper: Hyper) -> Array:
        rank = _common.present(batch.return_rank, "percent_bc", "return_rank")
        return (rank >= 1.0 - hyper.fraction).astype(jnp.float32)

    return bc.make(config, spec, weight)

"""ACCEL: robust level replay whose new levels are small changes of those that were worth replaying.

In words. As ``robust_plr``, but the levels that are only looked at are edits of the ones being replayed: ``edits``
random changes each. What is hard but can be solved has neighbours that are a little harder, so complexity grows from
the simple levels that the buffer begins with.

Metrics: as ``robust_plr``.
"""

from __future__ import annotations

import dataclasses

from jaxrl_reg.agents.curricula import _curriculum, robust_plr
from jaxrl_reg.agents.online import ppo
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Agent, Levels, Paper, Protocol, Spec, pytree, setting

PAPER = Paper(
    title="Evolving Curricula with Regret-Based Environment Design",
    authors="Parker-Holder, Jiang, Dennis, Samvelyan, Foerster, Grefenstette, Rocktäschel",
    year=2022,
    url="https://arxiv.org/abs/2203.01302",
    deviations="Edits are made of the levels being replayed and played beside them, before the update instead of after "
    "it; the designer's levels are played only while the buffer is empty.",
)
KIND = "on_policy"
METRICS = ppo.METRICS
PROTOCOL = Protocol(note="Learns in a world with levels.")
defaults = ppo.defaults


@dataclasses.dataclass(frozen=True)
class Config(_curriculum.BufferConfig):
    """PPO's, the buffer's, and how levels are changed."""

    edits: int = setting(default=5, help="random changes of a level at a time")


@pytree
class Hyper(robust_plr.Hyper):
    """Those of ``robust_plr``."""


def make(config: Config, spec: Spec) -> Agent:
    if config.edits < 1:
        raise UserError(f"edits={config.edits} must be at least 1")

    def recipe(levels: Levels, num_envs: int) -> _curriculum.Recipe:
        robust = robust_plr.recipe(config, levels, num_envs)
        return dataclasses.replace(robust, generate=_curriculum.edited(levels, num_envs, config.edits))

    return _curriculum.agent(config, spec, recipe)

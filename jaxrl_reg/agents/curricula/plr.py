"""Prioritised Level Replay: the levels whose values are most wrong are played again, with proximal policy optimisation.

In words. A level is scored by the mean absolute advantage over the episodes that ended in its last rollout. Levels are
drawn in proportion to rank^(-1/temperature) of their scores, mixed with how long ago each was scored (``staleness``).
With ``source=data`` they are ``data_levels`` of the distribution that is aimed at, a data set that each member draws
for itself; those without a score come first. With ``source=generator`` a share ``replay`` of the environments plays
levels from a buffer, the others new ones of the designer's, which enter it if they beat the least score there; all are
learned from. An infinite temperature and no staleness draw uniformly.

Metrics: PPO's; ``curriculum/score`` is the mean of the new scores.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from jaxrl_reg.agents.curricula import _curriculum
from jaxrl_reg.agents.online import ppo
from jaxrl_reg.data import levels as buffers
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import Agent, Array, Levels, Paper, Protocol, Spec, pytree, setting

PAPER = Paper(
    title="Prioritized Level Replay",
    authors="Jiang, Grefenstette, Rocktäschel",
    year=2021,
    url="https://arxiv.org/abs/2010.03934",
    deviations="Every batch replays a fixed share of its levels, where the paper flips a coin for each episode; a "
    "level is kept for a whole rollout; the temperature is 0.3 instead of 0.1, which suits few levels.",
)
KIND = "on_policy"
METRICS = ppo.METRICS
PROTOCOL = Protocol(note="Learns in a world with levels.")
defaults = ppo.defaults
SOURCES = ("data", "generator")


@dataclasses.dataclass(frozen=True)
class Config(_curriculum.BufferConfig):
    """PPO's, the buffer's, and where levels come from."""

    score: str = setting(default="value_l1", help=f"what makes a level worth replaying: {_curriculum.NAMED}")
    source: str = setting(default="data", help="data: levels of the distribution aimed at; generator: the designer's")
    data_levels: int = setting(default=64, help="source=data: how many levels each member is given", small=4)
    replay: float = setting(default=0.5, help="source=generator: share of the environments that replay")


@pytree
class Hyper(ppo.Hyper):
    """PPO's, and who is drawn."""

    staleness: float = setting(default=0.3, help="share of draws by how long ago a level was scored", curriculum=True)
    temperature: float = setting(
        default=0.3, help="of rank^(-1/temperature): small takes the largest scores only", curriculum=True
    )


def make(config: Config, spec: Spec) -> Agent:
    if config.source not in SOURCES:
        raise unknown("source of plr", config.source, SOURCES)
    if not 0.0 < config.replay < 1.0:
        raise UserError(f"replay={config.replay} is a share of the environments, more than 0 and less than 1")

    def weights(buffer: buffers.LevelBuffer, hyper: Hyper, iteration: Array) -> Array:
        known = buffers.replay_weights(buffer, hyper.staleness, hyper.temperature, ground=False)
        return jnp.where(buffer.unseen.any(), buffer.unseen.astype(jnp.float32), known)

    def recipe(levels: Levels, num_envs: int) -> _curriculum.Recipe:
        if config.source == "data":
            data = _curriculum.given(levels, config.data_levels)
            return _curriculum.Recipe(
                num_envs, 0, weights=weights, score=config.score, capacity=config.data_levels, data=data
            )
        replay = min(max(round(config.replay * num_envs), 1), max(num_envs - 1, 1))
        fresh = num_envs - replay
        return _curriculum.Recipe(
            replay, fresh, _curriculum.drawn(levels, fresh), weights, config.score, config.capacity, "score"
        )

    return _curriculum.agent(config, spec, recipe)

"""Robust Prioritised Level Replay: new levels are only looked at, and what is learned from comes from the buffer.

In words. Beside the environments that learn, as many play new levels of the designer's, whose steps train nothing: a
level enters the buffer if it was ever solved and its score beats the least one there. The environments that learn
replay the buffer by rank of score and staleness. The score estimates regret: the best return ever seen on the level
minus the values along the way (``max_mc``), or the positive part of the advantages. So the agent never learns from a
level that nobody chose; that makes its policy one of least regret where the two reach an equilibrium. While the buffer
holds nothing, new levels are learned from.

Metrics: PPO's; ``curriculum/score`` is the mean of the new scores, ``curriculum/filled`` the buffer's filled share.
"""

from __future__ import annotations

import dataclasses
import functools

from jaxrl_reg.agents.curricula import _curriculum
from jaxrl_reg.agents.online import ppo
from jaxrl_reg.data import levels as buffers
from jaxrl_reg.types import Agent, Array, Levels, Paper, Protocol, Spec, pytree, setting

PAPER = Paper(
    title="Replay-Guided Adversarial Environment Design",
    authors="Jiang, Dennis, Parker-Holder, Foerster, Grefenstette, Rocktäschel",
    year=2021,
    url="https://arxiv.org/abs/2110.02439",
    deviations="Replayed and new levels are played side by side at every iteration, where the paper flips a coin for "
    "each; what was never solved does not enter the buffer.",
)
KIND = "on_policy"
METRICS = ppo.METRICS
PROTOCOL = Protocol(note="Learns in a world with levels.")
defaults = ppo.defaults


@dataclasses.dataclass(frozen=True)
class Config(_curriculum.BufferConfig):
    """PPO's and the buffer's."""


@pytree
class Hyper(ppo.Hyper):
    """PPO's, and who is drawn."""

    staleness: float = setting(default=0.3, help="share of draws by how long ago a level was scored", curriculum=True)
    temperature: float = setting(
        default=0.3, help="of rank^(-1/temperature): small takes the largest scores only", curriculum=True
    )


def weights(buffer: buffers.LevelBuffer, hyper: Hyper, iteration: Array) -> Array:
    """Who is replayed, of the levels that were ever solved: ``[N]``."""
    return buffers.replay_weights(buffer, hyper.staleness, hyper.temperature, ground=True)


def recipe(config: _curriculum.BufferConfig, levels: Levels, num_envs: int) -> _curriculum.Recipe:
    """Every environment that learns replays, and as many try new levels of the designer's."""
    return _curriculum.Recipe(
        num_envs,
        num_envs,
        _curriculum.drawn(levels, num_envs),
        weights,
        config.score,
        config.capacity,
        "score",
        ground=True,
        warmup=_curriculum.filling(config, num_envs),
    )


def make(config: Config, spec: Spec) -> Agent:
    return _curriculum.agent(config, spec, functools.partial(recipe, config))

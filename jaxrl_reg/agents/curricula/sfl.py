"""Sampling for Learnability: half of the environments play the levels that are solved about every second time.

In words. New levels of the designer's are scored by ``p (1 - p)``, ``p`` the share of episodes in the rollout that were
solved; those with the largest scores fill a buffer, from which half of the environments draw uniformly. The other half
plays new levels, and all of these are learned from; beside them ``scan`` times as many new levels as there are
environments are only scored. A level leaves the buffer after ``lifetime`` iterations, since what is learnable changes.

Metrics: PPO's; ``curriculum/score`` is the mean learnability, ``curriculum/filled`` the filled share of the buffer.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from jaxrl_reg.agents.curricula import _curriculum
from jaxrl_reg.agents.online import ppo
from jaxrl_reg.data import levels as buffers
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Agent, Array, Levels, Paper, Protocol, Spec, pytree, setting

PAPER = Paper(
    title="No Regrets: Investigating and Improving Regret Approximations for Curriculum Discovery",
    authors="Rutherford, Beukman, Willi, Lacerda, Hawes, Foerster",
    year=2024,
    url="https://arxiv.org/abs/2408.15099",
    deviations="Levels are scored a few at every iteration and forgotten after a while, where the paper scores many "
    "every 50 to 100 updates and fills the buffer anew; scores of replayed levels are renewed.",
)
KIND = "on_policy"
METRICS = ppo.METRICS
PROTOCOL = Protocol(note="Learns in a world with levels.")
defaults = ppo.defaults


@dataclasses.dataclass(frozen=True)
class Config(ppo.Config):
    """PPO's, and how levels are found and kept."""

    capacity: int = setting(default=64, help="slots of the buffer, which holds the most learnable levels", small=8)
    scan: int = setting(default=1, help="how many times the number of environments is scored beside them")
    lifetime: int = setting(default=50, help="iterations after which a level leaves the buffer")


@pytree
class Hyper(ppo.Hyper):
    """PPO's."""


def weights(buffer: buffers.LevelBuffer, hyper: Hyper, iteration: Array) -> Array:
    """All that are neither always nor never solved, alike: ``[N]``."""
    return (buffer.filled & (buffer.score > 0)).astype(jnp.float32)


def make(config: Config, spec: Spec) -> Agent:
    for name in ("scan", "lifetime"):
        if getattr(config, name) < 1:
            raise UserError(f"{name}={getattr(config, name)} must be at least 1")

    def recipe(levels: Levels, num_envs: int) -> _curriculum.Recipe:
        replay = max(num_envs // 2, 1)
        fresh = num_envs - replay + config.scan * num_envs
        return _curriculum.Recipe(
            replay,
            fresh,
            _curriculum.drawn(levels, fresh),
            weights,
            "learnability",
            config.capacity,
            "score",
            ground=True,
            lifetime=config.lifetime,
        )

    return _curriculum.agent(config, spec, recipe)

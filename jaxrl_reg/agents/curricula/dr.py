"""Domain randomisation: proximal policy optimisation on levels of the designer's generator, new ones at every rollout.

In words. Before every rollout each environment gets a level of ``levels.sample`` and stays on it, episode after
episode, until the rollout ends; then the trajectory is PPO's. Nothing is remembered of a level. It is what every
curriculum is compared with: the same learner on levels that nobody chose.

Metrics: PPO's; ``curriculum/score`` is the mean absolute advantage.
"""

from __future__ import annotations

import dataclasses

from jaxrl_reg.agents.curricula import _curriculum
from jaxrl_reg.agents.online import ppo
from jaxrl_reg.types import Agent, Levels, Paper, Protocol, Spec, pytree

PAPER = Paper(
    title="Domain Randomization for Transferring Deep Neural Networks from Simulation to the Real World",
    authors="Tobin, Fong, Ray, Schneider, Zaremba, Abbeel",
    year=2017,
    url="https://arxiv.org/abs/1703.06907",
    deviations="A level is kept for a whole rollout instead of one episode.",
)
KIND = "on_policy"
METRICS = ppo.METRICS
PROTOCOL = Protocol(note="Learns in a world with levels.")
defaults = ppo.defaults


@dataclasses.dataclass(frozen=True)
class Config(ppo.Config):
    """PPO's."""


@pytree
class Hyper(ppo.Hyper):
    """PPO's."""


def make(config: Config, spec: Spec) -> Agent:
    def recipe(levels: Levels, num_envs: int) -> _curriculum.Recipe:
        return _curriculum.Recipe(0, num_envs, _curriculum.drawn(levels, num_envs))

    return _curriculum.agent(config, spec, recipe)

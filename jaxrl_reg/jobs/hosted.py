"""Runs that are judged in an environment on the host: Gymnasium's, between segments of training."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from jaxrl_reg.errors import UserError
from jaxrl_reg.jobs.job import Score
from jaxrl_reg.jobs.settings import COLLECTED, EXPLORED, JobConfig, SweepConfig

if TYPE_CHECKING:
    from jaxrl_reg.envs.adapters.gymnasium import Host
    from jaxrl_reg.types import Agent, Dataset, Run

PREFIX = "gymnasium/"


def asked(config: JobConfig) -> bool:
    """Whether the environment of a config is on the host."""
    return config.env.startswith(PREFIX)


def world_of(config: SweepConfig) -> Host:
    """The environment of a config.

    Raises:
      UserError: for one that cannot be had, or a data set that would have to be collected in it.
    """
    from jaxrl_reg.envs.adapters import gymnasium

    if config.dataset in (*COLLECTED, *EXPLORED):
        raise UserError(
            f"{config.env} runs on the host, where {config.dataset} is not collected: give data of yours (--dataset)"
        )
    if config.backend is not None:
        raise UserError(f"--backend is the physics of a Brax environment, and {config.env} has its own")
    return gymnasium.make(
        config.env.removeprefix(PREFIX),
        observation_keys=config.observation_keys,
        side_by_side=min(config.eval_episodes, gymnasium.SIDE_BY_SIDE),
    )


def judged(agent: Agent, run: Run, world: Host, data: Dataset, episodes: int) -> tuple[Agent, Run]:
    """The run with its judge: an agent that takes goals gets those of the environment, one that only serves rewards
    the reward of the data."""
    from jaxrl_reg.loops import hosted

    goals = agent.zero_shot is not None and world.goals
    labelled = None if goals or agent.zero_shot is None else hosted.own_labels(data)
    judge = hosted.judge(world, hosted.policy_for(agent, labelled), episodes, goals=goals)
    return agent, dataclasses.replace(run, judge=judge)


def score_of(world: Host, returns: Score) -> Score:
    """Success where the environment has tasks and says whether they succeed, else the ``returns``."""
    if world.tasks and world.succeeds:
        return returns._replace(metric="eval/success", name="success rate", references=None)
    return returns


def line_of(world: Host, episodes: int) -> str:
    """What the agents are judged by, in words."""
    tasks = f" of each of {', '.join(world.tasks)}" if world.tasks else ""
    by = "the fraction that succeeds" if world.tasks and world.succeeds else "their mean return"
    return f"judged in {world.name} on the host, by {by} of {episodes} episodes{tasks}"

"""Arms of zero-shot control: trained on one data set without rewards, then given every task of its environment."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.arms import Arm, populations
from experiments.harness import CONFIDENCE
from jaxrl_reg.evaluation import returns
from jaxrl_reg.loops import offline, zero_shot
from jaxrl_reg.types import Agent, Dataset, Env, Metrics, PyTree

SEED = 20_240  # of data and labels
Probe = Callable[[Agent, PyTree], Metrics]


class World(NamedTuple):
    """An environment with tasks, data from it, and labels of some of their states for every task."""

    env: Env
    data: Dataset
    tasks: list[zero_shot.Task]
    labelled: zero_shot.Labelled


def world(env: Env, data: Dataset, say: Callable[[str], None]) -> World:
    """All tasks of ``env`` put to ``data``, which hold its physics."""
    tasks = zero_shot.tasks_of(env)
    labelled = zero_shot.relabel(env, data, tasks, jax.random.key(SEED))
    say(f"in the data {float(labelled.reward.mean()):.3f} of the steps are at the goal of a task")
    return World(env, data, tasks, labelled)


def train(
    arms: Mapping[str, Arm],
    world: World,
    seeds: Sequence[int],
    say: Callable[[str], None],
    *,
    hidden: tuple[int, ...],
    updates: int,
    batch_size: int,
    episodes: int,
    checkpoints: int = 1,
    probe: Probe | None = None,
    keep: pathlib.Path | None = None,
    **settings: float,
) -> dict[str, dict[str, np.ndarray]]:
    """What every arm reaches, in training order: by arm and metric ``[seeds, checkpoints]``, per step of an episode.

    ``return`` is the mean over tasks, ``iqm`` the interquartile mean, and there is one for each task and what ``probe``
    adds. Arms of one agent and configuration train as one population; ``settings`` are hyperparameters of every arm
    that has them. An agent that cannot be given tasks, such as behaviour cloning, is rolled out as it is. A run that
    went NaN reaches nothing. ``keep`` is a folder from which an interrupted training goes on.
    """
    env, tasks = world.env, world.tasks
    steps = env.spec.max_episode_steps
    blind = returns.evaluator(zero_shot.mean_reward(env, tasks), len(tasks) * episodes)
    found: dict[str, dict[str, np.ndarray]] = {}
    for number, group in enumerate(populations(arms, hidden, world.data.spec, settings)):
        run = offline(group.agent, batch_size=batch_size, updates=updates, segments=checkpoints, evaluate=blind)
        if group.agent.zero_shot is not None:
            judge = zero_shot.evaluation(env, group.agent, tasks, world.labelled, episodes)
            run = dataclasses.replace(run, evaluate=_with(probe, judge, group.agent))
        metrics = group.sweep(run, seeds, world.data, say, keep and keep / str(number))
        for row, arm in enumerate(group.arms):
            each = {name[5:]: np.nan_to_num(v[row]) for name, v in metrics.items() if name.startswith("eval/")}
            tasks_of_arm = [each[task.name] for task in tasks if task.name in each] or [each["return"]]
            scores = np.sort(tasks_of_arm, axis=0)
            cut = len(scores) // 4
            each["iqm"] = scores[cut : len(scores) - cut].mean(axis=0)
            paid = {"return", "iqm", *(task.name for task in tasks)}
            found[arm] = {name: v / steps if name in paid else v for name, v in each.items()}
            rest = [
                f", {name} {v[:, -1].mean():.3f}"
                for name, v in each.items()
                if name not in {*paid, "length", "return_std"}
            ]
            say(f"{arm}: {interval(found[arm]['iqm'][:, -1])}{''.join(rest)}")
    return {arm: found[arm] for arm in arms}


def _with(probe: Probe | None, judge: Callable[..., Metrics], agent: Agent) -> Callable[..., Metrics]:
    def evaluate(state: PyTree, index: Any, key: Any, hyper: PyTree) -> Metrics:
        metrics = judge(state, index, key, hyper)
        found = {} if probe is None else probe(agent, state)
        return {**metrics, **{f"eval/{name}": value for name, value in found.items()}}

    return evaluate


def interval(values: np.ndarray) -> str:
    """``mean [low, high]``: Student's interval over seeds."""
    from scipy import stats

    half = stats.t.ppf(0.5 + CONFIDENCE / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return f"{values.mean():.3f} [{values.mean() - half:.3f}, {values.mean() + half:.3f}]"


def fallen(curve: np.ndarray) -> np.ndarray:
    """``[seeds]``: how far the last checkpoint of ``curve [seeds, checkpoints]`` is below the best one."""
    return curve.max(axis=1) - curve[:, -1]

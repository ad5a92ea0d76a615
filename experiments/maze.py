"""Arms of zero-shot control: learn from reward-free exploration of a maze, then be given four tasks.

A ball in four rooms, simulated by MJX, is explored by RND, which looks at no rewards. Every arm trains on that one data
set without rewards. Then, for each of the four corners, 10,000 states of the data are labelled with the reward for
being there, the agent infers the task from them, and its episodes, which begin in any room, are rolled out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from experiments.control import Arm
from jaxrl_reg import agents, envs, population
from jaxrl_reg.evaluation import returns
from jaxrl_reg.loops import offline, zero_shot
from jaxrl_reg.loops.explore import coverage, explore

DATA_SEED = 20_240
SIZES = {  # hidden widths, updates, episodes per task, steps of exploration
    "small": ((64, 64), 6_000, 16, 19_200),
    "full": ((512, 512), 1_000_000, 50, 2_000_000),
}


def success(
    arms: dict[str, Arm], seeds: Sequence[int], scale: str, say: Callable[[str], None], **settings: float
) -> dict[str, list[float]]:
    """Fraction of an episode's steps spent at the goal, mean over the four tasks, for every arm and seed.

    Arms of one agent and configuration train as one population; all see the same data and number of updates.
    ``settings`` are hyperparameters of every arm that has them. An agent that cannot be given tasks, such as behaviour
    cloning, is rolled out as it is.
    """
    hidden, updates, episodes, steps = SIZES[scale]
    env = envs.make("pointmaze")
    exploration = explore("rnd", env, steps=steps, segments=1, hidden=hidden)
    state, _ = jax.jit(exploration.run)(jax.random.key(DATA_SEED), exploration.hyper)
    data = exploration.dataset(state, "pointmaze-rnd")
    say(f"RND: {data.size:,} steps, {coverage(env, data).fraction:.0%} of the cells visited")
    tasks = zero_shot.tasks_of(env)
    labelled = zero_shot.relabel(env, data, tasks, jax.random.key(DATA_SEED))
    say(f"in the data {float(labelled.reward.mean()):.3f} of the steps are at the goal of a task")

    groups: dict[tuple, list[str]] = {}
    for name, arm in arms.items():
        groups.setdefault((arm.agent, arm.config), []).append(name)
    results: dict[str, list[float]] = {}
    for (agent_name, config), members in groups.items():
        module = agents.load(agent_name)
        agent = module.make(module.Config(hidden=hidden, **dict(config)), data.spec)
        known = {field.name for field in dataclasses.fields(module.Hyper)}
        common = {name: value for name, value in settings.items() if name in known}
        hypers = population.stack([dataclasses.replace(module.Hyper(), **{**common, **arms[m].hyper}) for m in members])
        everywhere = returns.evaluator(zero_shot.mean_reward(env, tasks), len(tasks) * episodes)
        run = offline(agent, batch_size=256, updates=updates, evaluate=everywhere)
        if agent.zero_shot is not None:
            judged = zero_shot.evaluation(env, agent, tasks, labelled, episodes)
            run = dataclasses.replace(run, evaluate=judged)
        result = population.sweep(run, seeds=list(seeds), hypers=hypers, data=data)
        say(f"{agent_name} {dict(config) or ''}: {result.plan}; compiled in {result.plan.compile_seconds:.0f} s")
        for row, member in enumerate(members):
            final = result.metrics["eval/return"][row, :, -1] / env.spec.max_episode_steps
            results[member] = np.nan_to_num(final, nan=0.0).tolist()  # a run that went NaN reaches nothing
            say(f"{member}: {final.mean():.3f}")
    return {name: results[name] for name in arms}

"""Arms of zero-shot control: learn from reward-free exploration of a maze, then be given four tasks.

A ball in four rooms, simulated by MJX, is explored by RND, which looks at no rewards. Every arm trains on that one data
set without rewards. Then, for each of the four corners, 10,000 states of the data are labelled with the reward for
being there, the agent infers the task from them, and its episodes, which begin in any room, are rolled out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax

from experiments.control import Arm, populations
from jaxrl_reg import envs
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

    everywhere = returns.evaluator(zero_shot.mean_reward(env, tasks), len(tasks) * episodes)
    results: dict[str, list[float]] = {}
    for group in populations(arms, hidden, data.spec, settings):
        run = offline(group.agent, batch_size=256, updates=updates, evaluate=everywhere)
        if group.agent.zero_shot is not None:
            judged = zero_shot.evaluation(env, group.agent, tasks, labelled, episodes)
            run = dataclasses.replace(run, evaluate=judged)
        results |= group.train(run, seeds, data, env.spec.max_episode_steps, say)
    return {name: results[name] for name in arms}

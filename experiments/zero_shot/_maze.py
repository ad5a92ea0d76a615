"""Arms of zero-shot control: learn from reward-free exploration of a maze, then be given four tasks.

A ball in four rooms, simulated by MJX, is explored by RND, which looks at no rewards. Every arm trains on that one data
set without rewards. Then, for each of the four corners, 10,000 states of the data are labelled with the reward for
being there, the agent infers the task from them, and its episodes, which begin in any room, are rolled out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax

from experiments.arms import Arm
from experiments.zero_shot import _tasks
from jaxrl_reg import envs
from jaxrl_reg.loops.explore import coverage, explore

SIZES = {  # hidden widths, updates, episodes per task, steps of exploration
    "small": ((64, 64), 6_000, 16, 19_200),
    "full": ((512, 512), 1_000_000, 50, 2_000_000),
}


def explored(scale: str, say: Callable[[str], None]) -> _tasks.World:
    """The maze and its exploration by RND, with labels for the four corners."""
    hidden, _, _, steps = SIZES[scale]
    env = envs.make("pointmaze")
    exploration = explore("rnd", env, steps=steps, segments=1, hidden=hidden)
    state, _ = jax.jit(exploration.run)(jax.random.key(_tasks.SEED), exploration.hyper)
    data = exploration.dataset(state, "pointmaze-rnd")
    say(f"RND: {data.size:,} steps, {coverage(env, data).fraction:.0%} of the cells visited")
    return _tasks.world(env, data, say)


def success(
    arms: dict[str, Arm], seeds: Sequence[int], scale: str, say: Callable[[str], None], **settings: float
) -> dict[str, list[float]]:
    """Fraction of an episode's steps spent at the goal, mean over the four tasks, for every arm and seed.

    Arms of one agent and configuration train as one population; all see the same data and number of updates.
    ``settings`` are hyperparameters of every arm that has them. An agent that cannot be given tasks, such as behaviour
    cloning, is rolled out as it is.
    """
    hidden, updates, episodes, _ = SIZES[scale]
    world = explored(scale, say)
    found = _tasks.train(
        arms, world, seeds, say, hidden=hidden, updates=updates, batch_size=256, episodes=episodes, **settings
    )
    return {arm: each["return"][:, -1].tolist() for arm, each in found.items()}

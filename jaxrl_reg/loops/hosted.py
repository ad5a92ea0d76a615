"""Evaluation in an environment on the host: episodes of every member between two segments of training.

Where an environment offers several tasks and tells a goal for each, an agent that takes goals is given it, as OGBench
does (Park et al., "OGBench: Benchmarking Offline Goal-Conditioned RL", arXiv 2410.20092): every task, several episodes
of each, the fraction of them that succeeded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs.adapters.gymnasium import Host
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops.offline import EVALUATE
from jaxrl_reg.loops.zero_shot import SAMPLES, Labelled, serve
from jaxrl_reg.types import Agent, Array, Dataset, Judge, Key, Policy, PyTree, memoryless, policy_of

Goal = Array | None
PolicyFor = Callable[[PyTree, PyTree, Goal], Policy]  # state, hyper, goal [O] or None


def policy_for(agent: Agent, labelled: Labelled | None = None) -> PolicyFor:
    """How an agent acts in an episode with this goal, or without one.

    An agent that serves tasks takes the goal; without a goal, the task that the first reward of ``labelled`` asks for.
    """

    def policy(state: PyTree, hyper: PyTree, goal: Goal) -> Policy:
        served = agent.zero_shot
        if served is None or (goal is None and labelled is None):
            return policy_of(agent, state, hyper)
        if goal is None:
            assert labelled is not None
            return serve(agent, state, labelled)(jnp.int32(0))
        z, act = served.goal_z(state, goal), served.act
        if served.policy is not None:
            return served.policy(state, z)
        return memoryless(lambda observation, key: act(state, observation, z, key))

    return policy


def own_labels(data: Dataset, samples: int = SAMPLES) -> Labelled:
    """Evenly spaced rows of the data with the reward that they hold, for agents that infer their task from rewards."""
    rows = np.linspace(0, data.size - 1, min(samples, data.size)).astype(int)
    return Labelled(data.next_observation[rows], data.reward[rows][None])


def judge(world: Host, policy: PolicyFor, episodes: int, *, goals: bool = False) -> Judge:
    """``Run.judge``: ``episodes`` episodes per member, of every task where the environment offers several.

    Metrics: ``eval/return`` (undiscounted) and ``eval/length``, means over all episodes, ``eval/return_std`` over a
    task's episodes (a mean over tasks), ``eval/success``, the fraction that had succeeded when they ended, where the
    environment says so, and ``eval/<task>`` for each task, its success, or its return where nobody says.

    Args:
      policy: from :func:`policy_for`.
      goals: whether the policy is given the goal of each episode.

    Raises:
      UserError: for fewer than one episode, or a policy that wants goals where the environment tells none.
    """
    if episodes < 1:
        raise UserError(f"episodes={episodes} must be at least 1")
    if goals and not world.goals:
        raise UserError(f"{world.name} tells no goal that is an observation, so there is none to give to the agent")
    told = "success" if world.succeeds else "return"
    names = ["return", "return_std", "length", *(["success"] if world.succeeds else ()), *world.tasks]
    begin, advance = _compiled(policy)

    def one(state: PyTree, key: Key, hyper: PyTree) -> dict[str, float]:
        found = []
        for task in range(1, len(world.tasks) + 1) if world.tasks else [None]:
            seed_key, act_key = jax.random.split(key if task is None else jax.random.fold_in(key, task))
            seeds = np.asarray(jax.random.randint(seed_key, (episodes,), 0, np.iinfo(np.int32).max))
            actor = _actor(begin, advance, state, hyper, jax.random.split(act_key, episodes), goals)
            found.append(world.episodes(actor, seeds.tolist(), task))
        values = {name: float(np.mean([each[name] for each in found])) for name in ("return", "length")}
        values["return_std"] = float(np.mean([each["return"].std() for each in found]))
        if world.succeeds:
            values["success"] = float(np.mean([each["success"] for each in found]))
        return values | {task: float(each[told].mean()) for task, each in zip(world.tasks, found, strict=False)}

    def measure(states: PyTree, index: int, keys: Array, hypers: PyTree) -> dict[str, np.ndarray]:
        rows = []
        for member in range(keys.shape[0]):
            state, hyper = jax.device_put(jax.tree.map(lambda leaf, m=member: leaf[m], (states, hypers)))
            rows.append(one(state, jax.random.fold_in(jax.random.fold_in(keys[member], EVALUATE), index), hyper))
        return {f"eval/{name}": np.array([row[name] for row in rows], np.float32) for name in names}

    return Judge(tuple(f"eval/{name}" for name in names), measure)


def _compiled(policy: PolicyFor) -> tuple[Callable[..., PyTree], Callable[..., tuple[Array, PyTree]]]:
    """``begin(state, hyper, goal) -> memory`` and ``advance(...) -> (action, memory)`` of episodes side by side."""

    @jax.jit
    def begin(state: PyTree, hyper: PyTree, goal: Goal, episode: Array) -> PyTree:
        return jax.vmap(lambda _, goal: policy(state, hyper, goal).start(()))(episode, goal)

    @jax.jit
    def advance(
        state: PyTree,
        hyper: PyTree,
        goal: Goal,
        memory: PyTree,
        observation: Array,
        reward: Array,
        keys: Key,
        episode: Array,
        step: Array,
    ) -> tuple[Array, PyTree]:
        def one(goal, memory, observation, reward, key, step):
            acting = policy(state, hyper, goal)
            memory = jax.tree.map(lambda start, now: jnp.where(step == 0, start, now), acting.start(()), memory)
            return acting.step(memory, observation, reward, jax.random.fold_in(key, step))

        return jax.vmap(one)(goal, memory, observation, reward, keys[episode], step)

    return begin, advance


def _actor(
    begin: Callable[..., PyTree], advance: Callable[..., Any], state: PyTree, hyper: PyTree, keys: Key, goals: bool
) -> Callable[..., np.ndarray]:
    """An ``Actor`` for ``Host.episodes``; it keeps what each episode remembers."""
    memory: list[PyTree] = []

    def act(
        observation: np.ndarray, reward: np.ndarray, goal: Any, episode: np.ndarray, step: np.ndarray
    ) -> np.ndarray:
        aim = goal if goals else None
        if not memory:
            memory.append(begin(state, hyper, aim, episode))
        action, memory[0] = advance(
            state, hyper, aim, memory[0], observation, np.float32(reward), keys, episode, np.int32(step)
        )
        return np.asarray(action)

    return act

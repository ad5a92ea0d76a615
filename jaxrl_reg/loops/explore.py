"""Collection without a task: an agent follows rewards of its own making, and everything it saw is kept.

Rows hold the simulator's state in ``extras["physics"]``, so that any task can be put to the data afterwards; ``reward``
is what the environment paid for its own task, which no explorer looked at.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import agents, data
from jaxrl_reg.envs import with_skills
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.loops.online import OnlineState, online
from jaxrl_reg.loops.rollout import uniform_actions
from jaxrl_reg.types import Agent, Array, Dataset, Env, EnvState, Key, Metrics, PyTree, Run, Spec, Transition, pytree

BEHAVIORS = ("random", "rnd", "diayn")
SKILLS = 16
CELLS = 20  # per side of the grid in which coverage is counted


@pytree
class NoHyper:
    """The settings of an agent that has none; ``nothing`` gives a population its axis."""

    nothing: float = 0.0


def random_agent(spec: Spec) -> Agent:
    """An agent that draws every action uniformly from [-1, 1] and learns nothing."""
    uniform = uniform_actions(spec.action_dim)

    def init(key: Key, hyper: PyTree) -> tuple[()]:
        return ()

    def update(state: PyTree, batch: Transition, hyper: PyTree, key: Key, step: Array) -> tuple[PyTree, Metrics]:
        return state, {}

    def act(state: PyTree, observation: Array, hyper: PyTree, key: Key, explore: bool) -> Array:
        return uniform(observation, key)

    return Agent(init, update, act)


@dataclasses.dataclass(frozen=True, eq=False)
class Exploration:
    """``run(key, hyper) -> (state, history)`` explores, ``dataset(state)`` is what it saw, on the host."""

    run: Run
    hyper: PyTree
    env: Env
    behavior: str
    num_envs: int

    def dataset(self, state: OnlineState, name: str) -> Dataset:
        """Everything seen, environment after environment, episodes in order of time; without the skills in it."""
        rows = jax.tree.map(
            lambda leaf: np.asarray(leaf).reshape(-1, self.num_envs, *leaf.shape[1:]), state.replay.rows
        )
        size = self.env.spec.observation_dim
        observations = {field: getattr(rows, field)[..., :size] for field in ("observation", "next_observation")}
        return data.from_transitions(dataclasses.replace(rows, **observations), name=name)


def explore(
    behavior: str,
    env: Env,
    *,
    steps: int,
    num_envs: int = 16,
    segments: int = 20,
    updates: int = 4,
    batch_size: int = 256,
    warmup: int | None = None,
    skills: int = SKILLS,
    hidden: tuple[int, ...] | None = None,
) -> Exploration:
    """Explore ``env`` without looking at its rewards.

    Args:
      behavior: ``random`` (uniform actions), ``rnd`` (what is new) or ``diayn`` (skills that can be told apart).
      env: a single environment.
      steps: environment steps in all, ``warmup`` not counted.
      num_envs, segments, updates, batch_size: as in ``loops.online``.
      warmup: steps with random actions first; by default a hundredth of ``steps``.
      skills: how many ``diayn`` has; the one at work is kept in ``extras["skill"]``, one-hot.
      hidden: widths of the exploring agent's layers; its own by default.

    Raises:
      UserError: for an unknown behaviour, or numbers that do not divide (see ``loops.online``).
    """
    if behavior not in BEHAVIORS:
        raise unknown("behavior", behavior, BEHAVIORS)
    world = with_skills(env, skills) if behavior == "diayn" else env
    if behavior == "random":
        agent, hyper, warmup = random_agent(env.spec), NoHyper(), 0
    else:
        module = agents.load(behavior)
        config: dict[str, Any] = {} if hidden is None else {"hidden": hidden}
        if behavior == "diayn":
            config["skills"] = skills
        agent, hyper = module.make(module.Config(**config), world.spec), module.Hyper()

    def extras(state: EnvState) -> dict[str, Array]:
        kept = {} if env.tasks is None else {"physics": env.tasks.physics(state)}
        if behavior == "diayn":
            kept["skill"] = state.observation[..., env.spec.observation_dim :]
        return kept

    run = online(
        agent,
        world,
        steps=steps,
        num_envs=num_envs,
        segments=segments,
        updates=updates if behavior != "random" else 1,
        batch_size=batch_size,
        warmup=steps // 100 if warmup is None else warmup,
        kind="off_policy",
        extras=extras,
    )
    return Exploration(run, hyper, env, behavior, num_envs)


class Coverage(NamedTuple):
    """How often each cell of the environment's map was visited: ``counts [CELLS, CELLS]``, first axis first."""

    counts: np.ndarray

    @property
    def fraction(self) -> float:
        """Visited cells of all."""
        return float((self.counts > 0).mean())


def coverage(env: Env, dataset: Dataset) -> Coverage:
    """Where the data have been, on a grid over ``env.tasks.extent``; what lies outside is not counted.

    Raises ``UserError`` for an environment without tasks, or data without physics.
    """
    if env.tasks is None or "physics" not in dataset.extras:
        raise UserError(f"{dataset.name}: coverage needs an environment with tasks and the physics in the data")
    place = np.asarray(env.tasks.place(jnp.asarray(dataset.extras["physics"])))
    counts, _, _ = np.histogram2d(place[:, 0], place[:, 1], bins=CELLS, range=env.tasks.extent)
    return Coverage(counts)

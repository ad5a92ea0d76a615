"""Arms of offline control on a task whose data punish extrapolation; shared by the experiments on offline agents.

A point moves by half its action, but its motor stalls when asked for more than 0.6; the data hold uniform positions
and actions of length at most 0.45, so every learnt value extrapolates "larger is better", wrongly. Behaviour cloning
averages the data's actions and stays where it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import agents, data, envs, population
from jaxrl_reg.evaluation import returns
from jaxrl_reg.loops import offline
from jaxrl_reg.types import Agent, Dataset, Run, Spec

LARGEST_ACTION = 0.45
EPISODE = 30
SIZES = {  # hidden widths, updates, evaluation episodes, rows of data
    "small": ((64, 64), 6_000, 64, 20_000),
    "full": ((256, 256), 100_000, 256, 200_000),
}


@dataclasses.dataclass(frozen=True)
class Arm:
    """One line of the comparison: an agent, static settings, hyperparameters that differ from its defaults."""

    agent: str
    hyper: dict[str, float] = dataclasses.field(default_factory=dict)
    config: tuple[tuple[str, Any], ...] = ()


def behaviour(key: jax.Array, rows: int) -> Dataset:
    """Episodes of uniform starts and actions uniform in the disc of radius 0.45; nothing terminates."""
    env = envs.make("pointnav", task="top_right", episode_length=EPISODE)
    episodes = rows // EPISODE

    def episode(key):
        reset_key, action_key = jax.random.split(key)
        direction = jax.random.normal(action_key, (EPISODE, 2))
        length = LARGEST_ACTION * jnp.sqrt(jax.random.uniform(jax.random.fold_in(action_key, 1), (EPISODE, 1)))
        actions = direction / jnp.linalg.norm(direction, axis=-1, keepdims=True) * length

        def step(state, action):
            following = env.step(state, action)
            return following, (state.observation, action, following)

        return jax.lax.scan(step, env.reset(reset_key), actions)[1]

    observation, action, following = jax.jit(jax.vmap(episode))(jax.random.split(key, episodes))

    def flat(x):
        return np.asarray(x).reshape(episodes * EPISODE, *x.shape[2:])

    return data.from_arrays(
        flat(observation),
        flat(action),
        flat(following.reward),
        flat(following.terminated),
        flat(following.truncated),
        flat(following.final_observation),
        name="pointnav",
    )


class Population(NamedTuple):
    """Arms of one agent and configuration, which train as one program; leaves of ``hypers`` are ``[arms]``."""

    label: str
    arms: list[str]
    agent: Agent
    hypers: Any

    def sweep(
        self, run: Run, seeds: Sequence[int], dataset: Dataset, say: Callable[[str], None]
    ) -> dict[str, np.ndarray]:
        """All metrics of ``run``, ``[arms, seeds, segments]``."""
        result = population.sweep(run, seeds=list(seeds), hypers=self.hypers, data=dataset)
        say(f"{self.label}: {result.plan}; compiled in {result.plan.compile_seconds:.0f} s")
        return result.metrics

    def train(
        self, run: Run, seeds: Sequence[int], dataset: Dataset, steps: int, say: Callable[[str], None]
    ) -> dict[str, list[float]]:
        """Each arm's last ``eval/return`` for every seed, per step of an episode of ``steps``."""
        metrics, results = self.sweep(run, seeds, dataset, say), {}
        for row, arm in enumerate(self.arms):
            final = metrics["eval/return"][row, :, -1] / steps
            results[arm] = np.nan_to_num(final, nan=0.0).tolist()  # a run that went NaN reaches nothing
            say(f"{arm}: {np.mean(results[arm]):.3f}")
        return results


def populations(
    arms: Mapping[str, Arm], hidden: tuple[int, ...], spec: Spec, settings: Mapping[str, float]
) -> Iterator[Population]:
    """The arms, those of one agent and configuration together. ``settings`` are hyperparameters of every arm that has
    them; an arm's own go before."""
    groups: dict[tuple, list[str]] = {}
    for name, arm in arms.items():
        groups.setdefault((arm.agent, arm.config), []).append(name)
    for (agent_name, config), members in groups.items():
        module = agents.load(agent_name)
        known = {field.name for field in dataclasses.fields(module.Hyper)}
        common = {name: value for name, value in settings.items() if name in known}
        hypers = population.stack([dataclasses.replace(module.Hyper(), **{**common, **arms[m].hyper}) for m in members])
        agent = module.make(module.Config(hidden=hidden, **dict(config)), spec)
        yield Population(f"{agent_name} {dict(config) or ''}", members, agent, hypers)


def success(
    arms: dict[str, Arm], seeds: Sequence[int], scale: str, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Fraction of an episode's steps spent at the goal, after the last update, for every arm and seed.

    Arms of one agent and configuration train as one population; all arms see the same data and budget.
    """
    hidden, updates, episodes, rows = SIZES[scale]
    dataset = behaviour(jax.random.key(20_240), rows)
    env = envs.make("pointnav", task="top_right", episode_length=EPISODE)
    say(f"behaviour: {float(np.mean(data.episode_returns(dataset))) / EPISODE:.3f} of the steps at the goal")
    results: dict[str, list[float]] = {}
    for group in populations(arms, hidden, dataset.spec, {"discount": 0.9}):
        evaluate = returns.evaluator(env, episodes)
        run = offline(group.agent, batch_size=128, updates=updates, segments=2, evaluate=evaluate)
        results |= group.train(run, seeds, dataset, EPISODE, say)
    return {name: results[name] for name in arms}

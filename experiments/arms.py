"""Arms of a comparison: agents with their settings; those of one agent and configuration train as one population."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import agents, population
from jaxrl_reg.population import placement
from jaxrl_reg.types import Agent, Dataset, PyTree, Run, Spec


@dataclasses.dataclass(frozen=True)
class Arm:
    """One line of the comparison: an agent, static settings, hyperparameters that differ from its defaults."""

    agent: str
    hyper: dict[str, float] = dataclasses.field(default_factory=dict)
    config: tuple[tuple[str, Any], ...] = ()


class Population(NamedTuple):
    """Arms of one agent and configuration, which train as one program; leaves of ``hypers`` are ``[arms]``."""

    label: str
    arms: list[str]
    agent: Agent
    hypers: Any

    def sweep(
        self,
        run: Run,
        seeds: Sequence[int],
        dataset: Dataset,
        say: Callable[[str], None],
        keep: pathlib.Path | None = None,
    ) -> dict[str, np.ndarray]:
        """All metrics of ``run``, ``[arms, seeds, segments]``. With ``keep``, what takes hours is kept in that folder
        after every segment, and goes on from there when it is run again."""
        result = population.sweep(
            run,
            seeds=list(seeds),
            hypers=self.hypers,
            data=dataset,
            directory=keep,
            resume=keep is not None and keep.exists(),
            on_segment=None if keep is None else lambda at: print(f"{self.label}: {at.segment} of {at.segments} parts"),
        )
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


def over_devices(function: Callable[[PyTree], PyTree], members: PyTree) -> PyTree:
    """``function`` of every member, leaves ``[members, ...]`` in and out: one after the other on each device.

    ``function`` must not reach LAPACK (``linalg``), where two devices at once may wait for each other for ever.
    """
    devices, count = jax.local_devices(), len(jax.tree.leaves(members)[0])
    rows = jnp.arange(placement.padded(count, len(devices), 1)) % count
    padded = placement.place(jax.tree.map(lambda leaf: leaf[rows], members), devices)
    mapped = jax.jit(placement.over_members(lambda member, _: function(member), 1, devices))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], mapped(padded, ()))

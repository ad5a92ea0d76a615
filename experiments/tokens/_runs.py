"""Populations of token agents, shared by the experiments on them: arms and seeds train as one program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.arms import over_devices
from jaxrl_reg import population
from jaxrl_reg.loops.rlvr import rlvr
from jaxrl_reg.population.results import Result
from jaxrl_reg.types import Agent, PyTree, TokenTask, as_float32


def sweep(
    agent: ModuleType,
    task: TokenTask,
    arms: Mapping[str, Mapping[str, float]],
    seeds: Sequence[int],
    say: Callable[[str], None],
    config: Mapping[str, Any],
    hyper: Mapping[str, float],
    **sizes: Any,
) -> tuple[Agent, Result]:
    """The agent, and its sweep over ``arms``, hyperparameters that differ from ``hyper``, and seeds.

    All arms of a seed begin with one warm start, which is made once. ``sizes`` are those of ``rlvr``.
    """
    made = agent.make(agent.Config(**config), task.spec)
    run, common = rlvr(made, task, **sizes), dataclasses.replace(agent.Hyper(), **hyper)
    warm = over_devices(lambda seed: run.init(jax.random.key(seed), as_float32(common)), jnp.asarray(seeds, jnp.uint32))
    start = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(arms), *leaf.shape)), warm)

    def begun(key: jax.Array, hyper: PyTree, start: PyTree = None) -> PyTree:
        first = made.init(key, hyper)
        return first if start is None else start._replace(kept=first.kept)  # which may depend on what is swept

    hypers = population.stack([dataclasses.replace(common, **own) for own in arms.values()])
    result = population.sweep(dataclasses.replace(run, init=begun), seeds=list(seeds), hypers=hypers, start=start)
    say(f"{result.plan}; compiled in {result.plan.compile_seconds:.0f} s")
    return made, result


def distinct(agent: Agent, task: TokenTask, result: Result, prompts: int = 8, samples: int = 64) -> np.ndarray:
    """How many different right answers there are among ``samples`` of a prompt, ``[arms, seeds]``, mean of some."""
    earlier = np.tril(np.ones((samples, samples), bool), -1)

    def one(member: tuple[PyTree, PyTree, jax.Array]) -> jax.Array:
        state, hyper, seed = member
        draw_key, act_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 0xD157))
        prompt = jax.vmap(task.draw)(jax.random.split(draw_key, prompts))
        found = agent.act(state, jnp.repeat(prompt, samples, axis=0), hyper, act_key, True)
        found = found.reshape(prompts, samples, -1)
        right = jax.vmap(jax.vmap(task.verify, (None, 0)))(prompt, found) > 0
        alike = (found[:, :, None] == found[:, None]).all(-1)
        return (right & ~(alike & earlier).any(-1)).sum(-1).mean()

    shape = (len(jax.tree.leaves(result.hypers)[0]), len(result.seeds))
    flat = jax.tree.map(lambda leaf: jnp.asarray(leaf).reshape(-1, *leaf.shape[2:]), result.state)
    hypers = jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf, jnp.float32), shape[1]), result.hypers)
    seeds = jnp.tile(jnp.asarray(result.seeds, jnp.uint32), shape[0])
    return over_devices(one, (flat, hypers, seeds)).reshape(shape)


def last(result: Result, name: str, segments: int) -> np.ndarray:
    """Mean of a metric over the last ``segments``, ``[arms, seeds]``."""
    return np.asarray(result.metrics[name])[:, :, -segments:].mean(-1)

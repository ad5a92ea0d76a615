"""Online agents on a body with physics, with the settings that were published for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxrl_reg import loops, population
from jaxrl_reg.evaluation import returns
from jaxrl_reg.types import Env

EPISODES = 16  # of each evaluation


def curves(
    module: Any,
    env: Env,
    seeds: Sequence[int],
    say: Callable[[str], None],
    *,
    config: dict[str, Any],
    hyper: dict[str, float],
    **loop: Any,
) -> np.ndarray:
    """Mean return of whole episodes ``[seeds, segments]`` after each part of training, exploration left out.

    ``config`` and ``hyper`` are what differs from the agent's defaults, ``loop`` goes to ``loops.online``.
    """
    agent = module.make(module.Config(**config), env.spec)
    run = loops.online(agent, env, evaluate=returns.evaluator(env, episodes=EPISODES), **loop)
    hypers = population.stack([dataclasses.replace(module.Hyper(), **hyper)])
    result = population.sweep(run, seeds=list(seeds), hypers=hypers, data=None)
    found = np.nan_to_num(result.metrics["eval/return"][0])
    name, part = module.__name__.rsplit(".", 1)[-1], loop["steps"] // loop["segments"]
    say(f"{name}: {result.plan}; compiled in {result.plan.compile_seconds:.0f} s")
    for t, row in enumerate(found.T, start=1):
        say(f"{name}: after {t * part:>9,} steps {row.mean():6.1f}, worst seed {row.min():6.1f}")
    return found

"""The kinds of runs, one module each, found by their file name.

A kind has ``WORDS`` for it, ``PRESETS`` for the help texts (by scale), ``Config``, a frozen dataclass over
``settings.JobConfig`` whose ``kind`` is the module's name,
``make(config) -> Job``, which says all that is wrong before anything is written, and ``reopen(config, facts) -> Job``
for what is done with a finished run: it needs no data set where the checkpoints suffice. A kind whose agents are more
than ``learners(config.agent, config)`` makes has ``programs(config) -> [Learner]``, for policies that leave its runs.
"""

from __future__ import annotations

import importlib
import pathlib
from types import ModuleType

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.jobs.settings import JobConfig

OFFLINE = "offline"  # of run directories that do not say their kind
TOKENS = "tokens"


def names() -> list[str]:
    """Every kind: every public module of this folder."""
    return sorted(file.stem for file in pathlib.Path(__path__[0]).glob("[!_]*.py"))


def load(name: str) -> ModuleType:
    """The module of a kind.

    Raises:
      UserError: for an unknown one.
    """
    if name not in names():
        raise unknown("kind of run", name, names())
    return importlib.import_module(f"{__name__}.{name}")


def of(config: JobConfig) -> ModuleType:
    """The module of the kind that a config belongs to."""
    return load(config.kind)


def kind_of(agent: str, *, dataset: bool = False) -> str:
    """The kind of run that an agent asks for: training in the environment, unless it learns from data.

    Args:
      agent: name or import path.
      dataset: whether a data set was named; an off-policy agent is trained on it.

    Raises:
      UserError: for an unknown agent, or one that learns from its own fresh experience, with a data set.
    """
    from jaxrl_reg import agents

    learns = agents.load(agent).KIND
    if learns in ("on_policy", TOKENS) and dataset:
        raise UserError(f"agent {agent!r} learns from its own fresh experience and cannot be trained on a data set")
    if learns == TOKENS:
        return TOKENS
    return "online" if learns == "on_policy" or (learns == "off_policy" and not dataset) else OFFLINE


def announce(config: JobConfig) -> list[str]:
    """What is said of a run of an off-policy agent, which can mean two things."""
    from jaxrl_reg import agents

    if agents.load(config.agent).KIND != "off_policy":
        return []
    if config.kind == OFFLINE:
        return [f"{config.agent} is trained on a data set, as --dataset asks; without it, it would act in {config.env}"]
    return [f"{config.agent} is trained in {config.env}, online; name a --dataset to train it on data instead"]

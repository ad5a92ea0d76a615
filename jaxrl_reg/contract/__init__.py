"""The contract suite: run it on your own agent, ``check_agent("my_package.my_agent")``.

Also ``python -m jaxrl_reg.contract my_package.my_agent``. An agent that passes can be swept over seeds and
hyperparameters in one compilation, checkpointed and resumed, by every loop of this package. Each rule is a function of
``jaxrl_reg.contract.checks``; docs/contract.md tells what it looks at.
"""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any, NamedTuple

from jaxrl_reg.contract.checks import CHECKS
from jaxrl_reg.contract.subject import Broken, Subject, first_line, where
from jaxrl_reg.data.samplers import Sampler
from jaxrl_reg.errors import unknown
from jaxrl_reg.types import Dataset

__all__ = ["CHECKS", "Broken", "Result", "Subject", "check_agent", "run_check"]


class Result(NamedTuple):
    """Outcome of one check; ``message`` is empty where it passed, else one line: what is wrong and what to do."""

    check: str
    passed: bool
    message: str
    seconds: float


def run_check(subject: Subject, name: str) -> Result:
    """One check, after those that it needs; outcomes are kept in ``subject.results``."""
    if name in subject.results:
        return subject.results[name]
    needed = [run_check(subject, need) for need in CHECKS[name].needs]
    broken = next((result for result in needed if not result.passed), None)
    begun, message = time.perf_counter(), ""
    if broken is not None:
        message = f"not run, because {broken.check!r} fails: {broken.message}"
    else:
        try:
            CHECKS[name].run(subject)
        except Broken as error:
            message = str(error)
        except Exception as error:  # the agent's own; every kind of it is a broken contract
            message = f"{type(error).__name__}{where(error, subject.module)}: {first_line(error)}"
    subject.results[name] = Result(name, not message, message, time.perf_counter() - begun)
    return subject.results[name]


def check_agent(
    agent: ModuleType | str,
    *,
    checks: list[str] | None = None,
    config: dict[str, Any] | None = None,
    data: Dataset | None = None,
    sample: Sampler | None = None,
) -> list[Result]:
    """Run the contract suite on an agent module.

    Args:
      agent: the module, its import path, or a name of ``agents.names()``.
      checks: which, all by default; those that they need run as well, but are not returned.
      config: settings of its ``Config``; without it the defaults, with hidden layers of width 8.
      data: rows to learn from, a small ``Dataset`` (64 rows or so), for an agent that needs more than random
        transitions with 3 observations and 2 actions.
      sample: ``fn(data, key, batch_size) -> batch``, if the agent's batches are not transitions drawn uniformly
        (or, on-policy, trajectories ``[T, E]``).

    Returns:
      One ``Result`` per check, in order.

    Raises:
      UserError: for an unknown agent, check or setting, or a module that is not an agent.
    """
    for name in checks or ():
        if name not in CHECKS:
            raise unknown("check", name, CHECKS)
    subject = Subject(agent, config, data, sample)
    return [run_check(subject, name) for name in checks or CHECKS]

"""Which sensors set the members of a run off: ``evaluate RUN --triggers``."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrl_reg.errors import UserError, need
from jaxrl_reg.io.files import write_parquet
from jaxrl_reg.jobs.progress import OnTick, Say, silent
from jaxrl_reg.jobs.watching import swept, watched, world_job

if TYPE_CHECKING:
    import pandas as pd

    from jaxrl_reg.types import Key, Policy

TRIGGER_STREAM = 13
EPISODES = 16


class Candidate(NamedTuple):
    """A column of the observation and the values that switch it; NaN: values that the policy often sees."""

    column: int
    on: float = math.nan
    off: float = math.nan

    @property
    def label(self) -> str:
        return f"sensor {self.column}" + ("" if math.isnan(self.on) else f": {self.on:g} or {self.off:g}")


def triggers(
    directory: str | pathlib.Path,
    candidates: Sequence[str] = (),
    episodes: int | None = None,
    *,
    say: Say = silent,
    on_tick: OnTick = silent,
) -> pd.DataFrame:
    """How much each candidate sensor, switched on and off in the same observations, changes what members do.

    A trigger stands out from the other candidates: give some that should do nothing among them. Rows of every member go
    to ``triggers.parquet``, and the report is written again with them. Effects are distances between actions, or shares
    of states in which another choice is made.

    Args:
      directory: a run directory.
      candidates: ``COLUMN=ON,OFF`` in the units of the observation; none: every column, between its 95% and 5% quantile
        over the states that a member visits.
      episodes: per member; 16 by default.

    Returns:
      One row per policy and candidate, largest effect first: mean over seeds with its 95% interval. Then the largest
      minus the second largest effect, and the distance between actions in two visited states, for comparison.

    Raises:
      UserError: a candidate is not understood or there are fewer than two; the directory holds no run or no checkpoint,
        or its world cannot be compiled.
    """
    need("pandas")
    import jax.numpy as jnp
    import pandas as pd

    from jaxrl_reg.evaluation import report as reporting
    from jaxrl_reg.evaluation.report.conduct import SCORE, UNRELATED
    from jaxrl_reg.evaluation.self_report import scanner

    path = pathlib.Path(directory)
    config, job = world_job(path)
    episodes = EPISODES if episodes is None else episodes
    world: Any = job.world
    asked = understood(candidates, world.spec.observation_dim)
    columns, on, off = (jnp.array(part) for part in zip(*asked, strict=True))
    scan = scanner(world, episodes, world.spec.max_episode_steps, columns, on, off)
    labels = [one.label for one in asked]

    def observe(policy: Policy, key: Key) -> dict[str, Any]:
        effect, score, unrelated = scan(policy, key)
        return {**{name: effect[i] for i, name in enumerate(labels)}, SCORE: score, UNRELATED: unrelated}

    ways = f"{episodes} episodes each, {len(asked)} sensors switched"
    frame = pd.DataFrame(watched(path, config, job, observe, TRIGGER_STREAM, episodes, "triggers", ways, say, on_tick))
    write_parquet(path / "triggers.parquet", frame)
    reporting.write(path)
    return reporting.triggers_table(frame, config.agent, swept(path))


def understood(candidates: Sequence[str], size: int) -> list[Candidate]:
    """``["3=1,0", "4=0.5,-0.5"]`` for observations ``[size]``; every column if there are none.

    Raises:
      UserError: one cannot be read, names no column or one twice, or there are fewer than two.
    """
    found = [_understood(text, size) for text in candidates] or [Candidate(column) for column in range(size)]
    if len(found) < 2:
        raise UserError("a scan compares sensors; give at least two, one that should do nothing among them")
    for number, one in enumerate(found):
        if one in found[:number]:
            raise UserError(f"{candidates[number]!r} is given twice")
    return found


def _understood(text: str, size: int) -> Candidate:
    column, _, values = text.partition("=")
    try:
        number = int(column)
        on, off = (float(value) for value in values.split(",")) if values else (math.nan, math.nan)
    except ValueError:
        raise UserError(f"{text!r} is not a column with its two values; write COLUMN=ON,OFF, such as 3=1,0") from None
    if not 0 <= number < size:
        raise UserError(f"{text!r}: there is no column {number}; an observation has columns 0 to {size - 1}")
    if values and not (math.isfinite(on) and math.isfinite(off) and on != off):
        raise UserError(f"{text!r}: ON and OFF must be two different numbers")
    return Candidate(number, on, off)

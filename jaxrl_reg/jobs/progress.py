"""What a job tells on its way: lines, ticks with the standing of its members, rows of metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Standing(NamedTuple):
    """How one member stands after its latest evaluation."""

    label: str  # what is swept, as it has it
    seed: int
    updates: int  # or whatever the axis of the run counts
    score: float
    state: str = ""  # diverged, stopped or waiting (for its promotion)


class Tick(NamedTuple):
    """How far a long stage is. ``per_second`` counts updates (or environment steps) of all members together."""

    stage: str
    done: int
    total: int
    per_second: float
    eta_seconds: float
    score: float | None = None  # mean over seeds, of the best setting
    unit: str = "updates"
    score_name: str = "score"
    members: Sequence[Standing] = ()  # best first, those that have failed or were stopped last


Say = Callable[[str], None]
OnTick = Callable[[Tick], None]


def silent(_: Any) -> None:
    """Tells nobody."""
    return None

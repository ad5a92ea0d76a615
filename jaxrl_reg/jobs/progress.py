"""What a job tells on its way: lines, ticks with the standing of its members, rows of metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    pass


class Standing(NamedTuple):
    """How one member stands after its latest evaluation."""

    label: str  # what is swept, as it has it
    seed: int
    updates: int
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


def score_name(facts: Mapping[str, Any]) -> str:
    """The column that the report judges: the normalised score where the data set has its two references."""
    return "eval/score" if facts.get("dataset", {}).get("normalised") else "eval/return"


def with_score(metrics: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics with ``eval/score`` beside ``eval/return`` where it can be computed."""
    from jaxrl_reg.data import normalised

    metrics = dict(metrics)
    about = facts["dataset"]
    if about["normalised"] and "eval/return" in metrics:
        metrics["eval/score"] = normalised(metrics["eval/return"], about["score_random"], about["score_expert"])
    return metrics

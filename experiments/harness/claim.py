"""What an experiment must show, stated before anything runs."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Claim:
    """What must come out, stated before anything runs. ``margin`` is in the metric's unit.

    The claim holds if, for every baseline and for the ablation, the confidence interval of the paired difference
    (method minus rival over the same seeds; reversed if lower is better) lies above ``margin``. ``ablation`` is None
    where a baseline is the method without what is claimed.

    ``seeds`` is what a run uses, enough for a power of 0.95, and ``chosen`` says in a line from which values that was
    computed. ``revision`` is raised when arms, settings or the metric change: values of earlier revisions are kept but
    say nothing about this one's power. ``note`` says in a line why the claim fails or has no record, where that is so.
    """

    statement: str
    paper: str
    method: str
    baselines: tuple[str, ...]
    ablation: str | None
    metric: str
    systems: tuple[int, ...] = ()  # rows of the table of systems that this is evidence for
    higher_is_better: bool = True
    margin: float = 0.0
    seeds: int = 5
    chosen: str = ""
    revision: int = 1
    note: str = ""

    @property
    def rivals(self) -> tuple[str, ...]:
        return self.baselines if self.ablation is None else (*self.baselines, self.ablation)


def restored(stored: dict[str, Any]) -> Claim:
    """The claim of ``dataclasses.asdict`` or of a JSON file, where tuples have become lists."""
    return Claim(**{name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()})


def same_question(one: Claim, other: Claim) -> bool:
    """Whether values of one claim answer the other: the same arms, metric and revision. Margins may differ."""
    fields = ("method", "rivals", "metric", "higher_is_better", "revision")
    return all(getattr(one, field) == getattr(other, field) for field in fields)

"""By what a run is judged and along what it goes, as its ``summary.json`` says: nothing here knows a kind of run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

BASELINE = "bc"  # of runs from before a run said its own


class Judged(NamedTuple):
    """``metric`` is the column of ``metrics.parquet`` that is judged, None where nothing was rolled out, ``score`` its
    name in words; ``column`` counts the way along ``axis``; ``baseline`` is the agent to compare with, ``words`` how a
    sentence begins that speaks of it. ``behind`` is how far along the axis another run had got that this one went on
    from, and ``phase`` what this one is called then."""

    metric: str | None = "eval/return"
    score: str = "return"
    axis: str = "updates"
    column: str = "update"
    baseline: str | None = BASELINE
    words: str = "Behaviour cloning"
    behind: int = 0
    phase: str = ""


def judged_by(facts: Mapping[str, Any]) -> Judged:
    """From ``summary.json``; a run from before it said so was judged by what its data set allowed."""
    if "score" not in facts:
        normalised = facts["dataset"]["normalised"]
        return Judged(*(("eval/score", "normalised score") if normalised else ()))
    score, axis = facts["score"], facts["axis"]
    return Judged(
        score["metric"],
        score["name"],
        axis["name"],
        axis["column"],
        score["baseline"],
        score["baseline_words"],
        axis.get("behind", 0),
        axis.get("phase", ""),
    )

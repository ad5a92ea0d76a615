"""``table.csv``, and the table of single members on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxrl_reg.errors import need
from jaxrl_reg.evaluation.report.analysis import Analysis, Group, pool
from jaxrl_reg.evaluation.report.estimates import Estimate
from jaxrl_reg.evaluation.report.words import decimals, missing, number, text_of

if TYPE_CHECKING:
    import pandas as pd


def table(analysis: Analysis) -> pd.DataFrame:
    """``table.csv``: one row per setting, best first, then the baseline and the data's own policy, where there is one.

    ``last_update`` and ``best_update`` are called as the axis of the run is (``last_step``); ``attrs`` say what it is.
    ``last_true`` is there where the world's reward is a proxy: the return by the true one.
    """
    need("pandas")
    import pandas as pd

    column = analysis.judged.column

    def spread(name: str, estimate: Estimate | None) -> dict[str, Any]:
        value, low, high = estimate if estimate is not None else (None, None, None)
        return {name: value, f"{name}_low": low, f"{name}_high": high}

    def runs(group: Group) -> dict[str, Any]:
        return {
            "agent": group.agent,
            **group.hypers,
            "runs": len(group.scores),
            "diverged": group.diverged,
            f"last_{column}": int(group.updates[-1]),
            **spread("last_iqm", group.last),
            f"best_{column}": int(group.updates[group.best]),
            **spread("best_iqm", group.curve[group.best]),
            **({} if group.true is None else spread("last_true", group.true)),
        }

    rows = []
    for i in analysis.order:
        group, other = analysis.groups[i], analysis.baseline
        rows.append(
            {
                **runs(group),
                **spread("p_better_than_baseline", analysis.improvement[i]),
                **spread("minus_baseline", analysis.minus_baseline[i]),
                "apart_from_baseline": group.last.apart(other.last) if other else None,
                **spread("minus_behaviour", analysis.minus_behaviour[i]),
                "apart_from_behaviour": group.last.apart(analysis.behaviour) if analysis.behaviour else None,
            }
        )
    if analysis.baseline is not None:
        rows.append(runs(analysis.baseline))
    if analysis.behaviour is not None:
        rows.append({"agent": "behaviour", **spread("last_iqm", analysis.behaviour)})
    frame = pd.DataFrame(rows)
    whole = ["runs", "diverged", f"last_{column}", f"best_{column}"]
    frame.attrs = {"baseline": analysis.judged.baseline, "column": column}
    return frame.astype(
        {**dict.fromkeys(whole, "Int64"), "apart_from_baseline": "boolean", "apart_from_behaviour": "boolean"}
    )


class Members(NamedTuple):
    """Every member by itself, for a table to sort and filter: cells are ``(value, text)``."""

    columns: list[str]
    rows: list[list[tuple[Any, str]]]


def members(frame: pd.DataFrame, score: str, swept: Sequence[str] = (), column: str = "update") -> Members:
    """The last and the best score of every member, best first; those that diverged or were stopped say so."""
    pooled = pool(frame, score, column)
    hypers = frame.groupby(["agent", "setting"]).first()
    longest = pooled[column].max()
    found = []
    for (agent, setting, seed), rows in pooled.sort_values(column).groupby(["agent", "setting", "seed"]):
        values, updates = rows[score].to_numpy(float), rows[column].to_numpy(int)
        finite = np.isfinite(values)
        best = int(np.where(finite, values, -np.inf).argmax())
        state = "diverged" if not finite[-1] else "stopped" if updates[-1] < longest else ""
        own = hypers.loc[(agent, setting)]
        found.append((agent, int(setting), int(seed), own, values, updates, best, state))
    found.sort(key=lambda one: -one[4][-1] if np.isfinite(one[4][-1]) else np.inf)
    places = decimals([one[4][-1] for one in found])

    def scored(value: float) -> tuple[Any, str]:
        return (value, number(value, places)) if np.isfinite(value) else ("", "")

    def swept_cell(own: Any, name: str) -> tuple[Any, str]:
        return ("", "") if missing(own[name]) else (own[name], text_of(own[name]))

    columns = ["agent", *swept, "setting", "seed", "last", "best", "best_at", f"{column}s", "state"]
    return Members(
        columns,
        [
            [
                (agent, agent),
                *(swept_cell(own, name) for name in swept),
                (setting, str(setting)),
                (seed, str(seed)),
                scored(values[-1]),
                scored(values[best]),
                (int(updates[best]), f"{int(updates[best]):,}"),
                (int(updates[-1]), f"{int(updates[-1]):,}"),
                (state, state),
            ]
            for agent, setting, seed, own, values, updates, best, state in found
        ],
    )

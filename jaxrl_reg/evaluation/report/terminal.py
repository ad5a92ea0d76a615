"""The tables in short, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl_reg.evaluation.report.estimates import Estimate
from jaxrl_reg.evaluation.report.words import decimals, interval, missing, number, text_of

if TYPE_CHECKING:
    import pandas as pd


def brief_tasks(frame: pd.DataFrame) -> list[list[str]]:
    """A task table for a terminal: a row per task, a column per setting, best first, and the data's own policy."""
    labels = list(dict.fromkeys(frame["label"]))
    places = decimals([*frame["iqm"], *frame["high"]])
    rows = [["return, IQM [95%]", *labels, "data's own policy"]]
    for task in dict.fromkeys(frame["task"]):
        mine = frame[frame["task"] == task].set_index("label")
        cells = [
            f"{number(mine.loc[label, 'iqm'], places)} "
            f"{interval(Estimate(*mine.loc[label, ['iqm', 'low', 'high']].astype(float)), places)}"
            for label in labels
        ]
        rows.append([task, *cells, number(float(mine["behaviour"].iloc[0]), places)])
    return rows


def brief(frame: pd.DataFrame) -> list[list[str]]:
    """The table for a terminal: rows of text, headings first, the columns that matter least last."""
    if "last_iqm" not in frame:  # nothing was rolled out
        return [list(frame), *([_short(value) for value in row] for row in frame.itertuples(index=False))]
    places = decimals([*frame["last_iqm"], *frame["best_iqm"].dropna()])
    baseline, column = frame.attrs.get("baseline", "bc"), frame.attrs.get("column", "update")
    swept = [name for name in frame.columns if name not in (*_FIXED, f"last_{column}", f"best_{column}")]

    def cell(row: Any, name: str, digits: int, sign: bool = False) -> str:
        if name not in row or not np.isfinite(_float(row[name])):
            return ""
        estimate = Estimate(*(_float(row[key]) for key in (name, f"{name}_low", f"{name}_high")))
        return f"{number(estimate.value, digits, sign)} {interval(estimate, digits)}"

    headings = ["", "last IQM [95%]", f"minus {baseline}", f"P(> {baseline})", f"best IQM [95%] at {column}"]
    diverged = frame["diverged"].fillna(0).sum() > 0
    rows = [[*headings, "diverged"] if diverged else headings]
    for _, row in frame.iterrows():
        values = " ".join(f"{name}={text_of(row[name])}" for name in swept if not missing(row[name]))
        best = cell(row, "best_iqm", places)
        rows.append(
            [
                f"{row['agent']} {values}".strip(),
                cell(row, "last_iqm", places),
                cell(row, "minus_baseline", places, sign=True),
                cell(row, "p_better_than_baseline", 2),
                f"{best} {int(row[f'best_{column}']):,}" if best else "",
                *([f"{row['diverged']} of {row['runs']}" if best and row["diverged"] else ""] if diverged else []),
            ]
        )
    if baseline is None:
        rows = [[*row[:2], *row[4:]] for row in rows]
    if "last_true" in frame:
        digits = decimals([*frame["last_true"].dropna()])
        true = ["true return [95%]", *(cell(row, "last_true", digits) for _, row in frame.iterrows())]
        rows = [[*row[:2], other, *row[2:]] for row, other in zip(rows, true, strict=True)]
    # A narrow terminal shows the first columns: that a setting diverged is among them.
    return [[*row[:2], row[-1], *row[2:-1]] for row in rows] if diverged else rows


_FIXED = (
    "agent",
    "runs",
    "diverged",
    "apart_from_baseline",
    "apart_from_behaviour",
    *(
        f"{name}{end}"
        for name in ("last_iqm", "best_iqm", "last_true", "p_better_than_baseline", "minus_baseline", "minus_behaviour")
        for end in ("", "_low", "_high")
    ),
)


def _short(value: Any) -> str:
    return number(value, decimals([value])) if isinstance(value, float) and np.isfinite(value) else text_of(value)


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):  # pandas' missing values
        return float("nan")

"""The report of a run that rolled nothing out: how its training metrics went, and where its checkpoints are."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl_reg.errors import UserError, need
from jaxrl_reg.evaluation import plots
from jaxrl_reg.evaluation.report.facts import facts_of
from jaxrl_reg.evaluation.report.judged import Judged
from jaxrl_reg.evaluation.report.words import decimals, labelled, number, text_of
from jaxrl_reg.evaluation.viewer import templates
from jaxrl_reg.io.files import write_bytes, write_csv, write_text
from jaxrl_reg.io.sinks import IDENTITY
from jaxrl_reg.population import ALIVE

if TYPE_CHECKING:
    import pandas as pd

NOTHING = "Nothing was rolled out: the run has no environment, so these are training metrics and no scores."
MOST_FIGURES = 12
_BESIDE = (*IDENTITY, ALIVE, "step", "episodes", "environment", "dataset", "seconds", "updates_per_second")


def write_unscored(
    directory: pathlib.Path,
    frame: pd.DataFrame,
    stored: Mapping[str, Any],
    facts: Mapping[str, Any],
    swept: Sequence[str],
    judged: Judged,
) -> pd.DataFrame:
    """Write ``report.html``, ``table.csv`` and ``curves.png``; returns the table: one row per setting with the last
    value of every training metric, a mean over the runs that have not diverged.

    Raises:
      UserError: if there are no rows of the agent.
    """
    agent = stored["config"]["agent"]
    frame = frame[frame["agent"] == agent]
    if frame.empty:
        raise UserError(f"the run has no metrics of {agent} yet; continue it with resume")
    names = [name for name in frame if name not in (*_BESIDE, *swept) and frame[name].notna().any()]
    summary = _table(frame, agent, swept, names, judged.column)
    write_csv(directory / "table.csv", summary)
    shown = {
        theme.background: [_figure(frame, name, swept, judged, theme) for name in names[:MOST_FIGURES]]
        for theme in (plots.LIGHT, plots.DARK)
    }
    light, dark = shown.values()
    write_bytes(directory / "curves.png", plots.encode(light[0]))
    places = {name: decimals(summary[name]) for name in names}
    page = (
        templates()
        .get_template("unscored.html")
        .render(
            agent=agent,
            dataset=facts["dataset"]["name"],
            created=stored["created"],
            sentence=NOTHING,
            after=f"{int(frame[judged.column].max()):,} {judged.axis}",
            columns=[*swept, "runs", "diverged", *names],
            rows=[
                [
                    *(text_of(row[name]) for name in swept),
                    row["runs"],
                    row["diverged"] or "",
                    *(number(row[name], places[name]) if np.isfinite(row[name]) else "" for name in names),
                ]
                for row in summary.to_dict("records")
            ],
            figures=[(n, plots.data_uri(a), plots.data_uri(b)) for n, a, b in zip(names, light, dark, strict=False)],
            facts=facts_of(stored, facts, list(swept), judged.axis),
        )
    )
    write_text(directory / "report.html", page)
    return summary


def _table(frame: pd.DataFrame, agent: str, swept: Sequence[str], names: Sequence[str], column: str) -> pd.DataFrame:
    need("pandas")
    import pandas as pd

    rows = []
    for _, own in frame.groupby("setting"):
        last = own[own[column] == own[column].max()]
        first = own.iloc[0]
        rows.append(
            {
                "agent": agent,
                **{name: first[name] for name in swept},
                "runs": own["seed"].nunique(),
                "diverged": int((last[ALIVE] == 0).sum()),
                **{name: last[name].mean() for name in names},
            }
        )
    return pd.DataFrame(rows)


def _figure(frame: pd.DataFrame, name: str, swept: Sequence[str], judged: Judged, theme: plots.Theme) -> Any:
    """A metric along the run: the mean over runs of each setting, from the least to the greatest of them."""
    curves = []
    for _, own in frame.groupby("setting"):
        along = own.groupby(judged.column)[name].agg(["mean", "min", "max"])
        first = own.iloc[0]
        label = labelled({key: first[key] for key in swept}) or str(first["agent"])
        values = (along[key].to_numpy(float) for key in ("mean", "min", "max"))
        curves.append(plots.Curve(label, along.index.to_numpy(), *values))
    return plots.learning_curves(curves, score=name, axis=judged.axis, ordered=len(swept) == 1, theme=theme)

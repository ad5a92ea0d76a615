"""How members behave besides their return: the measures that ``evaluate --conduct`` took, by setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl_reg.errors import need
from jaxrl_reg.evaluation import pictures, plots
from jaxrl_reg.evaluation.observed import MEASURES
from jaxrl_reg.evaluation.report.estimates import estimates
from jaxrl_reg.evaluation.report.words import decimals, interval, labelled, number

if TYPE_CHECKING:
    import pandas as pd

MOST_SETTINGS = 6  # are drawn, and shown in short; conduct.csv has all
BESIDE = SCORE, UNRELATED = "largest minus second largest", "two states at random"  # what a scan says beside sensors


def conduct_table(
    frame: pd.DataFrame, agent: str, swept: Sequence[str], measures: Iterable[str] = MEASURES
) -> pd.DataFrame:
    """``conduct.csv``: one row per policy and measure, mean over seeds with its 95% interval.

    Args:
      frame: ``conduct.parquet``.
      agent: whose settings come first; what was trained beside them follows.
      swept: names of its swept hyperparameters.
      measures: which, in the order of the rows.

    Members whose measure is not a number are left out of it; ``runs`` says how many there were.
    """
    need("pandas")
    import pandas as pd

    about, found = [], []
    for own in (True, False):
        part = frame[(frame["agent"] == agent) == own]
        for (name, setting), rows in part.groupby(["agent", "setting"], sort=True):
            hypers = {one: rows[one].iloc[0] for one in swept if own and one in rows}
            label = labelled(hypers) or str(name)
            for measure in (one for one in measures if (rows["measure"] == one).any()):
                values = rows.loc[rows["measure"] == measure, "value"].to_numpy(float)
                values = values[np.isfinite(values)]
                about.append(
                    {"agent": name, "setting": int(setting), **hypers, "label": label, "measure": measure,
                     "runs": len(values)}
                )  # fmt: skip
                found.append(_interval(values))
    rows = [{**row, "value": one[0], "low": one[1], "high": one[2]} for row, one in zip(about, found, strict=True)]
    return pd.DataFrame(rows)


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and percentile bootstrap over members; NumPy, since a program per number of seeds would cost seconds."""
    if not values.size:
        return (float("nan"),) * 3
    draws = np.random.default_rng(0).integers(0, values.size, (2000, values.size))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def brief_conduct(table: pd.DataFrame) -> list[list[str]]:
    """The table in short: headings, then a row per measure with what a blameless policy has and each policy's value."""
    labels = list(dict.fromkeys(table["label"]))[:MOST_SETTINGS]
    rows = [["measure", "unit", "blameless", *(f"{label} [95%]" for label in labels)]]
    for measure in dict.fromkeys(table["measure"]):
        mine = table[table["measure"] == measure].set_index("label")
        about = MEASURES[measure]
        digits = max(decimals([*mine["value"]]), 2 if "share" in about.unit else 0)
        rows.append([about.label, about.unit, about.blameless, *_cells(mine, labels, digits)])
    return rows


def triggers_table(frame: pd.DataFrame, agent: str, swept: Sequence[str]) -> pd.DataFrame:
    """``triggers.csv``: as ``conduct_table`` for ``triggers.parquet``; sensors that move ``agent`` most first.

    What a scan says beside the sensors (``BESIDE``) comes last.
    """
    effect = frame[(frame["agent"] == agent) & ~frame["measure"].isin(BESIDE)].groupby("measure")["value"].mean()
    order = effect.sort_values(ascending=False, kind="stable").index
    return conduct_table(frame, agent, swept, [*order, *BESIDE])


def brief_triggers(table: pd.DataFrame) -> list[list[str]]:
    """The table of ``jobs.triggers`` in short: headings, then a row per sensor with its effect on each policy."""
    labels = list(dict.fromkeys(table["label"]))[:MOST_SETTINGS]
    rows = [["switched", *(f"{label} [95%]" for label in labels)]]
    for measure in dict.fromkeys(table["measure"]):
        mine = table[table["measure"] == measure].set_index("label")
        rows.append([measure, *_cells(mine, labels, decimals([*table["value"]]))])
    return rows


def _cells(mine: pd.DataFrame, labels: Sequence[str], digits: int) -> list[str]:
    """Value and interval of each label, empty where it has none."""
    cells = []
    for label in labels:
        if label not in mine.index:
            cells.append("")
            continue
        one = estimates(*([mine.loc[label, end]] for end in ("value", "low", "high")))[0]
        cells.append(f"{number(one.value, digits)} {interval(one, digits)}")
    return cells


def conduct_figure(table: pd.DataFrame, theme: plots.Theme) -> Any:
    """A panel per measure, a point with its interval per policy."""
    labels = list(dict.fromkeys(table["label"]))[:MOST_SETTINGS]
    panels = []
    for measure in dict.fromkeys(table["measure"]):
        mine = table[table["measure"] == measure].set_index("label")
        values = mine.reindex(labels)[["value", "low", "high"]].to_numpy(float)
        about = MEASURES[measure]
        panels.append((about.label, about.unit, values))
    return pictures.panels(panels, labels, theme=theme)


def conduct_notes(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured, in words, and what was not and why; ``about`` is ``conduct.json``."""
    measured = [(one.label, one.text) for one in MEASURES.values()]
    return measured + [(f"{name}: not measured", reason) for name, reason in about.get("missing", {}).items()]

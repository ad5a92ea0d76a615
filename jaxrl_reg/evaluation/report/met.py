"""Tasks learnt one after another: what each setting scores on all of them, before and after the last was learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl_reg.errors import need
from jaxrl_reg.evaluation import plots
from jaxrl_reg.evaluation.report.estimates import bootstrap, estimates, iqm_by_column
from jaxrl_reg.evaluation.report.words import decimals, interval, labelled, number

if TYPE_CHECKING:
    import pandas as pd

BEFORE = "before"


def met_table(
    frame: pd.DataFrame, met: Sequence[Sequence[str]], agent: str, swept: Sequence[str], column: str
) -> pd.DataFrame:
    """``met.csv``: one row per setting and task, IQM over seeds with its 95% interval before and after.

    Args:
      frame: ``metrics.parquet``.
      met: pairs of a task's name and its metric, in the order in which they were learnt.
      agent: whose settings.
      swept: names of its swept hyperparameters.
      column: what counts the way along the run; 0 is before it.
    """
    need("pandas")
    import jax
    import pandas as pd

    frame = frame[(frame["agent"] == agent) & (frame["evaluation"] == 0)]
    about, scores = [], []
    for setting, rows in frame.groupby("setting"):
        hypers = {name: rows[name].iloc[0] for name in swept}
        label = labelled(hypers) or agent
        for task, metric in met:
            table = rows.pivot(index="seed", columns=column, values=metric)
            ends = np.stack([table[0].to_numpy(float), table.iloc[:, -1].to_numpy(float)], axis=1)
            lost = np.nanmin(table.to_numpy(float))  # of a member that diverged
            about.append({"setting": int(setting), **hypers, "label": label, "task": task, "runs": len(ends)})
            scores.append(np.nan_to_num(ends, nan=lost))
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        found = estimates(*bootstrap(iqm_by_column, np.concatenate(scores, axis=1)))
    for row, before, after in zip(about, found[::2], found[1::2], strict=True):
        for name, estimate in (("before", before), ("after", after)):
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return pd.DataFrame(about)


def brief_met(table: pd.DataFrame) -> list[list[str]]:
    """The table in short: headings, then a row per setting with ``before -> after [95%]`` of every task."""
    places = {task: decimals(rows[["before", "after"]].to_numpy().ravel()) for task, rows in table.groupby("task")}
    tasks = list(dict.fromkeys(table["task"]))
    rows = [["return before \N{RIGHTWARDS ARROW} after [95%]", *tasks]]
    for label in dict.fromkeys(table["label"]):
        mine = table[table["label"] == label].set_index("task")
        cells = []
        for task in tasks:
            one, digits = mine.loc[task], places[task]
            ends = estimates(*([one[f"after{end}"]] for end in ("", "_low", "_high")))[0]
            before, after = (number(float(one[name]), digits) for name in ("before", "after"))
            cells.append(f"{before} \N{RIGHTWARDS ARROW} {after} {interval(ends, digits)}")
        rows.append([label, *cells])
    return rows


def met_figure(table: pd.DataFrame, theme: plots.Theme) -> Any:
    """A matrix of IQMs: before, then after under every setting, by task."""
    tasks, labels = (list(dict.fromkeys(table[name])) for name in ("task", "label"))
    after = table.pivot(index="label", columns="task", values="after").loc[labels, tasks].to_numpy(float)
    before = table.groupby("task")["before"].mean()[tasks].to_numpy(float)
    places = decimals([*after.ravel(), *before])
    return plots.matrix(
        np.vstack([before, after]), [BEFORE, *labels], tasks, by_column=True, places=places, theme=theme
    )

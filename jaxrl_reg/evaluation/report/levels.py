"""Worlds with levels: how many of each held-out set are solved, and pictures of those that were learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl_reg.errors import need
from jaxrl_reg.evaluation import plots
from jaxrl_reg.evaluation.report.estimates import Estimate, bootstrap, estimates, iqm_by_column
from jaxrl_reg.evaluation.report.words import interval, labelled, number

if TYPE_CHECKING:
    import pandas as pd

    from jaxrl_reg.evaluation.report.analysis import Analysis

LARGEST = 10  # rows of pictures


def sets_table(
    frame: pd.DataFrame, sets: Sequence[Sequence[str]], agent: str, swept: Sequence[str], column: str
) -> pd.DataFrame:
    """``sets.csv``: one row per setting (the rival's last) and set of levels, IQM over seeds with its 95% interval.

    Args:
      frame: ``metrics.parquet``.
      sets: pairs of a set's name and its metric.
      agent: whose settings come first.
      swept: names of its swept hyperparameters.
      column: what counts the way along the run; the last evaluation of each member counts.
    """
    need("pandas")
    import jax
    import pandas as pd

    frame = frame[frame["evaluation"] == 0]
    others = [name for name in dict.fromkeys(frame["agent"]) if name != agent]
    about, scores = [], []
    for name in (agent, *others):
        for setting, rows in frame[frame["agent"] == name].groupby("setting"):
            hypers = {key: rows[key].iloc[0] for key in swept} if name == agent else {}
            label = " ".join(filter(None, (name, labelled(hypers))))
            last = rows.sort_values(column).groupby("seed").tail(1)
            for level_set, metric in sets:
                values = np.nan_to_num(last[metric].to_numpy(float), nan=0.0)  # one that diverged solves nothing
                about.append({"agent": name, "setting": int(setting), **hypers, "label": label, "set": level_set})
                about[-1]["runs"] = len(values)
                scores.append(values[:, None])
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        found = estimates(*bootstrap(_each, *scores))
    for row, one in zip(about, found, strict=True):
        row |= {"iqm": one.value, "low": one.low, "high": one.high}
    return pd.DataFrame(about)


def _each(*scores: Any) -> Any:
    import jax.numpy as jnp

    return jnp.concatenate([iqm_by_column(one) for one in scores])


def brief_sets(table: pd.DataFrame) -> list[list[str]]:
    """The table in short: headings, then a row per setting with the solved share [95%] of every set."""
    sets = list(dict.fromkeys(table["set"]))
    rows = [["solved share, IQM [95%]", *(name.replace("_", " ") for name in sets)]]
    for label in dict.fromkeys(table["label"]):
        mine = table[table["label"] == label].set_index("set")
        ends = [Estimate(*map(float, mine.loc[name, ["iqm", "low", "high"]])) for name in sets]
        rows.append([label, *(f"{number(one.value, 2)} {interval(one, 2)}" for one in ends)])
    return rows


def sets_figure(table: pd.DataFrame, theme: plots.Theme) -> Any:
    """A matrix of IQMs: settings by sets of levels."""
    sets, labels = (list(dict.fromkeys(table[name])) for name in ("set", "label"))
    values = table.pivot(index="label", columns="set", values="iqm").loc[labels, sets].to_numpy(float)
    return plots.matrix(values, labels, [name.replace("_", " ") for name in sets], theme=theme)


def gallery(segments: Sequence[Any], analysis: Analysis, theme: plots.Theme) -> Any:
    """Pictures of levels as one figure: a row per segment (at most ``LARGEST``, spread evenly), a column per level.

    ``segments`` are ``[segments, levels, H, W, 3]``, 0 to 255.
    """
    need("matplotlib")
    from matplotlib.figure import Figure

    pictures = np.asarray(segments, np.uint8)
    count, columns, height, width = pictures.shape[:4]
    shown = np.unique(np.linspace(0, count - 1, min(count, LARGEST)).round().astype(int))
    figure = Figure(figsize=(6.0, 6.0 * len(shown) * height / (columns * width) + 0.3), layout="constrained")
    figure.set_facecolor(theme.background)
    steps = np.asarray(analysis.groups[analysis.order[0]].updates)[-count:]
    for row, segment in enumerate(shown):
        for column in range(columns):
            axes = figure.add_subplot(len(shown), columns, row * columns + column + 1)
            axes.imshow(pictures[segment, column], interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_color(theme.faint)
            if column == 0 and segment < len(steps):
                axes.set_ylabel(
                    f"{int(steps[segment]):,}", color=theme.ink, fontsize=8, rotation=0, ha="right", va="center"
                )
    return figure

"""What attacks on its observations do to a run: returns over the size of the perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl_reg.errors import need
from jaxrl_reg.evaluation import plots
from jaxrl_reg.evaluation.report.estimates import bootstrap, estimates, iqm_by_column
from jaxrl_reg.evaluation.report.words import decimals, interval, labelled, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

NONE, NOISE = "none", "random"
BANDS = 3  # curves whose intervals can be told apart
SUMS = {"return": "return", "target": "target's return", "true": "true return"}  # columns that may be there


def robustness_table(frame: pd.DataFrame, swept: Sequence[str]) -> pd.DataFrame:
    """``attacks.csv``: one row per setting and attack, IQM over seeds with its 95% interval; best setting first.

    Args:
      frame: ``attacks.parquet``. A member whose return is not finite counts as the lowest finite one.
      swept: names of the swept hyperparameters.
    """
    need("pandas")
    import jax
    import pandas as pd

    sums = [name for name in SUMS if name in frame and frame[name].notna().any()]
    about, scores = [], []
    for (setting, name, epsilon), rows in frame.groupby(["setting", "attack", "epsilon"], sort=False):
        hypers = {key: rows[key].iloc[0] for key in swept}
        label = labelled(hypers) or str(rows["agent"].iloc[0])
        size = {"attack": name, "epsilon": float(epsilon), "runs": len(rows)}
        about.append({"setting": int(setting), **hypers, "label": label, **size})
        scores.append(rows.sort_values("seed")[sums].to_numpy(float))
    # Settings may differ in their numbers of runs; columns of one number are drawn again together.
    most = max(map(len, scores))
    columns = np.concatenate([_filled(one, most) for one in scores], axis=1)
    lowest = np.nanmin(np.where(np.isfinite(columns), columns, np.nan), initial=np.inf)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        found = estimates(*bootstrap(iqm_by_column, np.where(np.isfinite(columns), columns, lowest)))
    for i, row in enumerate(about):
        for j, name in enumerate(sums):
            one = found[i * len(sums) + j]
            row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    table = pd.DataFrame(about)
    plain = table[table["attack"] == NONE].set_index("setting")["return"]
    table = table.assign(_order=table["setting"].map(-plain))
    table = table.sort_values(["_order", "attack", "epsilon"], kind="stable")
    return table.drop(columns="_order").reset_index(drop=True)


def brief_robustness(table: pd.DataFrame) -> list[list[str]]:
    """The table in short: headings, then a row per setting and attack."""
    sums = [name for name in SUMS if name in table]
    several = table["setting"].nunique() > 1
    rows = [["attack", *(["setting"] if several else []), "epsilon", *(f"{SUMS[name]} [95%]" for name in sums), "runs"]]
    places = {name: decimals(table[name].tolist()) for name in sums}
    ordered = table.assign(_late=table["attack"] != NONE).sort_values("_late", kind="stable") if not several else table
    for _, row in ordered.iterrows():
        cells = []
        for name in sums:
            (one,) = estimates(*([row[f"{name}{end}"]] for end in ("", "_low", "_high")))
            cells.append(f"{number(one.value, places[name])} {interval(one, places[name])}")
        about = [row["attack"], *([row["label"]] if several else []), f"{row['epsilon']:g}"]
        rows.append([*about, *cells, str(row["runs"])])
    return rows


def robustness_figures(table: pd.DataFrame, theme: plots.Theme) -> dict[str, Any]:
    """Robustness curves of the best setting by the name of what is summed: a line per attack, from no attack on, with a
    dot for each size that was tried. Attacks that leave the least return come first; noise is dashed, beside them.

    Bands of many attacks cover each other: of more than ``BANDS`` curves only noise keeps its own, and the attack that
    goes furthest, to the least return or the most of the target.
    """
    mine = table[table["setting"] == table["setting"].iloc[0]]
    plain = mine[mine["attack"] == NONE].iloc[0]
    attacked = mine[mine["attack"] != NONE]
    order = attacked.groupby("attack")["return"].min().sort_values(kind="stable").index
    figures = {}
    for name in (name for name in SUMS if name in table):
        curves = []
        for attack in order:
            rows = attacked[attacked["attack"] == attack].sort_values("epsilon")
            x, y, low, high = (
                np.array([plain[column], *rows[column]], float)
                for column in ("epsilon", name, f"{name}_low", f"{name}_high")
            )
            curves.append(plots.Curve(attack, x, y, low, high, baseline=attack == NOISE))
        if len(curves) > BANDS:
            sign = 1.0 if name == "target" else -1.0
            furthest = max((sign * curve.y[1:]).max() for curve in curves if not curve.baseline)
            kept = {curve.label for curve in curves if curve.baseline or (sign * curve.y[1:]).max() == furthest}
            curves = [c if c.label in kept else c._replace(low=None, high=None) for c in curves]
        axis = "epsilon, standard deviations of each observation"
        figure = plots.learning_curves(curves, score=SUMS[name], axis=axis, others="other attacks", theme=theme)
        for line in figure.axes[0].get_lines():
            line.set(marker="o", markersize=4, clip_on=False)
        figures[f"robustness_{name}"] = figure
    return figures


def _filled(scores: np.ndarray, rows: int) -> np.ndarray:
    """``[n, K]`` as ``[rows, K]``, repeating rows from the first on."""
    return scores[np.arange(rows) % len(scores)]

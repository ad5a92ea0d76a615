"""The figure of a result."""

from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Sequence

import numpy as np

from experiments.harness.claim import Claim

MOST_ROWS = 16


def figure(claim: Claim, values: dict[str, Sequence[float]], path: pathlib.Path) -> None:
    """Every arm's seeds as dots, its mean as a bar; with more than ``MOST_ROWS`` of them, those of the claim alone."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    order = [claim.method, *claim.rivals]
    others = [arm for arm in values if arm not in order]
    order += others if len(order) + len(others) <= MOST_ROWS else []
    fig, axes = plt.subplots(figsize=(7, 0.55 * len(order) + 1.4), layout="constrained")
    for row, arm in enumerate(order):
        points = np.asarray(values[arm], float)
        axes.barh(row, points.mean(), color="#2b6cb0" if arm == claim.method else "#b8c4d0", height=0.6)
        axes.plot(points, row + np.linspace(-0.18, 0.18, points.size), "o", color="#1a202c", ms=4, alpha=0.75)
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    axes.set_xlabel(textwrap.fill(claim.metric, 54))  # the axes are narrower than the figure
    axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=130)
    plt.close(fig)

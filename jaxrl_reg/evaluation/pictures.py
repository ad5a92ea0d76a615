"""Pictures of how a policy behaves: measures side by side, what its actions depend on, what its outputs answer to.

As those of ``evaluation.plots``: plain arrays in, a Matplotlib ``Figure`` that belongs to the caller out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxrl_reg.errors import need
from jaxrl_reg.evaluation.plots import LIGHT, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels(measured: Sequence[tuple[str, str, np.ndarray]], labels: Sequence[str], *, theme: Theme = LIGHT) -> Figure:
    """A small panel per measure, each with a scale of its own: a point with its interval for every label.

    Args:
      measured: name, unit and ``[labels, 3]`` (value, low, high) of each; NaN where a label has none.
      labels: of the rows, the same in every panel.
      theme: ``LIGHT`` or ``DARK``.
    """
    need("matplotlib")
    from matplotlib.figure import Figure

    across = min(3, len(measured))
    down = -(-len(measured) // across)
    height = (0.75 + 0.22 * len(labels)) * down
    figure = Figure(figsize=(3.2 * across, height), layout="constrained", facecolor=theme.background)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.ravel()[len(measured) :]:
        axes.set_visible(False)
    for number, (axes, (name, unit, values)) in enumerate(zip(grid.ravel(), measured, strict=False)):
        axes.set_facecolor("none")
        for row, (value, low, high) in enumerate(np.asarray(values, float)):
            colour = theme.palette[row % len(theme.palette)]
            axes.plot([low, high], [row, row], color=colour, linewidth=2.5, alpha=0.5, solid_capstyle="round")
            axes.plot([value], [row], "o", color=colour, markersize=5)
        axes.set_title(name, color=theme.ink, fontsize=9, loc="left")
        axes.set_xlabel(unit, color=theme.ink, fontsize=7.5)
        axes.set_yticks(np.arange(len(labels)), labels if number % across == 0 else [""] * len(labels))
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.margins(x=0.15)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x", color=theme.faint, linewidth=0.8)
        axes.tick_params(colors=theme.ink, labelsize=7.5, length=0)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(theme.faint)
    return figure


def attention(mask: np.ndarray, action: np.ndarray, *, sensors: Sequence[str], theme: Theme = LIGHT) -> Figure:
    """What a policy looked at over an episode: a map of sensors by steps, with its actions above it.

    Args:
      mask: ``[T, O]`` in [0, 1], how much each entry had to be seen.
      action: ``[T, A]``.
      sensors: names of the ``O``, from the top.
      theme: ``LIGHT`` or ``DARK``.
    """
    need("matplotlib")
    from matplotlib.figure import Figure

    rows = mask.shape[1]
    below = 0.22 * max(rows, 6)
    figure = Figure(figsize=(9.0, 2.2 + below), layout="constrained", facecolor=theme.background)
    above, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, below])
    for number in range(action.shape[1]):
        colour = theme.palette[number % len(theme.palette)]
        above.plot(action[:, number], color=colour, linewidth=1.2, label=f"action {number}")
    above.set_ylim(-1.1, 1.1)
    above.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7.5, frameon=False, labelcolor=theme.ink, handlelength=1.0
    )
    picture = axes.imshow(mask.T, aspect="auto", cmap="viridis", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_yticks(np.arange(rows), sensors)
    axes.set_xlabel("step", color=theme.ink)
    bar = figure.colorbar(picture, ax=axes, pad=0.01)
    bar.set_label("had to be seen", color=theme.ink, fontsize=8)
    _plain(theme, above, axes, bar.ax)
    return figure


def importance(shown: np.ndarray, hidden: np.ndarray, *, sensors: Sequence[str], theme: Theme = LIGHT) -> Figure:
    """Two bars per sensor: ``shown [O]``, the mean of the mask over steps, and ``hidden [O]``, what hiding it changes
    by itself as a share of that of all sensors; the most important sensor is on top."""
    need("matplotlib")
    from matplotlib.figure import Figure

    order = np.argsort(-shown, kind="stable")
    height = 1.2 + 0.26 * len(order)
    figure = Figure(figsize=(6.0, height), layout="constrained", facecolor=theme.background)
    axes, place = figure.subplots(), np.arange(len(order))
    axes.barh(place - 0.19, shown[order], 0.36, color=theme.palette[0], label="had to be seen, share of steps")
    axes.barh(place + 0.19, hidden[order], 0.36, color=theme.palette[1], label="change when hidden alone, share of all")
    axes.set_yticks(place, [sensors[one] for one in order])
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.grid(axis="x", color=theme.faint, linewidth=0.8)
    axes.set_axisbelow(True)
    _plain(theme, axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8.5, labelcolor=theme.ink)
    return figure


def facets(
    found: np.ndarray, value: np.ndarray, distance: np.ndarray, *, sensors: Sequence[str], theme: Theme = LIGHT
) -> Figure:
    """States that drive each unit up, a row per facet: sensors in standard deviations from their mean.

    Args:
      found: ``[U, F, O]``.
      value, distance: ``[U, F]``, the unit's value there and how far that is from any state visited.
      sensors: names of the ``O``.
      theme: ``LIGHT`` or ``DARK``.
    """
    need("matplotlib")
    from matplotlib.figure import Figure

    units, each, size = found.shape
    rows = units * each
    shape = (min(12.0, 4.2 + 0.28 * size), 1.4 + 0.3 * rows)
    figure = Figure(figsize=shape, layout="constrained", facecolor=theme.background)
    axes = figure.subplots()
    picture = axes.imshow(found.reshape(rows, size), aspect="auto", cmap="RdBu_r", vmin=-3.0, vmax=3.0)
    names = [
        f"action {unit}: {value[unit, one]:+.2f}, {distance[unit, one]:.1f} sd away"
        for unit in range(units)
        for one in range(each)
    ]
    axes.set_yticks(np.arange(rows), names)
    axes.set_xticks(np.arange(size), sensors, rotation=90 if size > 12 else 0)
    axes.set_xlabel("sensor", color=theme.ink)
    for unit in range(1, units):
        axes.axhline(unit * each - 0.5, color=theme.ink, linewidth=1.2)
    bar = figure.colorbar(picture, ax=axes, pad=0.01)
    bar.set_label("sd from the mean", color=theme.ink, fontsize=8)
    _plain(theme, axes, bar.ax)
    return figure


def _plain(theme: Theme, *canvases: Axes) -> None:
    for axes in canvases:
        axes.set_facecolor("none")
        axes.tick_params(colors=theme.ink, labelsize=8, length=0)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(theme.faint)

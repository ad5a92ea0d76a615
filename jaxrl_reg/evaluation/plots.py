"""Figures of a report: learning curves, performance profiles, tuning-budget curves, histograms of returns.

Every function takes plain arrays and returns a Matplotlib ``Figure`` that belongs to the caller: no pyplot, no global
state, no style files. ``encode`` turns a figure into bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxrl_reg.errors import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUARTERS = 4
MOST_COLOURS = 7  # more lines than this cannot be told apart; the rest are drawn thin and grey


class Theme(NamedTuple):
    """Colours that suit a light or a dark page."""

    ink: str
    faint: str
    background: str
    palette: tuple[str, ...]  # for settings without an order; readable with colour-blind eyes
    ramp: tuple[float, float]  # the part of viridis that contrasts with the background
    baseline: str


LIGHT = Theme(
    ink="#1f2933",
    faint="#d5dae1",
    background="#ffffff",
    palette=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#6b4fbb"),
    ramp=(0.0, 0.82),
    baseline="#52606d",
)
DARK = Theme(
    ink="#dfe4ea",
    faint="#3b4654",
    background="#161b22",
    palette=("#56b4e9", "#ff9e57", "#2fcf9f", "#e79cc8", "#f0d34e", "#8fb4ff", "#b9a3ff"),
    ramp=(0.25, 1.0),
    baseline="#9aa7b5",
)


class Curve(NamedTuple):
    """A line ``y`` over ``x`` (both ``[n]``), with a band from ``low`` to ``high`` where given."""

    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    baseline: bool = False  # drawn dashed and grey, above the settings


def learning_curves(
    curves: Sequence[Curve],
    *,
    score: str = "normalised score",
    references: Mapping[str, float] | None = None,
    axis: str = "updates",
    since: tuple[float, str] | None = None,
    ordered: bool = False,
    others: str = "other settings",
    theme: Theme = LIGHT,
) -> Figure:
    """Score after so many updates, or whatever ``axis`` counts, one line per setting.

    Args:
      curves: best setting first; those past the first seven are drawn thin and grey.
      score: what the vertical axis shows.
      references: horizontal dotted lines, label to score (the behaviour policy, say).
      axis: what the horizontal axis counts.
      since: where on it another phase of training begins, and what that is called: a vertical line.
      ordered: the settings are values of one hyperparameter: colour them along a ramp, in the order of their labels.
      others: what those past the first seven are called.
      theme: ``LIGHT`` or ``DARK``.
    """
    figure, axes = _canvas(theme)
    _draw(axes, curves, ordered, theme, others)
    for style, (label, value) in zip((":", "-.", (0, (5, 1, 1, 1, 1, 1))), (references or {}).items(), strict=False):
        axes.axhline(value, color=theme.ink, linewidth=1.2, linestyle=style, label=label, zorder=1)
    if since is not None:
        place, name = since
        axes.axvline(place, color=theme.ink, linewidth=1.0, linestyle=(0, (2, 2)), label=f"{name} from here", zorder=1)
    axes.set_xlabel(axis)
    axes.set_ylabel(score)
    axes.xaxis.set_major_formatter(_thousands)
    axes.set_xlim(left=0)
    _legend(figure, axes, theme)
    return figure


def performance_profile(
    curves: Sequence[Curve], *, score: str = "normalised score", ordered: bool = False, theme: Theme = LIGHT
) -> Figure:
    """Fraction of runs whose score exceeds tau, over tau: a line that lies higher is better everywhere it does."""
    figure, axes = _canvas(theme)
    _draw(axes, curves, ordered, theme)
    axes.set_xlabel(f"{score} tau")
    axes.set_ylabel("fraction of runs above tau")
    axes.set_ylim(-0.02, 1.02)
    _legend(figure, axes, theme)
    return figure


def tuning_curve(
    curves: Sequence[Curve], *, score: str = "normalised score", ordered: bool = False, theme: Theme = LIGHT
) -> Figure:
    """Expected score of the best of ``k`` policies that were tried in the environment, over ``k``."""
    figure, axes = _canvas(theme)
    _draw(axes, curves, ordered, theme)
    axes.set_xlabel("policies tried online")
    axes.set_ylabel(f"expected {score}")
    longest = max((len(curve.x) for curve in curves), default=1)
    if longest > 100:
        axes.set_xscale("log")
        axes.tick_params(which="minor", length=0)
        axes.xaxis.set_major_formatter(_thousands)
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(figure, axes, theme)
    return figure


def histogram(values: np.ndarray, *, xlabel: str, ylabel: str = "episodes", theme: Theme = LIGHT) -> Figure:
    """How values, such as the episode returns of a data set, are spread."""
    figure, axes = _canvas(theme)
    values = np.asarray(values, float)
    bins = int(np.clip(np.sqrt(values.size) * 2, 5, 50))
    axes.hist(values, bins=bins, color=theme.palette[0], alpha=0.85)
    axes.axvline(values.mean(), color=theme.ink, linewidth=1.2, linestyle=":", label="mean")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    _legend(figure, axes, theme)
    return figure


def by_task(
    tasks: Sequence[str],
    settings: Sequence[tuple[str, Sequence[Sequence[float]]]],
    behaviour: Sequence[float],
    *,
    theme: Theme = LIGHT,
) -> Figure:
    """Scores on several tasks: ``settings`` are labels with one (value, low, high) per task, best setting first;
    ``behaviour`` the data's own policy on each, a short stroke."""
    figure, canvas = _canvas(theme)
    count = min(len(settings), MOST_COLOURS)
    colours = _colours(count, False, theme)
    for i, (label, estimates) in enumerate(settings[:count]):
        value, low, high = np.asarray(estimates, float).T
        place = np.arange(len(tasks)) + (i - (count - 1) / 2) * 0.7 / count
        canvas.vlines(place, low, high, color=colours[i], linewidth=3, alpha=0.4)
        canvas.plot(place, value, "o", color=colours[i], markersize=6, label=label)
    canvas.hlines(
        behaviour,
        np.arange(len(tasks)) - 0.4,
        np.arange(len(tasks)) + 0.4,
        color=theme.baseline,
        linestyle="--",
        linewidth=1.2,
        label="data's own policy",
    )
    canvas.set_xticks(np.arange(len(tasks)), tasks, rotation=20, ha="right")
    canvas.set_ylabel("return, IQM over runs")
    canvas.set_ylim(bottom=min(0.0, canvas.get_ylim()[0]))
    _legend(figure, canvas, theme)
    return figure


def matrix(
    scores: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    by_column: bool = False,
    places: int = 2,
    theme: Theme = LIGHT,
) -> Figure:
    """Scores of tasks (columns) after phases of learning, or under settings (rows), as numbers on colours.

    Args:
      scores: ``[R, C]``; NaN cells stay empty.
      rows, columns: their names.
      by_column: colours go from the least to the greatest of each column, for tasks whose scores have different units;
        otherwise from the least to the greatest of all.
      places: decimals.
      theme: ``LIGHT`` or ``DARK``.
    """
    scores = np.asarray(scores, float)
    if scores.shape != (len(rows), len(columns)):
        raise ValueError(f"scores have shape {list(scores.shape)}; expected [{len(rows)}, {len(columns)}]")
    figure, axes = _canvas(theme)
    axis = 0 if by_column else None
    low, high = np.nanmin(scores, axis=axis, keepdims=True), np.nanmax(scores, axis=axis, keepdims=True)
    span = np.where(high > low, high - low, 1.0)
    shade = np.where(high > low, (scores - low) / span, 0.5)
    axes.imshow(shade, cmap="viridis", vmin=0.0, vmax=1.0, aspect="auto")
    for row, column in np.argwhere(np.isfinite(scores)):
        ink = "#000000" if shade[row, column] > 0.55 else "#ffffff"
        text = f"{scores[row, column]:,.{places}f}"
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=10)
    axes.grid(False)
    axes.set_xticks(np.arange(len(columns)), columns, rotation=20, ha="right")
    axes.set_yticks(np.arange(len(rows)), rows)
    return figure


def visits(
    counts: np.ndarray, extent: Sequence[Sequence[float]], axes: Sequence[str], *, title: str, theme: Theme = LIGHT
) -> Figure:
    """How often each cell of a map was visited: ``counts [X, Y]`` over ``extent`` ((x0, x1), (y0, y1)), log colours."""
    figure, canvas = _canvas(theme)
    (left, right), (bottom, top) = extent
    shown = np.where(counts > 0, np.log10(np.maximum(counts, 1)), np.nan).T
    picture = canvas.imshow(shown, origin="lower", extent=(left, right, bottom, top), aspect="auto", cmap="viridis")
    canvas.grid(False)
    canvas.set_xlabel(axes[0])
    canvas.set_ylabel(axes[1])
    canvas.set_title(title, color=theme.ink, fontsize=10)
    bar = figure.colorbar(picture, ax=canvas)
    bar.set_label("visits, powers of ten; blank: never", color=theme.ink)
    bar.ax.tick_params(colors=theme.ink)
    return figure


def repertoire(
    places: np.ndarray,
    fitness: np.ndarray,
    extent: Sequence[Sequence[float]],
    axes: Sequence[str],
    *,
    title: str,
    ancestors: np.ndarray | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """How a repertoire grew: where solutions had ended after each quarter of a search, coloured where rewarding.

    Args:
      places: ``[N, 2]``, where each solution ended, in order of time.
      fitness: ``[N]``; above 0 is rewarding, and those are drawn on top.
      extent: ((x0, x1), (y0, y1)) of the map.
      axes: names of the two coordinates.
      title: above all.
      ancestors: ``[A, 2]``, the ends of solutions that emitters climb from, as rings in the last picture.
      theme: ``LIGHT`` or ``DARK``.
    """
    need("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 3.2), layout="constrained", facecolor=theme.background)
    panels = figure.subplots(1, QUARTERS, sharex=True, sharey=True)
    places, fitness = np.asarray(places), np.asarray(fitness)
    highest, shown = max(float(fitness.max(initial=0.0)), 1e-9), None
    for quarter, panel in enumerate(panels, start=1):
        count = len(places) * quarter // QUARTERS
        rewarding = fitness[:count] > 0
        panel.set_facecolor(theme.background)
        panel.plot(*places[:count][~rewarding].T, ".", color=theme.baseline, markersize=1.5, alpha=0.6, clip_on=False)
        order = np.argsort(fitness[:count][rewarding])
        shown = panel.scatter(
            *places[:count][rewarding][order].T, c=fitness[:count][rewarding][order], s=7, cmap="viridis", vmin=0.0,
            vmax=highest, clip_on=False,  # what lies on the border is all there
        )  # fmt: skip
        if quarter == QUARTERS and ancestors is not None and len(ancestors):
            panel.plot(*np.asarray(ancestors).T, "o", mfc="none", mec=theme.palette[1], markersize=8, clip_on=False)
        panel.set_xlim(*extent[0])
        panel.set_ylim(*extent[1])
        panel.set_title(f"{count:,} episodes, {int(rewarding.sum()):,} rewarding", color=theme.ink, fontsize=8)
        panel.set_xlabel(axes[0], color=theme.ink)
        panel.tick_params(colors=theme.ink, labelsize=7)
    panels[0].set_ylabel(axes[1], color=theme.ink)
    bar = figure.colorbar(shown, ax=panels)
    bar.set_label("return, of rewarding ones", color=theme.ink)
    bar.ax.tick_params(colors=theme.ink)
    figure.suptitle(title, color=theme.ink, fontsize=10)
    return figure


def lineage(
    values: np.ndarray, parents: np.ndarray, line: np.ndarray, *, ylabel: str, log: bool = True, theme: Theme = LIGHT
) -> Figure:
    """What an evolving population did with one hyperparameter: who went on from whom, and the line of the best.

    Args:
      values: ``[T, M]``, the hyperparameter of every member in every segment.
      parents: ``[T, M]`` int, whose state a member has after each segment (``population.Evolution.parents``).
      line: ``[T]`` int, the slots of one final member's forebears (``population.ancestry``), drawn on top.
      ylabel: name of the hyperparameter.
      log: logarithmic vertical axis.
      theme: ``LIGHT`` or ``DARK``.
    """
    figure, axes = _canvas(theme)
    values, parents = np.asarray(values), np.asarray(parents)
    length, count = values.shape
    times, members = np.arange(1, length + 1), np.arange(count)
    came = np.stack([np.take_along_axis(values[:-1], parents[:-1], axis=1), values[1:]])  # from, to
    copied = parents[:-1] != members
    for changed, colour, label in ((False, theme.baseline, "goes on"), (True, theme.palette[1], "copies and explores")):
        steps = came[:, copied == changed]
        at = np.broadcast_to(times[:-1, None], copied.shape)[copied == changed]
        axes.plot(np.stack([at, at + 1]), steps, color=colour, linewidth=0.7, alpha=0.35 if changed else 0.3)
        axes.plot([], [], color=colour, linewidth=1.2, label=label)
    axes.plot(times, values[np.arange(length), line], color=theme.palette[0], linewidth=2.4, label="line of the best")
    if log:
        axes.set_yscale("log")
        axes.tick_params(which="minor", length=0)
    axes.set_xlabel("segment")
    axes.set_ylabel(ylabel)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(figure, axes, theme)
    return figure


def encode(figure: Figure, kind: str = "png") -> bytes:
    """The figure as a ``png`` (opaque, 2x resolution) or ``svg`` (transparent, text as outlines) file."""
    need("matplotlib")
    import matplotlib

    buffer = io.BytesIO()
    settings: dict[str, Any] = {"svg.hashsalt": "jaxrl_reg", "svg.fonttype": "path"}
    with matplotlib.rc_context(settings):
        if kind == "svg":
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        else:
            figure.savefig(buffer, format=kind, dpi=200, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def data_uri(figure: Figure) -> str:
    """The figure as an SVG ``data:`` address for an ``<img>``."""
    return "data:image/svg+xml;base64," + base64.b64encode(encode(figure, "svg")).decode()


def _canvas(theme: Theme) -> tuple[Figure, Axes]:
    need("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.2), layout="constrained", facecolor=theme.background)
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    axes.grid(axis="y", color=theme.faint, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.faint)
    axes.tick_params(colors=theme.ink, labelsize=11, length=0)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.ink)
        label.set_size(12)
    return figure, axes


def _draw(axes: Axes, curves: Sequence[Curve], ordered: bool, theme: Theme, others: str = "other settings") -> None:
    settings = [curve for curve in curves if not curve.baseline]
    shown, rest = settings[:MOST_COLOURS], settings[MOST_COLOURS:]
    if ordered:  # legend and colours follow the values, whichever setting is best
        shown = sorted(shown, key=lambda curve: _last_number(curve.label))
    for curve, colour in zip(shown, _colours(len(shown), ordered, theme), strict=True):
        _line(axes, curve, colour, "-")
    for curve in curves:
        if curve.baseline:
            _line(axes, curve, theme.baseline, "--")
    for i, curve in enumerate(rest):
        label = f"{len(rest)} {others}" if i == 0 else None
        axes.plot(curve.x, curve.y, color=theme.faint, linewidth=0.9, label=label, zorder=2)


def _line(axes: Axes, curve: Curve, colour: Any, style: str) -> None:
    single = len(curve.x) == 1
    axes.plot(
        curve.x,
        curve.y,
        color=colour,
        linestyle=style,
        linewidth=2,
        marker="o" if single else None,
        label=curve.label,
        zorder=4 if curve.baseline else 3,
    )
    if curve.low is not None and curve.high is not None:
        if single:
            axes.vlines(curve.x, curve.low, curve.high, color=colour, linewidth=2, alpha=0.5)
        else:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)


def _colours(count: int, ordered: bool, theme: Theme) -> list[Any]:
    if ordered and count > 1:
        need("matplotlib")
        import matplotlib

        return list(matplotlib.colormaps["viridis"](np.linspace(*theme.ramp, count)))
    return list(theme.palette[:count])


def _legend(figure: Figure, axes: Axes, theme: Theme) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    columns = 1 if max(map(len, labels)) > 36 else 2
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=10.5, labelcolor=theme.ink
    )


def _last_number(label: str) -> float:
    try:
        return float(label.replace("=", " ").split()[-1])
    except ValueError:
        return 0.0


def _thousands(value: float, _position: int = 0) -> str:
    """100000 as ``100k``: axes stay short."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"

"""The figures of a report, in a light and a dark theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_reg.evaluation import plots
from jaxrl_reg.evaluation.report.analysis import Analysis, Group
from jaxrl_reg.evaluation.report.estimates import Estimate, bootstrap, profile_by_column
from jaxrl_reg.evaluation.report.tasks import ALL_TASKS, Served

PROFILE_POINTS = 101


class Lines(NamedTuple):
    """What the figures show, best setting first and the baseline last."""

    curves: list[plots.Curve]
    profile: list[plots.Curve]
    tuning: list[plots.Curve]


def lines(analysis: Analysis) -> Lines:
    """Learning curves, performance profiles and tuning-budget curves with their bands."""
    import jax

    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return _lines(analysis)


def _lines(analysis: Analysis) -> Lines:
    import jax

    from jaxrl_reg.evaluation import statistics

    best_first = [analysis.groups[i] for i in analysis.order]
    shown = [*best_first, *([analysis.baseline] if analysis.baseline else [])]
    lasts = np.stack([group.scores[:, -1] for group in shown], axis=1)
    margin = 0.05 * (lasts.max() - lasts.min()) or 1.0
    thresholds = np.linspace(lasts.min() - margin, lasts.max() + margin, PROFILE_POINTS)
    shares = zip(*bootstrap(profile_by_column, lasts, thresholds[None]), strict=True)
    expected_best = jax.jit(statistics.expected_best_online)

    def curve(group: Group) -> plots.Curve:
        y, down, up = (np.array(column) for column in zip(*group.curve, strict=True))
        return plots.Curve(group.label, group.updates, y, down, up, group is analysis.baseline)

    def tuning(label: str, scores: np.ndarray, baseline: bool) -> plots.Curve:
        y = np.asarray(expected_best(scores))
        return plots.Curve(label, np.arange(1, y.size + 1), y, baseline=baseline)

    members = lasts[:, : len(best_first)].ravel()
    budget = [tuning(f"{analysis.agent}, all settings" if len(best_first) > 1 else analysis.agent, members, False)]
    if analysis.baseline is not None:
        budget.append(tuning(analysis.baseline.label, analysis.baseline.scores[:, -1], True))
    profile = [
        plots.Curve(group.label, thresholds, *share, group is analysis.baseline)
        for group, share in zip(shown, shares, strict=True)
    ]
    return Lines([curve(group) for group in shown], profile, budget)


def figures(analysis: Analysis, drawn: Lines, theme: plots.Theme) -> dict[str, Any]:
    """``curves``, ``profile``, ``tuning`` and, with a data set, ``returns`` as Matplotlib figures."""
    ordered = len(analysis.groups) > 1 and len(analysis.groups[0].hypers) == 1
    score, options = analysis.score, {"ordered": ordered, "theme": theme}
    behaviour = {} if analysis.behaviour is None else {"data's own policy": analysis.behaviour.value}
    judged = analysis.judged
    since = (float(judged.behind), judged.phase) if judged.behind else None
    made = {
        "curves": plots.learning_curves(
            drawn.curves, score=score, references=behaviour, axis=judged.axis, since=since, **options
        ),
        "profile": plots.performance_profile(drawn.profile, score=score, **options),
        "tuning": plots.tuning_curve(drawn.tuning, score=score, theme=theme),
    }
    if analysis.behaviour is not None:
        label = f"{score} of an episode in the data"
        made["returns"] = plots.histogram(analysis.behaviour_scores, xlabel=label, theme=theme)
    return made


def task_figure(settings: Sequence[Served], theme: plots.Theme) -> Any:
    """Every setting's score on every task."""
    tasks = list(settings[0].tasks)
    shown = [(one.label, [Estimate(*estimate) for estimate in [*one.tasks.values(), one.overall]]) for one in settings]
    behaviour = [settings[0].behaviour[task] for task in tasks]
    names = [task.replace("_", " ") for task in tasks]
    return plots.by_task([*names, ALL_TASKS], shown, [*behaviour, float(np.mean(behaviour))], theme=theme)

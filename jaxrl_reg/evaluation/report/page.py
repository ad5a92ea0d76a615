"""The page: HTML without any address outside itself."""

from __future__ import annotations

import base64
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxrl_reg.evaluation import plots
from jaxrl_reg.evaluation.report.analysis import Analysis, Group
from jaxrl_reg.evaluation.report.drawing import Lines, figures, task_figure
from jaxrl_reg.evaluation.report.estimates import Estimate
from jaxrl_reg.evaluation.report.facts import facts_of
from jaxrl_reg.evaluation.report.finding import places_of, verdict
from jaxrl_reg.evaluation.report.levels import brief_sets, gallery, sets_figure
from jaxrl_reg.evaluation.report.met import brief_met, met_figure
from jaxrl_reg.evaluation.report.robustness import brief_robustness, robustness_figures
from jaxrl_reg.evaluation.report.tables import Members
from jaxrl_reg.evaluation.report.tasks import Served, task_table
from jaxrl_reg.evaluation.report.terminal import brief_tasks
from jaxrl_reg.evaluation.report.watched import Watched, watched_figures, watched_words
from jaxrl_reg.evaluation.report.words import decimals, interval, number, text_of
from jaxrl_reg.evaluation.viewer import templates

if TYPE_CHECKING:
    import pandas as pd

LARGEST_EMBEDDED = 3_000_000  # bytes of a rollout page that goes inside the report


def row_of(analysis: Analysis, i: int | None, group: Group | None, scale: Any, places: int) -> dict[str, Any]:
    """What the template shows of one line of the results table."""
    last = group.last if group is not None else analysis.behaviour
    assert last is not None

    def shown(estimate: Estimate | None, digits: int, sign: bool = False) -> dict[str, Any] | None:
        if estimate is None:
            return None
        return {
            "sort": estimate.value,
            "value": number(estimate.value, digits, sign),
            "interval": interval(estimate, digits),
        }

    row: dict[str, Any] = {
        **dict.fromkeys(
            (
                "best",
                "best_update",
                "true",
                "apart_baseline",
                "apart_behaviour",
                "stopped",
                "improvement",
                "minus_baseline",
                "minus_behaviour",
            )
        ),
        "runs": "",
        "diverged": 0,
        "hypers": [] if group is None else [(value, text_of(value)) for value in group.hypers.values()],
        "last": shown(last, places),
        "bar": {"low": scale(last.low), "width": scale(last.high) - scale(last.low), "value": scale(last.value)},
    }
    if group is not None:
        row |= {
            "best": shown(group.curve[group.best], places),
            "best_update": f"{int(group.updates[group.best]):,}",
            "true": shown(group.true, decimals([group.true.value]) if group.true else places),
            "runs": len(group.scores),
            "diverged": group.diverged,
        }
    if i is not None and analysis.stopped(i) and group is not None:
        row["stopped"] = f"{int(group.updates[-1]):,}"
    if i is not None and group is not None:
        row |= {
            "improvement": shown(analysis.improvement[i], 2),
            "minus_baseline": shown(analysis.minus_baseline[i], places, sign=True),
            "apart_baseline": analysis.baseline is not None and group.last.apart(analysis.baseline.last),
            "minus_behaviour": shown(analysis.minus_behaviour[i], places, sign=True),
            "apart_behaviour": analysis.behaviour is not None and group.last.apart(analysis.behaviour),
        }
    return row


def render(
    analysis: Analysis,
    drawn: Lines,
    stored: Mapping[str, Any],
    facts: Mapping[str, Any],
    episode: str | None = None,
    viewer: str | None = None,
    tasks: Sequence[Served] = (),
    everyone: Members | None = None,
    met: pd.DataFrame | None = None,
    attacked: pd.DataFrame | None = None,
    watched: Watched | None = None,
    sets: pd.DataFrame | None = None,
    album: Any = None,
) -> str:
    """The page: HTML without any address outside itself.

    Args:
      analysis: from ``analyse``.
      drawn: from ``lines``.
      stored: the run's ``config.json``.
      facts: the run's ``summary.json``.
      episode: a recorded episode as a self-contained HTML page, which is embedded; one that names any address outside
        itself, or is larger than ``LARGEST_EMBEDDED``, is left out.
      viewer: the name of a file beside the report that shows the episode in the environment's own viewer.
      tasks: from ``served``, for an agent to which tasks were put after training.
      everyone: from ``members``, a table of single runs.
      met: from ``met_table``, of a run that went on from another task.
      attacked: from ``robustness_table``, of a run whose members were attacked.
      watched: from ``read_watched``, of a run whose members were watched or explained.
      sets: from ``sets_table``, of a run in a world with levels.
      album: ``levels.json``, pictures of levels that were learnt from.
    """
    places = places_of(analysis)
    everything = [*analysis.groups, *([analysis.baseline] if analysis.baseline else [])]
    edges = [edge for group in everything for edge in (group.last.low, group.last.high)]
    edges += [analysis.behaviour.low, analysis.behaviour.high] if analysis.behaviour else []
    low, span = min(edges), (max(edges) - min(edges)) or 1.0

    def scale(value: float) -> float:
        """Per cent of the way from the least to the greatest end of any interval."""
        return round(2.0 + 96.0 * (value - low) / span, 2)

    light, dark = (figures(analysis, drawn, theme) for theme in (plots.LIGHT, plots.DARK))
    for shown, theme in ((light, plots.LIGHT), (dark, plots.DARK)):
        if tasks:
            shown["tasks"] = task_figure(tasks, theme)
        if met is not None:
            shown["met"] = met_figure(met, theme)
        if attacked is not None:
            shown |= robustness_figures(attacked, theme)
        shown |= watched_figures(watched, theme)
        shown |= {} if sets is None else {"sets": sets_figure(sets, theme)}
        shown |= {} if album is None else {"levels": gallery(album["segments"], analysis, theme)}
    embedded = episode is not None and len(episode) <= LARGEST_EMBEDDED and not asks_elsewhere(episode)
    return (
        templates()
        .get_template("report.html")
        .render(
            agent=analysis.agent,
            env=stored["config"]["env"],
            dataset=facts["dataset"]["name"] if "dataset" in facts else "",
            axis=analysis.judged.axis,
            against=analysis.judged.baseline,
            created=stored["created"],
            score=analysis.score,
            verdict=verdict(analysis),
            swept=list(analysis.groups[0].hypers),
            rows=[row_of(analysis, i, analysis.groups[i], scale, places) for i in analysis.order],
            baseline=row_of(analysis, None, analysis.baseline, scale, places) if analysis.baseline else None,
            behaviour=row_of(analysis, None, None, scale, places) if analysis.behaviour else None,
            reference=scale(analysis.baseline.last.value) if analysis.baseline else None,
            last_update=f"{int(analysis.groups[analysis.order[0]].updates[-1]):,}",
            proxied=any(group.true is not None for group in everything),
            any_stopped=any(map(analysis.stopped, range(len(analysis.groups)))),
            any_diverged=any(group.diverged for group in everything),
            few=min(len(group.scores) for group in everything) < 10,
            figures={name: (plots.data_uri(light[name]), plots.data_uri(dark[name])) for name in light}
            | picture_of(facts),
            episode=episode if embedded else None,
            viewer=viewer,
            exhibit=facts.get("exhibit", "The best run, one episode"),
            tasks=brief_tasks(task_table(tasks)) if tasks else [],
            met=[] if met is None else brief_met(met),
            attacked=[] if attacked is None else brief_robustness(attacked),
            **watched_words(watched),
            sets=[] if sets is None else brief_sets(sets),
            facts=facts_of(stored, facts, list(analysis.groups[0].hypers), analysis.judged.axis),
            members=everyone,
        )
    )


def picture_of(facts: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The picture that a collection drew of its data (``collected``), where it still lies beside them."""
    path = facts.get("dataset", {}).get("picture", "")
    if not path or not pathlib.Path(path).is_file():
        return {}
    uri = f"data:image/png;base64,{base64.b64encode(pathlib.Path(path).read_bytes()).decode()}"
    return {"collected": (uri, uri)}


def asks_elsewhere(page: str) -> bool:
    """Whether a page names any address of the web, apart from those that only name a file format."""
    return re.search(r"https?://(?!www\.w3\.org)", page) is not None

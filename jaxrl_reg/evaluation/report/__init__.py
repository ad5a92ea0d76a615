"""The report of a run: which setting is how good, how sure that is, and against what. Reads files, writes files.

Scores are those of the last checkpoint unless a heading says "best". Every interval is a 95% percentile bootstrap over
seeds (over episodes for the data's own policy). A member whose score is not finite has diverged; it counts as the
lowest finite score seen in the run, so that divergence is never rewarded, and the table says how many there are.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation import plots
from jaxrl_reg.evaluation.report.analysis import Analysis, Group, analyse, data_scores, pool
from jaxrl_reg.evaluation.report.conduct import brief_conduct, brief_triggers, conduct_table, triggers_table
from jaxrl_reg.evaluation.report.drawing import Lines, figures, lines, task_figure
from jaxrl_reg.evaluation.report.estimates import Estimate, bootstrap
from jaxrl_reg.evaluation.report.finding import verdict
from jaxrl_reg.evaluation.report.judged import Judged, judged_by
from jaxrl_reg.evaluation.report.levels import brief_sets, gallery, sets_figure, sets_table
from jaxrl_reg.evaluation.report.met import brief_met, met_figure, met_table
from jaxrl_reg.evaluation.report.page import asks_elsewhere, render
from jaxrl_reg.evaluation.report.robustness import brief_robustness, robustness_figures, robustness_table
from jaxrl_reg.evaluation.report.tables import Members, members, table
from jaxrl_reg.evaluation.report.tasks import Served, served, task_table
from jaxrl_reg.evaluation.report.terminal import brief, brief_tasks
from jaxrl_reg.evaluation.report.unscored import write_unscored
from jaxrl_reg.evaluation.report.watched import read_watched, watched_figures
from jaxrl_reg.evaluation.report.words import decimals, interval, labelled, number, seconds
from jaxrl_reg.io.files import read_json, read_text, write_bytes, write_csv, write_text
from jaxrl_reg.io.sinks import read_parquet

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Analysis",
    "Estimate",
    "Group",
    "Judged",
    "Lines",
    "Members",
    "Served",
    "analyse",
    "asks_elsewhere",
    "bootstrap",
    "brief",
    "brief_conduct",
    "brief_met",
    "brief_robustness",
    "brief_sets",
    "brief_tasks",
    "brief_triggers",
    "conduct_table",
    "data_scores",
    "decimals",
    "figures",
    "gallery",
    "interval",
    "judged_by",
    "labelled",
    "lines",
    "members",
    "met_figure",
    "met_table",
    "number",
    "pool",
    "render",
    "robustness_figures",
    "robustness_of",
    "robustness_table",
    "seconds",
    "served",
    "sets_figure",
    "sets_table",
    "table",
    "task_figure",
    "task_table",
    "triggers_table",
    "verdict",
    "write",
    "write_unscored",
]


ATTACKS = "attacks.parquet"


def robustness_of(directory: pathlib.Path) -> pd.DataFrame:
    """The table of the attacks that were made on a run."""
    stored = _json(directory / "config.json")
    return robustness_table(read_parquet(directory / ATTACKS), stored.get("swept", list(stored["config"]["grid"])))


def write(directory: str | pathlib.Path) -> pd.DataFrame:
    """Read a run directory and write ``report.html``, ``table.csv``, ``curves.png`` and ``profile.png`` into it.

    Returns:
      The table.

    Raises:
      UserError: if a file of the run is missing or damaged.
    """
    directory = pathlib.Path(directory)
    stored, facts = _json(directory / "config.json"), _json(directory / "summary.json")
    frame = read_parquet(directory / "metrics.parquet")
    try:
        config = stored["config"]
        swept = stored.get("swept", list(config["grid"]))
        judged = judged_by(facts)
        if judged.metric is None:
            return write_unscored(directory, frame, stored, facts, swept, judged)
        analysis = analyse(frame, facts.get("dataset"), config["agent"], swept, judged)
    except KeyError as error:
        raise UserError(f"{directory}: its files lack {error}; they are not those of a run of this version") from error
    summary = table(analysis)
    write_csv(directory / "table.csv", summary)
    drawn = lines(analysis)
    light = figures(analysis, drawn, plots.LIGHT)
    for name in ("curves", "profile"):
        write_bytes(directory / f"{name}.png", plots.encode(light[name]))
    episode, viewer = directory / "episode.html", directory / "rollout.html"
    tasks: list[Served] = []
    if (directory / "zeroshot.parquet").exists():
        tasks = served(read_parquet(directory / "zeroshot.parquet"), swept)
        write_csv(directory / "zeroshot.csv", task_table(tasks))
        write_bytes(directory / "zeroshot.png", plots.encode(task_figure(tasks, plots.LIGHT)))
    met = None
    if facts.get("met"):
        met = met_table(frame, facts["met"], config["agent"], swept, judged.column)
        write_csv(directory / "met.csv", met)
        write_bytes(directory / "met.png", plots.encode(met_figure(met, plots.LIGHT)))
        summary.attrs["met"] = brief_met(met)
    attacked = None
    if (directory / ATTACKS).exists():
        attacked = robustness_of(directory)
        write_csv(directory / "attacks.csv", attacked)
        for name, figure in robustness_figures(attacked, plots.LIGHT).items():
            write_bytes(directory / f"{name}.png", plots.encode(figure))
    watched = read_watched(directory, config["agent"], swept)
    for name, figure in watched_figures(watched, plots.LIGHT).items():
        write_bytes(directory / f"{name}.png", plots.encode(figure))
    sets, album = None, None
    if facts.get("sets"):
        sets = sets_table(frame, facts["sets"], config["agent"], swept, judged.column)
        write_csv(directory / "sets.csv", sets)
        write_bytes(directory / "sets.png", plots.encode(sets_figure(sets, plots.LIGHT)))
        summary.attrs["sets"] = brief_sets(sets)
    if (directory / "levels.json").exists():
        album = _json(directory / "levels.json")
        write_bytes(directory / "levels.png", plots.encode(gallery(album["segments"], analysis, plots.LIGHT)))
    page = render(
        analysis,
        drawn,
        stored,
        facts,
        read_text(episode) if episode.exists() else None,
        viewer.name if viewer.exists() else None,
        tasks,
        members(frame, str(judged.metric), swept, judged.column),
        met,
        attacked,
        watched,
        sets,
        album,
    )
    write_text(directory / "report.html", page)
    return summary


def _json(path: pathlib.Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path} does not exist; the run has not started to train")
    return read_json(path)

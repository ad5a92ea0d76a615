"""Many agents on many data sets in one table: read from run directories, written as a page, a CSV file and a figure.

A comparison is a folder of run directories, ``<folder>/<task>/<agent>``, a task being an environment with a data set.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxrl_reg.errors import UserError, need
from jaxrl_reg.io.files import read_json, write_bytes, write_csv, write_text

if TYPE_CHECKING:
    import pandas as pd

    from jaxrl_reg.evaluation.plots import Theme

ALL = "all"  # the column over every task
BEHAVIOUR = "behaviour"  # the row of the data's own policy
RESAMPLES = 2000
PAGE, TABLE, FIGURE = "comparison.md", "comparison.csv", "comparison.png"


class Entry(NamedTuple):
    """One finished run: the scores ``[seeds]`` of its last evaluation, and what was asked for."""

    agent: str
    task: str
    scores: np.ndarray
    normalised: bool
    behaviour: float  # mean score of the data's own episodes; NaN without a data set
    seconds: float  # of training and evaluation, compilation apart
    config: dict[str, Any]
    budget: str = ""  # in words
    judged: str = "return"  # what the scores are
    played: float = float("nan")  # environment steps with those that only score levels, where an agent counts them


def read(directory: str | pathlib.Path) -> list[Entry]:
    """The finished runs of a comparison, in the order of their names.

    Raises:
      UserError: if there are none.
    """
    from jaxrl_reg.evaluation.report import data_scores, judged_by
    from jaxrl_reg.io.sinks import read_parquet

    found = []
    for path in sorted(pathlib.Path(directory).glob("*/*/summary.json")):
        facts = read_json(path)
        if "finished" not in facts:
            continue
        config = read_json(path.parent / "config.json")["config"]
        judged = judged_by(facts)
        frame = read_parquet(path.parent / "metrics.parquet")
        frame = frame[(frame["agent"] == config["agent"]) & (frame["evaluation"] == 0)]
        last = frame[frame[judged.column] == frame[judged.column].max()].sort_values("seed")
        behaviour = float(data_scores(facts["dataset"]).mean()) if "dataset" in facts else float("nan")
        training = facts["training"][config["agent"]]
        found.append(
            Entry(
                config["agent"],
                path.parent.parent.name,
                last[judged.metric].to_numpy(float),
                judged.metric == "eval/score",
                behaviour,
                training.get("train_seconds", float("nan")),
                config,
                facts.get("budget", ""),
                judged.score,
                float(last["env_steps"].max()) if "env_steps" in last else float("nan"),
            )
        )
    if not found:
        raise UserError(f"{directory} holds no finished run of a comparison")
    return found


def table(entries: Sequence[Entry]) -> pd.DataFrame:
    """One row per agent and task: ``score`` (interquartile mean over seeds), ``low`` and ``high`` (95% bootstrap).

    With several tasks, all normalised, the rows of task ``all`` pool them, for agents that ran on every one with the
    same number of seeds; seeds are resampled within each task. The rows of agent ``behaviour`` are the data's own mean
    scores. An agent with a run that diverged has NaN, and
    ``diverged`` counts them. Best agents first, by their mean over tasks.
    """
    need("pandas")
    import pandas as pd

    tasks = sorted({entry.task for entry in entries})
    rows = []
    for agent in sorted({entry.agent for entry in entries}):
        own = {entry.task: entry for entry in entries if entry.agent == agent}
        for task, entry in own.items():
            diverged = int(np.isnan(entry.scores).sum())
            rows.append((agent, task, *_estimate(entry.scores[:, None]), entry.scores.size, entry.seconds, diverged))
        whole = len(tasks) > 1 and set(own) == set(tasks) and all(entry.normalised for entry in own.values())
        if whole and len({entry.scores.size for entry in own.values()}) == 1:
            scores = np.stack([own[task].scores for task in tasks], axis=-1)
            seconds = sum(entry.seconds for entry in own.values())
            rows.append((agent, ALL, *_estimate(scores), scores.shape[0], seconds, int(np.isnan(scores).sum())))
    for task in tasks:
        mean = next(entry.behaviour for entry in entries if entry.task == task)
        if np.isfinite(mean):
            rows.append((BEHAVIOUR, task, mean, np.nan, np.nan, 0, np.nan, 0))
    frame = pd.DataFrame(rows, columns=["agent", "task", "score", "low", "high", "seeds", "seconds", "diverged"])
    single = frame[frame["task"] != ALL]
    means = {agent: _mean(single[single["agent"] == agent]) for agent in set(frame["agent"])}
    means[BEHAVIOUR] = -np.inf  # the last row
    order = [-means[agent] for agent in frame["agent"]]
    return (
        frame.assign(_rank=order).sort_values(["_rank", "agent", "task"]).drop(columns="_rank").reset_index(drop=True)
    )


def _mean(frame: Any) -> float:
    return float(frame["score"].mean(skipna=False))


def _estimate(scores: Any) -> tuple[float, float, float]:
    import jax

    from jaxrl_reg.evaluation import statistics

    low, high = statistics.stratified_bootstrap(jax.random.key(0), scores, statistics.iqm, reps=RESAMPLES)
    return float(statistics.iqm(scores)), float(low), float(high)


def markdown(frame: pd.DataFrame, entries: Sequence[Entry], note: str = "") -> str:
    """The page: how the numbers came about, the table, the figure. ``note`` says where fixed settings come from."""
    tasks = [ALL] * bool((frame["task"] == ALL).any()) + sorted(set(frame["task"]) - {ALL})
    cells = {(row["agent"], row["task"]): row for _, row in frame.iterrows()}
    normalised, digits = all(entry.normalised for entry in entries), places(frame)
    judged = " or ".join(sorted({entry.judged for entry in entries}))
    budgets = sorted({_budget(entry) for entry in entries})
    behaviour = BEHAVIOUR in set(frame["agent"])
    fixed = {name: value for entry in entries for name, value in sorted(entry.config["settings"].items())}
    words = ", ".join(f"{name}={value}" for name, value in sorted(fixed.items()))
    lines = [
        "# Agents compared",
        "",
        "Written by `jaxrl-reg compare`; no number is typed by hand.",
        "",
        f"Interquartile mean over seeds of the {judged} after the last update, with its 95% "
        "stratified-bootstrap interval"
        + ("; 0 = random actions, 100 = the best policy of the collecting agent. " if normalised else ". ")
        + (f"Every agent that has it: {words}. " if fixed else "")
        + (f"{note} " if fixed and note else "")
        + ("All else is each agent's own default." if fixed else "Every agent has its own default hyperparameters.")
        + (" *behaviour*: mean over the data's own episodes." if behaviour else ""),
        "",
        *(f"- {budget}" for budget in budgets),
        *_played(entries),
        "",
        f"| agent | {' | '.join(tasks)} |",
        "|---" * (len(tasks) + 1) + "|",
    ]
    for agent in dict.fromkeys(frame["agent"]):
        lines.append(f"| {agent} | {' | '.join(cell(cells.get((agent, task)), digits[task]) for task in tasks)} |")
    return "\n".join([*lines, "", f"![scores of all agents]({FIGURE})", ""])


def _budget(entry: Entry) -> str:
    config = entry.config
    hidden = "the agents' own widths" if config["hidden"] is None else "x".join(map(str, config["hidden"]))
    budget = entry.budget or f"{config['updates']:,} updates of batch {config['batch_size']}"
    return (
        f"{' '.join(filter(None, (config['env'], config.get('dataset'))))}: {config['seeds']} seeds from "
        f"{config['seed_offset']}, {budget}, hidden layers {hidden}, {config['eval_episodes']} episodes per evaluation"
    )


def _played(entries: Sequence[Entry]) -> list[str]:
    """Who took how many environment steps, where the agents of a task did not all take as many."""
    lines = []
    for task in sorted({entry.task for entry in entries}):
        counts = {entry.agent: entry.played for entry in entries if entry.task == task and np.isfinite(entry.played)}
        if len(set(counts.values())) > 1:
            each = ", ".join(f"{agent} {count:,.0f}" for agent, count in counts.items())
            lines.append(f"- {task}: environment steps with those that only score levels: {each}")
    return lines


def places(frame: pd.DataFrame) -> dict[str, int]:
    """Decimals by task: more than one where scores are small, such as shares."""
    from jaxrl_reg.evaluation.report.words import decimals

    return {task: max(1, decimals([*part["score"]])) for task, part in frame.groupby("task")}


def cell(row: Any, digits: int = 1) -> str:
    """A row of ``table`` as ``score [low, high]``."""
    if row is None:
        return "–"
    if np.isnan(row["score"]):
        return f"{row['diverged']} diverged" if row["diverged"] else "–"
    score, low, high = (f"{row[name]:.{digits}f}" for name in ("score", "low", "high"))
    return score if np.isnan(row["low"]) else f"{score} [{low}, {high}]"


def figure(frame: pd.DataFrame, theme: Theme | None = None) -> Any:
    """A panel per task: every agent's score with its interval, the data's own policy as a line."""
    need("matplotlib")
    from matplotlib.figure import Figure

    from jaxrl_reg.evaluation import plots

    theme = theme or plots.LIGHT
    agents = [name for name in dict.fromkeys(frame["agent"]) if name != BEHAVIOUR]
    tasks = sorted(set(frame["task"]) - {ALL}) + [ALL] * bool((frame["task"] == ALL).any())
    canvas = Figure(
        figsize=(2.4 + 3.0 * len(tasks), 1.2 + 0.28 * len(agents)), layout="constrained", facecolor=theme.background
    )
    panels = canvas.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        part = frame[frame["task"] == task].set_index("agent")
        for row, agent in enumerate(agents):
            if agent in part.index:
                value = part.loc[agent]
                axes.hlines(row, value["low"], value["high"], color=theme.palette[0], linewidth=4, alpha=0.4)
                axes.plot(value["score"], row, "o", color=theme.palette[0], markersize=5)
        if BEHAVIOUR in part.index:
            axes.axvline(part.loc[BEHAVIOUR, "score"], color=theme.baseline, linestyle="--", linewidth=1.2)
        axes.set_title(task, color=theme.ink, fontsize=11)
        axes.set_xlabel("score", color=theme.ink)
        axes.grid(axis="x", color=theme.faint, linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(colors=theme.ink, length=0)
    panels[0].set_yticks(range(len(agents)), agents)
    panels[0].invert_yaxis()
    return canvas


def write(directory: str | pathlib.Path, note: str = "") -> pd.DataFrame:
    """Write ``comparison.md``, ``comparison.csv`` and ``comparison.png`` of all finished runs; returns the table.

    ``note``: a sentence of the page on where the settings come from that are fixed for all agents.

    Raises:
      UserError: if there are none.
    """
    from jaxrl_reg.evaluation import plots

    folder, entries = pathlib.Path(directory), read(directory)
    frame = table(entries)
    write_csv(folder / TABLE, frame)
    write_bytes(folder / FIGURE, plots.encode(figure(frame)))
    write_text(folder / PAGE, markdown(frame, entries, note))
    return frame

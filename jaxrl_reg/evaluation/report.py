"""The report of a run: which setting is how good, how sure that is, and against what. Reads files, writes files.

Scores are those of the last checkpoint unless a heading says "best". Every interval is a 95% percentile bootstrap over
seeds (over episodes for the data's own policy). A member whose score is not finite has diverged; it counts as the
lowest finite score seen in the run, so that divergence is never rewarded, and the table says how many there are.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation import plots
from jaxrl_reg.evaluation.viewer import templates
from jaxrl_reg.io.sinks import read_parquet

if TYPE_CHECKING:
    import pandas as pd

SEED = 0  # of the bootstrap: the same metrics give the same report
RESAMPLES = 2000
PROFILE_POINTS = 101
LARGEST_EMBEDDED = 3_000_000  # bytes of a rollout page that goes inside the report


class Estimate(NamedTuple):
    """A number with its 95% interval."""

    value: float
    low: float
    high: float

    def apart(self, other: Estimate) -> bool:
        """Whether the two intervals have no point in common."""
        return self.low > other.high or self.high < other.low


class Group(NamedTuple):
    """All runs of one setting of one agent. ``scores`` is ``[S, T]``: seeds, evaluations at ``updates`` ``[T]``."""

    agent: str
    setting: int
    hypers: dict[str, float | str]
    updates: np.ndarray
    scores: np.ndarray
    diverged: int
    curve: list[Estimate]  # IQM over seeds at each of ``updates``

    @property
    def label(self) -> str:
        """``actor_bc_coef=0.1``, or the agent's name where nothing is swept."""
        return labelled(self.hypers) or self.agent

    @property
    def last(self) -> Estimate:
        return self.curve[-1]

    @property
    def best(self) -> int:
        """Index of the evaluation with the highest IQM."""
        return int(np.argmax([point.value for point in self.curve]))


class Analysis(NamedTuple):
    """A run judged: ``groups`` are the agent's settings, ``behaviour`` the data's own policy (mean over episodes)."""

    agent: str
    score: str  # what the numbers are: "normalised score" or "return"
    groups: list[Group]
    baseline: Group | None
    behaviour: Estimate
    behaviour_scores: np.ndarray  # [episodes]
    improvement: list[Estimate | None]  # per setting: probability that a run beats one of the baseline
    minus_baseline: list[Estimate | None]
    minus_behaviour: list[Estimate]

    @property
    def order(self) -> list[int]:
        """Settings from best to worst, by the IQM of the last checkpoint; those that were stopped early come last."""
        return sorted(range(len(self.groups)), key=lambda i: (self.stopped(i), -self.groups[i].last.value))

    def stopped(self, setting: int) -> bool:
        """Whether a setting was stopped before the others: its last checkpoint is of fewer updates."""
        return bool(self.groups[setting].updates[-1] < max(group.updates[-1] for group in self.groups))


# ---------------------------------------------------------------------------------------------------------------------
# Numbers


def iqm_by_column(scores: Any) -> Any:
    """Interquartile mean of every column: ``[S, T] -> [T]``."""
    import jax

    from jaxrl_reg.evaluation import statistics

    return jax.vmap(lambda column: statistics.iqm(column[:, None]), in_axes=1)(scores)


def comparisons(x: Any, y: Any, episodes: Any) -> Any:
    """``[3 H + 1]``: for each column of ``x`` ``[S, H]`` the probability that it beats ``y`` ``[S', 1]``, its IQM minus
    that of ``y``, and its IQM minus the mean of ``episodes`` ``[E, 1]``; then that mean."""
    import jax
    import jax.numpy as jnp

    from jaxrl_reg.evaluation import statistics

    iqms, mean = iqm_by_column(x), statistics.mean(episodes)
    chances = jax.vmap(lambda column: statistics.probability_of_improvement(column[:, None], y), in_axes=1)(x)
    return jnp.concatenate([chances, iqms - statistics.iqm(y), iqms - mean, mean[None]])


def profile_by_column(scores: Any, thresholds: Any) -> Any:
    """Performance profile of every column: ``[S, G]`` and ``[1, K]`` to ``[G, K]``."""
    import jax

    from jaxrl_reg.evaluation import statistics

    return jax.vmap(lambda column: statistics.performance_profile(column[:, None], thresholds[0]), in_axes=1)(scores)


def bootstrap(statistic: Any, *scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``statistic(*scores)`` with the ends of its 95% intervals, as three arrays.

    One call for all settings: compiling costs seconds and running nothing. Columns are resampled independently.
    """
    import jax

    from jaxrl_reg.evaluation import statistics

    # A divisor of the number of resamples, else the remainder is a second program; smaller where memory asks for it.
    size = max(array.size for array in scores)
    chunk = next(n for n in (250, 50, 10, 1) if n * size < 50_000_000 or n == 1)
    low, high = statistics.stratified_bootstrap(
        jax.random.key(SEED), tuple(scores), statistic, reps=RESAMPLES, chunk=chunk
    )
    return np.asarray(jax.jit(statistic)(*scores)), np.asarray(low), np.asarray(high)


def _estimates(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[Estimate]:
    return [Estimate(*map(float, ends)) for ends in zip(value, low, high, strict=True)]


def pool(frame: pd.DataFrame, score: str) -> pd.DataFrame:
    """One row per agent, member and update: evaluations of the same checkpoint averaged, weighted by their episodes."""
    frame = frame.assign(_weighted=frame[score] * frame["episodes"])
    keys = ["agent", "setting", "seed", "update"]
    summed = frame.groupby(keys, as_index=False).agg({"_weighted": lambda x: x.sum(skipna=False), "episodes": "sum"})
    return summed.assign(**{score: summed["_weighted"] / summed["episodes"]}).drop(columns="_weighted")


def analyse(
    frame: pd.DataFrame, about: Mapping[str, Any], agent: str, swept: Sequence[str] = (), baseline: str = "bc"
) -> Analysis:
    """Everything that the report states, from the rows of ``metrics.parquet``.

    Args:
      frame: columns ``agent, setting, seed, update, episodes, eval/return``, ``eval/score`` where scores are
        normalised, and one per swept hyperparameter.
      about: the data set: ``returns`` of its episodes, ``normalised``, ``score_random``, ``score_expert``.
      agent: whose settings to judge.
      swept: names of its swept hyperparameters.
      baseline: the agent to compare with; not compared where it is the same or has no rows.

    Raises:
      UserError: if there are no rows of ``agent``.
    """
    import jax

    # Small sums: an accelerator would not help, and another one would round differently.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return _analyse(frame, about, agent, list(swept), baseline)


def data_scores(about: Mapping[str, Any]) -> np.ndarray:
    """The scores of the data's own episodes, from a data set's summary: normalised where it has its references."""
    from jaxrl_reg.data import normalised

    returns = np.asarray(about["returns"], float)
    if not about["normalised"]:
        return returns
    return normalised(returns, about["score_random"], about["score_expert"])


def score_column(frame: pd.DataFrame, about: Mapping[str, Any]) -> str:
    """The column that is judged: the normalised score where the data set has its two references."""
    return "eval/score" if "eval/score" in frame and about["normalised"] else "eval/return"


def _analyse(frame: pd.DataFrame, about: Mapping[str, Any], agent: str, swept: list[str], baseline: str) -> Analysis:
    score = score_column(frame, about)
    if not (frame["agent"] == agent).any():
        raise UserError(f"the run has no metrics of {agent} yet; continue it with resume")
    episodes = data_scores(about) if score == "eval/score" else np.asarray(about["returns"], float)
    finite = frame[score].replace([np.inf, -np.inf], np.nan)
    lowest = float(finite.min()) if finite.notna().any() else 0.0
    pooled = pool(frame.assign(**{score: finite}), score)
    compared = baseline != agent and (frame["agent"] == baseline).any()

    def group(name: str, setting: int) -> Group:
        rows = pooled[(pooled["agent"] == name) & (pooled["setting"] == setting)]
        table = rows.pivot(index="seed", columns="update", values=score)
        scores = table.to_numpy(float)
        diverged = int(np.isnan(scores[:, -1]).sum())
        first = frame[(frame["agent"] == name) & (frame["setting"] == setting)].iloc[0]
        hypers = {key: first[key] for key in swept} if name == agent else {}
        return Group(name, setting, hypers, table.columns.to_numpy(), np.nan_to_num(scores, nan=lowest), diverged, [])

    settings = sorted(frame.loc[frame["agent"] == agent, "setting"].unique())
    groups = [group(agent, int(setting)) for setting in settings] + ([group(baseline, 0)] if compared else [])
    if len({len(one.scores) for one in groups}) > 1:
        raise UserError("metrics are missing for some seeds; continue the run with resume")
    points = _estimates(*bootstrap(iqm_by_column, np.concatenate([one.scores for one in groups], axis=1)))
    for i, one in enumerate(groups):
        count = one.scores.shape[1]
        groups[i], points = one._replace(curve=points[:count]), points[count:]

    other = groups.pop() if compared else None
    last = np.stack([one.scores[:, -1] for one in groups], axis=1)
    reference = other.scores[:, -1:] if other is not None else np.zeros((len(last), 1))
    compare = _estimates(*bootstrap(comparisons, last, reference, episodes[:, None]))
    h, nothing = len(groups), [None] * len(groups)
    return Analysis(
        agent=agent,
        score="normalised score" if score == "eval/score" else "return",
        groups=groups,
        baseline=other,
        behaviour=compare[-1],
        behaviour_scores=episodes,
        improvement=[*compare[:h]] if compared else [*nothing],
        minus_baseline=[*compare[h : 2 * h]] if compared else [*nothing],
        minus_behaviour=compare[2 * h : 3 * h],
    )


def table(analysis: Analysis) -> pd.DataFrame:
    """``table.csv``: one row per setting, best first, then the baseline and the data's own policy."""
    import pandas as pd

    def spread(name: str, estimate: Estimate | None) -> dict[str, Any]:
        value, low, high = estimate if estimate is not None else (None, None, None)
        return {name: value, f"{name}_low": low, f"{name}_high": high}

    def runs(group: Group) -> dict[str, Any]:
        return {
            "agent": group.agent,
            **group.hypers,
            "runs": len(group.scores),
            "diverged": group.diverged,
            "last_update": int(group.updates[-1]),
            **spread("last_iqm", group.last),
            "best_update": int(group.updates[group.best]),
            **spread("best_iqm", group.curve[group.best]),
        }

    rows = []
    for i in analysis.order:
        group, other = analysis.groups[i], analysis.baseline
        rows.append(
            {
                **runs(group),
                **spread("p_better_than_baseline", analysis.improvement[i]),
                **spread("minus_baseline", analysis.minus_baseline[i]),
                "apart_from_baseline": group.last.apart(other.last) if other else None,
                **spread("minus_behaviour", analysis.minus_behaviour[i]),
                "apart_from_behaviour": group.last.apart(analysis.behaviour),
            }
        )
    if analysis.baseline is not None:
        rows.append(runs(analysis.baseline))
    rows.append({"agent": "behaviour", **spread("last_iqm", analysis.behaviour)})
    frame = pd.DataFrame(rows)
    whole = ["runs", "diverged", "last_update", "best_update"]
    return frame.astype(
        {**dict.fromkeys(whole, "Int64"), "apart_from_baseline": "boolean", "apart_from_behaviour": "boolean"}
    )


class Members(NamedTuple):
    """Every member by itself, for a table to sort and filter: cells are ``(value, text)``."""

    columns: list[str]
    rows: list[list[tuple[Any, str]]]


def members(frame: pd.DataFrame, score: str, swept: Sequence[str] = ()) -> Members:
    """The last and the best score of every member, best first; those that diverged or were stopped say so."""
    pooled = pool(frame, score)
    hypers = frame.groupby(["agent", "setting"]).first()
    longest = pooled["update"].max()
    found = []
    for (agent, setting, seed), rows in pooled.sort_values("update").groupby(["agent", "setting", "seed"]):
        values, updates = rows[score].to_numpy(float), rows["update"].to_numpy(int)
        finite = np.isfinite(values)
        best = int(np.where(finite, values, -np.inf).argmax())
        state = "diverged" if not finite[-1] else "stopped" if updates[-1] < longest else ""
        own = hypers.loc[(agent, setting)]
        found.append((agent, int(setting), int(seed), own, values, updates, best, state))
    found.sort(key=lambda one: -one[4][-1] if np.isfinite(one[4][-1]) else np.inf)
    places = decimals([one[4][-1] for one in found])

    def scored(value: float) -> tuple[Any, str]:
        return (value, number(value, places)) if np.isfinite(value) else ("", "")

    def swept_cell(own: Any, name: str) -> tuple[Any, str]:
        return ("", "") if _missing(own[name]) else (own[name], _text(own[name]))

    columns = ["agent", *swept, "setting", "seed", "last", "best", "best_at", "updates", "state"]
    return Members(
        columns,
        [
            [
                (agent, agent),
                *(swept_cell(own, name) for name in swept),
                (setting, str(setting)),
                (seed, str(seed)),
                scored(values[-1]),
                scored(values[best]),
                (int(updates[best]), f"{int(updates[best]):,}"),
                (int(updates[-1]), f"{int(updates[-1]):,}"),
                (state, state),
            ]
            for agent, setting, seed, own, values, updates, best, state in found
        ],
    )


# ---------------------------------------------------------------------------------------------------------------------
# Tasks after training

ALL_TASKS = "all tasks"


class Served(NamedTuple):
    """One setting of an agent that learnt without rewards: its score on each task, and over all of them pooled.

    ``behaviour`` is what the data's own policy gets by the same reward: the mean of a step times an episode's length.
    """

    label: str
    setting: int
    hypers: dict[str, float | str]
    runs: int
    tasks: dict[str, Estimate]
    overall: Estimate
    behaviour: dict[str, float]


def task_statistics(*scores: Any) -> Any:
    """``[settings (T + 1)]`` from one ``[S, T]`` per setting: IQM over runs of each task, then over runs and tasks."""
    import jax.numpy as jnp

    from jaxrl_reg.evaluation import statistics

    return jnp.concatenate([jnp.append(iqm_by_column(one), statistics.iqm(one)) for one in scores])


def served(frame: pd.DataFrame, swept: Sequence[str] = ()) -> list[Served]:
    """What ``zeroshot.parquet`` says, best setting first; a score that is not finite counts as the lowest that is."""
    import jax

    tasks = list(dict.fromkeys(frame["task"]))
    finite = frame["score"].replace([np.inf, -np.inf], np.nan)
    frame = frame.assign(score=finite.fillna(finite.min() if finite.notna().any() else 0.0))
    settings = sorted(frame["setting"].unique())
    scores = [
        frame[frame["setting"] == setting].pivot(index="seed", columns="task", values="score")[tasks].to_numpy(float)
        for setting in settings
    ]
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        estimates = _estimates(*bootstrap(task_statistics, *scores))
    found, width = [], len(tasks) + 1
    for i, setting in enumerate(settings):
        rows = frame[frame["setting"] == setting]
        hypers = {name: rows[name].iloc[0] for name in swept}
        label = labelled(hypers) or str(rows["agent"].iloc[0])
        mine = estimates[i * width : (i + 1) * width]
        behaviour = {task: float(rows.loc[rows["task"] == task, "behaviour"].iloc[0]) for task in tasks}
        each = dict(zip(tasks, mine, strict=False))
        found.append(Served(label, int(setting), hypers, len(scores[i]), each, mine[-1], behaviour))
    return sorted(found, key=lambda one: -one.overall.value)


def task_table(settings: Sequence[Served]) -> pd.DataFrame:
    """``zeroshot.csv``: one row per setting and task, ``all tasks`` last."""
    import pandas as pd

    rows = []
    for one in settings:
        for task, estimate in [*one.tasks.items(), (ALL_TASKS, one.overall)]:
            behaviour = one.behaviour.get(task, float(np.mean(list(one.behaviour.values()))))
            about = {"setting": one.setting, **one.hypers, "label": one.label, "task": task, "runs": one.runs}
            rows.append(
                {**about, "iqm": estimate.value, "low": estimate.low, "high": estimate.high} | {"behaviour": behaviour}
            )
    return pd.DataFrame(rows)


def brief_tasks(frame: pd.DataFrame) -> list[list[str]]:
    """A task table for a terminal: a row per task, a column per setting, best first, and the data's own policy."""
    labels = list(dict.fromkeys(frame["label"]))
    places = decimals([*frame["iqm"], *frame["high"]])
    rows = [["return, IQM [95%]", *labels, "data's own policy"]]
    for task in dict.fromkeys(frame["task"]):
        mine = frame[frame["task"] == task].set_index("label")
        cells = [
            f"{number(mine.loc[label, 'iqm'], places)} "
            f"{interval(Estimate(*mine.loc[label, ['iqm', 'low', 'high']].astype(float)), places)}"
            for label in labels
        ]
        rows.append([task, *cells, number(float(mine["behaviour"].iloc[0]), places)])
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# Figures


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
    """``curves``, ``profile``, ``tuning`` and ``returns`` as Matplotlib figures."""
    ordered = len(analysis.groups) > 1 and len(analysis.groups[0].hypers) == 1
    score, behaviour = analysis.score, {"data's own policy": analysis.behaviour.value}
    return {
        "curves": plots.learning_curves(drawn.curves, score=score, references=behaviour, ordered=ordered, theme=theme),
        "profile": plots.performance_profile(drawn.profile, score=score, ordered=ordered, theme=theme),
        "tuning": plots.tuning_curve(drawn.tuning, score=score, theme=theme),
        "returns": plots.histogram(analysis.behaviour_scores, xlabel=f"{score} of an episode in the data", theme=theme),
    }


def task_figure(settings: Sequence[Served], theme: plots.Theme) -> Any:
    """Every setting's score on every task."""
    tasks = list(settings[0].tasks)
    shown = [(one.label, [Estimate(*estimate) for estimate in [*one.tasks.values(), one.overall]]) for one in settings]
    behaviour = [settings[0].behaviour[task] for task in tasks]
    names = [task.replace("_", " ") for task in tasks]
    return plots.by_task([*names, ALL_TASKS], shown, [*behaviour, float(np.mean(behaviour))], theme=theme)


# ---------------------------------------------------------------------------------------------------------------------
# Words and pages


def decimals(values: Sequence[float]) -> int:
    """How many decimals tell scores of this size apart without pretending more."""
    largest = max((abs(value) for value in values if np.isfinite(value)), default=0.0)
    return 0 if largest >= 1000 else 1 if largest >= 10 else 2 if largest >= 1 else 3


def number(value: float, places: int, sign: bool = False) -> str:
    """``1,234``, ``56.7`` or ``+8.9``, with a real minus sign."""
    return f"{value:{'+' if sign else ''},.{places}f}".replace("-", "\N{MINUS SIGN}")


def interval(estimate: Estimate, places: int) -> str:
    """``[12.3, 45.6]``"""
    return f"[{number(estimate.low, places)}, {number(estimate.high, places)}]"


def verdict(analysis: Analysis) -> list[str]:
    """The finding in a few sentences."""
    best = analysis.groups[analysis.order[0]]
    places = _places(analysis)
    name = f"{analysis.agent} with {best.label}" if best.hypers else analysis.agent
    runs = f"{len(best.scores)} runs" if len(best.scores) > 1 else "a single run"
    sentences = [
        f"{name} reaches a {analysis.score} of {number(best.last.value, places)} {interval(best.last, places)} "
        f"after {int(best.updates[-1]):,} updates (interquartile mean of {runs})."
    ]
    i = analysis.order[0]
    difference = analysis.minus_baseline[i]
    if analysis.baseline is not None and difference is not None:
        other = analysis.baseline
        apart = best.last.apart(other.last)
        sentences.append(
            f"Behaviour cloning reaches {number(other.last.value, places)} {interval(other.last, places)}: "
            f"a difference of {number(difference.value, places, sign=True)} {interval(difference, places)}, "
            f"intervals {'apart' if apart else 'overlapping'}."
        )
    apart = best.last.apart(analysis.behaviour)
    against = analysis.minus_behaviour[i]
    sentences.append(
        f"The policy that made the data scores {number(analysis.behaviour.value, places)}: "
        f"{number(against.value, places, sign=True)} {interval(against, places)}, "
        f"intervals {'apart' if apart else 'overlapping'}."
    )
    if len(analysis.groups) > 1:
        sentences.append(
            f"This setting is the best of {len(analysis.groups)}, chosen on these very runs, so its number flatters: "
            "train it again on seeds not used here (--seed-offset) before quoting it."
        )
    return sentences


def _places(analysis: Analysis) -> int:
    groups = [*analysis.groups, *([analysis.baseline] if analysis.baseline else [])]
    return decimals([analysis.behaviour.value, *(group.last.value for group in groups)])


def brief(frame: pd.DataFrame) -> list[list[str]]:
    """The table for a terminal: rows of text, headings first, the columns that matter least last."""
    places = decimals([*frame["last_iqm"], *frame["best_iqm"].dropna()])
    swept = [name for name in frame.columns if name not in _FIXED]

    def cell(row: Any, name: str, digits: int, sign: bool = False) -> str:
        if name not in row or not np.isfinite(_float(row[name])):
            return ""
        estimate = Estimate(*(_float(row[key]) for key in (name, f"{name}_low", f"{name}_high")))
        return f"{number(estimate.value, digits, sign)} {interval(estimate, digits)}"

    rows = [["", "last IQM [95%]", "minus bc", "P(> bc)", "best IQM [95%] at update"]]
    for _, row in frame.iterrows():
        values = " ".join(f"{name}={_text(row[name])}" for name in swept if not _missing(row[name]))
        best = cell(row, "best_iqm", places)
        rows.append(
            [
                f"{row['agent']} {values}".strip(),
                cell(row, "last_iqm", places),
                cell(row, "minus_baseline", places, sign=True),
                cell(row, "p_better_than_baseline", 2),
                f"{best} {int(row['best_update']):,}" if best else "",
            ]
        )
    return rows


_FIXED = (
    "agent",
    "runs",
    "diverged",
    "last_update",
    "best_update",
    "apart_from_baseline",
    "apart_from_behaviour",
    *(
        f"{name}{end}"
        for name in ("last_iqm", "best_iqm", "p_better_than_baseline", "minus_baseline", "minus_behaviour")
        for end in ("", "_low", "_high")
    ),
)


def labelled(hypers: Mapping[str, Any]) -> str:
    """``actor_bc_coef=0.1, hidden=64x64``"""
    return ", ".join(f"{name}={_text(value)}" for name, value in hypers.items())


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):  # pandas' missing values
        return float("nan")


def _row(analysis: Analysis, i: int | None, group: Group | None, scale: Any, places: int) -> dict[str, Any]:
    """What the template shows of one line of the results table."""
    last = analysis.behaviour if group is None else group.last

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
        "hypers": [] if group is None else [(value, _text(value)) for value in group.hypers.values()],
        "last": shown(last, places),
        "bar": {"low": scale(last.low), "width": scale(last.high) - scale(last.low), "value": scale(last.value)},
    }
    if group is not None:
        row |= {
            "best": shown(group.curve[group.best], places),
            "best_update": f"{int(group.updates[group.best]):,}",
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
            "apart_behaviour": group.last.apart(analysis.behaviour),
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
    """
    places = _places(analysis)
    everything = [*analysis.groups, *([analysis.baseline] if analysis.baseline else [])]
    edges = [edge for group in everything for edge in (group.last.low, group.last.high)]
    edges += [analysis.behaviour.low, analysis.behaviour.high]
    low, span = min(edges), (max(edges) - min(edges)) or 1.0

    def scale(value: float) -> float:
        """Per cent of the way from the least to the greatest end of any interval."""
        return round(2.0 + 96.0 * (value - low) / span, 2)

    light, dark = (figures(analysis, drawn, theme) for theme in (plots.LIGHT, plots.DARK))
    if tasks:
        for shown, theme in ((light, plots.LIGHT), (dark, plots.DARK)):
            shown["tasks"] = task_figure(tasks, theme)
    embedded = episode is not None and len(episode) <= LARGEST_EMBEDDED and not _asks_elsewhere(episode)
    config, about = stored["config"], facts["dataset"]
    template = templates().get_template("report.html")
    return template.render(
        agent=analysis.agent,
        env=config["env"],
        dataset=about["name"],
        created=stored["created"],
        score=analysis.score,
        verdict=verdict(analysis),
        swept=list(analysis.groups[0].hypers),
        rows=[_row(analysis, i, analysis.groups[i], scale, places) for i in analysis.order],
        baseline=_row(analysis, None, analysis.baseline, scale, places) if analysis.baseline else None,
        behaviour=_row(analysis, None, None, scale, places),
        reference=scale(analysis.baseline.last.value) if analysis.baseline else None,
        last_update=f"{int(analysis.groups[analysis.order[0]].updates[-1]):,}",
        any_stopped=any(map(analysis.stopped, range(len(analysis.groups)))),
        any_diverged=any(group.diverged for group in everything),
        few=min(len(group.scores) for group in everything) < 10,
        figures={name: (plots.data_uri(light[name]), plots.data_uri(dark[name])) for name in light},
        episode=episode if embedded else None,
        viewer=viewer,
        tasks=brief_tasks(task_table(tasks)) if tasks else [],
        facts=_facts(stored, facts, analysis),
        members=everyone,
    )


def _asks_elsewhere(page: str) -> bool:
    """Whether a page names any address of the web, apart from those that only name a file format."""
    return re.search(r"https?://(?!www\.w3\.org)", page) is not None


def _facts(
    stored: Mapping[str, Any], facts: Mapping[str, Any], analysis: Analysis
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled lists of names and values for the end of the page."""
    about, environment = facts["dataset"], stored["environment"]
    returns = np.asarray(about["returns"], float)
    places = decimals(returns)
    quartiles = np.quantile(returns, [0.25, 0.5, 0.75])
    data = [
        ("name", about["name"]),
        ("file", about["file"]),
        ("rows", f"{about['rows']:,}"),
        ("episodes", f"{about['episodes']:,}"),
        ("observation, action", f"{about['observation']}, {about['action']}"),
        ("of them cut short, and not counted below", f"{about['cut_episodes']:,}"),
        ("return of an episode, mean", number(returns.mean(), places)),
        ("return, least to greatest", f"{number(returns.min(), places)} to {number(returns.max(), places)}"),
        ("return, quartiles", ", ".join(number(value, places) for value in quartiles)),
        ("rows that end in a terminal state", f"{100 * about['terminal_fraction']:.2f}%"),
    ]
    if about["normalised"]:
        low, high = (number(about[name], places) for name in ("score_random", "score_expert"))
        data.append(
            ("score 0 and 100 are returns of", f"{low} (random) and {high} (expert), measured in this environment")
        )
    clock = [(name, seconds(value)) for name, value in facts.get("wall", {}).items()]
    for name, known in facts.get("training", {}).items():
        clock += [
            (f"{name}: plan", known["plan"]),
            (f"{name}: trained parameters per member", f"{known['parameters']:,}"),
            (f"{name}: tracing, compiling", f"{seconds(known['trace_seconds'])}, {seconds(known['compile_seconds'])}"),
        ]
        if "train_seconds" in known:
            rate = f"{known['updates_per_second']:,.0f} updates per second, all members together"
            clock.append((f"{name}: training and evaluating", f"{seconds(known['train_seconds'])} ({rate})"))
    hypers = {name: values[0] for name, values in stored["hypers"].items() if name not in analysis.groups[0].hypers}
    settings = [(name, _text(value)) for name, value in stored["config"].items() if value not in (None, {}, False)]
    machine = [(name, _text(environment[name])) for name in ("devices", "cores", "platform", "xla_flags", "precision")]
    return [
        ("Run", settings),
        (f"Settings of {analysis.agent}", [(name, _text(value)) for name, value in stored["agent_config"].items()]),
        ("Hyperparameters that were not swept", [(name, _text(value)) for name, value in hypers.items()]),
        ("Data", data),
        ("Wall clock", clock),
        ("Versions", [*environment["versions"].items(), ("commit", environment["commit"] or "not a git checkout")]),
        ("Machine", machine),
    ]


def seconds(value: float) -> str:
    """``0.42 s``, ``12.3 s``, ``4 min 05 s`` or ``2 h 03 min``."""
    if value < 100:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}={_text(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    return str(value)


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
        analysis = analyse(frame, facts["dataset"], config["agent"], swept)
    except KeyError as error:
        raise UserError(f"{directory}: its files lack {error}; they are not those of a run of this version") from error
    summary = table(analysis)
    summary.to_csv(directory / "table.csv", index=False)
    drawn = lines(analysis)
    light = figures(analysis, drawn, plots.LIGHT)
    for name in ("curves", "profile"):
        (directory / f"{name}.png").write_bytes(plots.encode(light[name]))
    episode, viewer = directory / "episode.html", directory / "rollout.html"
    tasks: list[Served] = []
    if (directory / "zeroshot.parquet").exists():
        tasks = served(read_parquet(directory / "zeroshot.parquet"), swept)
        task_table(tasks).to_csv(directory / "zeroshot.csv", index=False)
        (directory / "zeroshot.png").write_bytes(plots.encode(task_figure(tasks, plots.LIGHT)))
    page = render(
        analysis,
        drawn,
        stored,
        facts,
        episode.read_text() if episode.exists() else None,
        viewer.name if viewer.exists() else None,
        tasks,
        members(frame, score_column(frame, facts["dataset"]), swept),
    )
    (directory / "report.html").write_text(page)
    return summary


def _json(path: pathlib.Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path} does not exist; the run has not started to train")
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged and cannot be read ({str(error).splitlines()[0]})") from error

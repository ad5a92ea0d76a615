"""A run judged: its metrics as settings with scores, intervals, and what they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.report.estimates import Estimate, bootstrap, comparisons, estimates, iqm_by_column
from jaxrl_reg.evaluation.report.judged import Judged, judged_by
from jaxrl_reg.evaluation.report.words import labelled

if TYPE_CHECKING:
    import pandas as pd


TRUE = "eval/reward/true"  # of a world whose reward is a proxy for another one


class Group(NamedTuple):
    """All runs of one setting of one agent. ``scores`` is ``[S, T]``: seeds, evaluations at ``updates`` ``[T]``, which
    count what the axis of the run counts. ``true`` is the true return at the last of them, of worlds that pay a
    proxy."""

    agent: str
    setting: int
    hypers: dict[str, float | str]
    updates: np.ndarray
    scores: np.ndarray
    diverged: int
    curve: list[Estimate]  # IQM over seeds at each of ``updates``
    true: Estimate | None = None

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
    """A run judged: ``groups`` are the agent's settings, ``behaviour`` the data's own policy (mean over episodes), None
    without a data set."""

    agent: str
    score: str  # what the numbers are: "normalised score" or "return"
    judged: Judged
    groups: list[Group]
    baseline: Group | None
    behaviour: Estimate | None
    behaviour_scores: np.ndarray  # [episodes]
    improvement: list[Estimate | None]  # per setting: probability that a run beats one of the baseline
    minus_baseline: list[Estimate | None]
    minus_behaviour: list[Estimate | None]

    @property
    def order(self) -> list[int]:
        """Settings from best to worst, by the IQM of the last checkpoint; those that were stopped early come last."""
        return sorted(range(len(self.groups)), key=lambda i: (self.stopped(i), -self.groups[i].last.value))

    def stopped(self, setting: int) -> bool:
        """Whether a setting was stopped before the others: its last checkpoint is of fewer updates."""
        return bool(self.groups[setting].updates[-1] < max(group.updates[-1] for group in self.groups))


def pool(frame: pd.DataFrame, score: str, column: str = "update") -> pd.DataFrame:
    """One row per agent, member and place on the axis: evaluations of the same checkpoint averaged, weighted by their
    episodes."""
    frame = frame.assign(_weighted=frame[score] * frame["episodes"])
    keys = ["agent", "setting", "seed", column]
    summed = frame.groupby(keys, as_index=False).agg({"_weighted": lambda x: x.sum(skipna=False), "episodes": "sum"})
    return summed.assign(**{score: summed["_weighted"] / summed["episodes"]}).drop(columns="_weighted")


def analyse(
    frame: pd.DataFrame,
    about: Mapping[str, Any] | None,
    agent: str,
    swept: Sequence[str] = (),
    judged: Judged | None = None,
) -> Analysis:
    """Everything that the report states, from the rows of ``metrics.parquet``.

    Args:
      frame: columns ``agent, setting, seed, episodes``, those that ``judged`` names, and one per swept hyperparameter.
      about: the data set: ``returns`` of its episodes, ``normalised``, ``score_random``, ``score_expert``; None for a
        run without one.
      agent: whose settings to judge.
      swept: names of its swept hyperparameters.
      judged: by what; as the data set allows, against behaviour cloning, by default. The baseline is not compared where
        it is the agent itself or has no rows.

    Raises:
      UserError: if there are no rows of ``agent``.
    """
    import jax

    if judged is None:
        judged = judged_by({"dataset": about})
    # Small sums: an accelerator would not help, and another one would round differently.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return _analyse(frame, about, agent, list(swept), judged)


def data_scores(about: Mapping[str, Any]) -> np.ndarray:
    """The scores of the data's own episodes, from a data set's summary: normalised where it has its references."""
    from jaxrl_reg.data import normalised

    returns = np.asarray(about["returns"], float)
    if not about["normalised"]:
        return returns
    return normalised(returns, about["score_random"], about["score_expert"])


def _analyse(
    frame: pd.DataFrame, about: Mapping[str, Any] | None, agent: str, swept: list[str], judged: Judged
) -> Analysis:
    score, baseline = judged.metric, judged.baseline
    if not (frame["agent"] == agent).any() or score not in frame:
        raise UserError(f"the run has no metrics of {agent} yet; continue it with resume")
    episodes = np.zeros(0)
    if about is not None:
        # What is neither a return nor made of one is not known of the data's own episodes.
        known = {"eval/score": data_scores, "eval/return": lambda about: np.asarray(about["returns"], float)}
        episodes = known[score](about) if score in known else episodes
    finite = frame[score].replace([np.inf, -np.inf], np.nan)
    lowest = float(finite.min()) if finite.notna().any() else 0.0
    pooled = pool(frame.assign(**{score: finite}), score, judged.column)
    compared = baseline is not None and baseline != agent and bool((frame["agent"] == baseline).any())

    def group(name: str, setting: int) -> Group:
        rows = pooled[(pooled["agent"] == name) & (pooled["setting"] == setting)]
        table = rows.pivot(index="seed", columns=judged.column, values=score)
        scores = table.to_numpy(float)
        diverged = int(np.isnan(scores[:, -1]).sum())
        first = frame[(frame["agent"] == name) & (frame["setting"] == setting)].iloc[0]
        hypers = {key: first[key] for key in swept} if name == agent else {}
        return Group(name, setting, hypers, table.columns.to_numpy(), np.nan_to_num(scores, nan=lowest), diverged, [])

    settings = sorted(frame.loc[frame["agent"] == agent, "setting"].unique())
    groups = [group(agent, int(setting)) for setting in settings] + ([group(str(baseline), 0)] if compared else [])
    if len({len(one.scores) for one in groups}) > 1:
        raise UserError("metrics are missing for some seeds; continue the run with resume")
    points = estimates(*bootstrap(iqm_by_column, np.concatenate([one.scores for one in groups], axis=1)))
    for i, one in enumerate(groups):
        count = one.scores.shape[1]
        groups[i], points = one._replace(curve=points[:count]), points[count:]

    groups = _with_true(frame, groups, judged.column)
    other = groups.pop() if compared else None
    last = np.stack([one.scores[:, -1] for one in groups], axis=1)
    reference = other.scores[:, -1:] if other is not None else np.zeros((len(last), 1))
    known = episodes if episodes.size else np.zeros(1)
    compare = estimates(*bootstrap(comparisons, last, reference, known[:, None]))
    h, nothing = len(groups), [None] * len(groups)
    return Analysis(
        agent=agent,
        score=judged.score,
        judged=judged,
        groups=groups,
        baseline=other,
        behaviour=compare[-1] if episodes.size else None,
        behaviour_scores=episodes,
        improvement=[*compare[:h]] if compared else [*nothing],
        minus_baseline=[*compare[h : 2 * h]] if compared else [*nothing],
        minus_behaviour=[*compare[2 * h : 3 * h]] if episodes.size else [*nothing],
    )


def _with_true(frame: pd.DataFrame, groups: list[Group], column: str) -> list[Group]:
    """The groups with their true return, where the world has one; a run that diverged counts as the lowest."""
    if TRUE not in frame or frame[TRUE].isna().all():
        return groups
    finite = frame[TRUE].replace([np.inf, -np.inf], np.nan)
    pooled = pool(frame.assign(**{TRUE: finite.fillna(finite.min())}), TRUE, column)
    lasts = []
    for one in groups:
        rows = pooled[(pooled["agent"] == one.agent) & (pooled["setting"] == one.setting)]
        lasts.append(rows[rows[column] == one.updates[-1]].sort_values("seed")[TRUE].to_numpy(float))
    found = estimates(*bootstrap(iqm_by_column, np.stack(lasts, axis=1)))
    return [one._replace(true=estimate) for one, estimate in zip(groups, found, strict=True)]

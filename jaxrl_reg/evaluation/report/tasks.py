"""Tasks that were put to an agent after training: their scores, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxrl_reg.errors import need
from jaxrl_reg.evaluation.report.estimates import Estimate, bootstrap, estimates, iqm_by_column
from jaxrl_reg.evaluation.report.words import labelled

if TYPE_CHECKING:
    import pandas as pd


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
        pooled = estimates(*bootstrap(task_statistics, *scores))
    found, width = [], len(tasks) + 1
    for i, setting in enumerate(settings):
        rows = frame[frame["setting"] == setting]
        hypers = {name: rows[name].iloc[0] for name in swept}
        label = labelled(hypers) or str(rows["agent"].iloc[0])
        if "diverged" in rows and (lost := rows.loc[rows["diverged"].astype(bool), "seed"].nunique()):
            label += f" ({lost} of {len(scores[i])} diverged)"
        mine = pooled[i * width : (i + 1) * width]
        behaviour = {task: float(rows.loc[rows["task"] == task, "behaviour"].iloc[0]) for task in tasks}
        each = dict(zip(tasks, mine, strict=False))
        found.append(Served(label, int(setting), hypers, len(scores[i]), each, mine[-1], behaviour))
    return sorted(found, key=lambda one: -one.overall.value)


def task_table(settings: Sequence[Served]) -> pd.DataFrame:
    """``zeroshot.csv``: one row per setting and task, ``all tasks`` last."""
    need("pandas")
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

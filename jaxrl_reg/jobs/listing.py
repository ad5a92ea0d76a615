"""The runs below a directory side by side: what was trained on what, and what it came to."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError, need, unknown
from jaxrl_reg.io.files import read_json
from jaxrl_reg.jobs.files import load_config

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "run",
    "kind",
    "environment",
    "agent",
    "dataset",
    "setting",
    "settings",
    "score_name",
    "score",
    "low",
    "high",
    "runs",
    "diverged",
    "state",
)


def runs(root: str | pathlib.Path = "runs", *, agent: str | None = None) -> pd.DataFrame:
    """One row per run directory below ``root``, those that can be compared together and the best of them first.

    ``setting`` is the best of the ``settings`` of a sweep; ``score`` is the interquartile mean over its ``runs`` seeds
    after the last evaluation, from ``low`` to ``high`` (95% bootstrap), ``score_name`` what it is; ``diverged`` counts
    seeds; ``state`` says when it finished, or how far it has got. Directories that hold no run are passed over.

    Args:
      root: a directory.
      agent: of this agent only.

    Raises:
      UserError: if there is no such directory, no run below it, or none of the agent.
    """
    need("pandas")
    import pandas as pd

    folder = pathlib.Path(root)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a directory; give the one that holds the runs")
    rows = []
    for path in sorted(folder.rglob("config.json")):
        if "checkpoints" in path.relative_to(folder).parts:
            continue
        try:
            rows.append(_row(path.parent, folder))
        except UserError as error:
            rows.append({"run": _name(path.parent, folder), "state": f"cannot be read: {error}"})
    if not rows:
        raise UserError(f"{folder} holds no runs")
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    if agent is not None:
        if not (found["agent"] == agent).any():
            raise unknown(f"agent in {folder}", agent, {str(name) for name in found["agent"].dropna()})
        found = found[found["agent"] == agent]
    together = ["environment", "dataset", "score_name"]
    order = found.sort_values(["score"], ascending=False, kind="stable").sort_values(together, kind="stable")
    return order.reset_index(drop=True)


def _name(path: pathlib.Path, root: pathlib.Path) -> str:
    return str(path.relative_to(root)) if path != root else path.name


def _row(path: pathlib.Path, root: pathlib.Path) -> dict[str, Any]:
    from jaxrl_reg.evaluation.report import judged_by

    config, facts = load_config(path), read_json(path / "summary.json", default={})
    row = {
        "run": _name(path, root),
        "kind": config.kind,
        "environment": config.where,
        "agent": config.agent,
        "dataset": pathlib.Path(getattr(config, "dataset", "")).name,
        "state": facts.get("finished", "").replace("T", " ")[:16],
    }
    if not {"dataset", "score"} & set(facts) or not (path / "metrics.parquet").exists():
        return {**row, "state": "not begun to train"}
    judged = judged_by(facts)
    row |= {"score_name": judged.score if judged.metric else "nothing rolled out"}
    best, reached = _best(path, config.agent, facts)
    if not row["state"]:
        row["state"] = f"stopped at {reached:,} of {getattr(config, config.budget):,} {judged.axis}"
    return {**row, **best}


def _best(path: pathlib.Path, agent: str, facts: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The best setting of a run with its score, and how far the run has got."""
    from jaxrl_reg.evaluation.report import analyse, judged_by, labelled
    from jaxrl_reg.io.sinks import read_parquet

    judged, frame = judged_by(facts), read_parquet(path / "metrics.parquet")
    own = frame[frame["agent"] == agent]
    if own.empty:
        return {}, 0
    reached, settings = int(own[judged.column].max()), own["setting"].nunique()
    if judged.metric is None:
        return {"settings": settings, "runs": own["seed"].nunique()}, reached
    swept = read_json(path / "config.json").get("swept", [])
    analysis = analyse(frame, facts.get("dataset"), agent, swept, judged)
    group = analysis.groups[analysis.order[0]]
    score = dict(zip(("score", "low", "high"), group.last, strict=True))
    found = {"setting": labelled(group.hypers), "settings": settings, **score}
    return {**found, "runs": len(group.scores), "diverged": group.diverged}, reached

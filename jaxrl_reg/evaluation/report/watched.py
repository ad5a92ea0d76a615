"""What a report shows of members that were looked at more closely: conduct, what sets them off, what the best sees."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrl_reg.evaluation import plots
from jaxrl_reg.evaluation.report.conduct import (
    brief_conduct,
    brief_triggers,
    conduct_figure,
    conduct_notes,
    conduct_table,
    triggers_table,
)
from jaxrl_reg.evaluation.report.explained import Explained, explained_figures, explained_words, read_explained
from jaxrl_reg.io.files import read_json, write_csv
from jaxrl_reg.io.sinks import read_parquet

if TYPE_CHECKING:
    import pandas as pd


class Watched(NamedTuple):
    """``conduct`` of ``conduct_table`` with its ``notes``, ``triggers`` and ``explained``; None where nobody asked."""

    conduct: pd.DataFrame | None = None
    notes: Sequence[tuple[str, str]] = ()
    explained: Explained | None = None
    triggers: pd.DataFrame | None = None


def read_watched(directory: pathlib.Path, agent: str, swept: Sequence[str]) -> Watched:
    """What lies in a run directory; the tables are written beside it. Raises ``UserError`` for damaged files."""
    tables: dict[str, pd.DataFrame] = {}
    for name, table in (("conduct", conduct_table), ("triggers", triggers_table)):
        if (path := directory / f"{name}.parquet").exists():
            tables[name] = table(read_parquet(path), agent, swept)
            write_csv(directory / f"{name}.csv", tables[name])
    notes = conduct_notes(read_json(directory / "conduct.json", default={}))
    return Watched(tables.get("conduct"), notes, read_explained(directory / "explained.npz"), tables.get("triggers"))


def watched_figures(watched: Watched | None, theme: plots.Theme) -> dict[str, Any]:
    """``conduct`` and those of ``explained_figures``, as far as there is something to draw."""
    watched = watched or Watched()
    figures = {} if watched.conduct is None else {"conduct": conduct_figure(watched.conduct, theme)}
    return figures if watched.explained is None else figures | explained_figures(watched.explained, theme)


def watched_words(watched: Watched | None) -> dict[str, Any]:
    """What the page says beside the pictures."""
    watched = watched or Watched()
    return {
        "conduct": [] if watched.conduct is None else brief_conduct(watched.conduct),
        "conduct_notes": watched.notes,
        "triggers": [] if watched.triggers is None else brief_triggers(watched.triggers),
        "explained": "" if watched.explained is None else explained_words(watched.explained),
    }

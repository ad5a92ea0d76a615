"""What a report shows of members that were looked at more closely: their conduct, and what the best of them sees."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrl_reg.evaluation import plots
from jaxrl_reg.evaluation.report.conduct import brief_conduct, conduct_figure, conduct_notes, conduct_table
from jaxrl_reg.evaluation.report.explained import Explained, explained_figures, explained_words, read_explained
from jaxrl_reg.io.files import read_json, write_csv
from jaxrl_reg.io.sinks import read_parquet

if TYPE_CHECKING:
    import pandas as pd


class Watched(NamedTuple):
    """``conduct`` of ``conduct_table`` with its ``notes``, and ``explained``, each None where nobody asked for it."""

    conduct: pd.DataFrame | None = None
    notes: Sequence[tuple[str, str]] = ()
    explained: Explained | None = None


def read_watched(directory: pathlib.Path, agent: str, swept: Sequence[str]) -> Watched:
    """What lies in a run directory; ``conduct.csv`` is written on the way. Raises ``UserError`` for damaged files."""
    explained = read_explained(directory / "explained.npz")
    if not (directory / "conduct.parquet").exists():
        return Watched(explained=explained)
    conduct = conduct_table(read_parquet(directory / "conduct.parquet"), agent, swept)
    write_csv(directory / "conduct.csv", conduct)
    return Watched(conduct, conduct_notes(read_json(directory / "conduct.json", default={})), explained)


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
        "explained": "" if watched.explained is None else explained_words(watched.explained),
    }

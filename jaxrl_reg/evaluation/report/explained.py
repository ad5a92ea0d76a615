"""What the best member looks at: the pictures of ``evaluate --explain``."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation import pictures, plots

MOST_SENSORS = 30  # are drawn: those that had to be seen most

Explained = Mapping[str, np.ndarray]


def read_explained(path: pathlib.Path) -> Explained | None:
    """The arrays of ``explained.npz``; None where nobody asked for an explanation."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); make it again with --explain") from error


def explained_figures(found: Explained, theme: plots.Theme) -> dict[str, Any]:
    """``attention``, ``importance`` and, where there are any, ``facets``."""
    shown = found["mask"].mean(axis=0)
    hidden = found["occlusion"].mean(axis=0)
    hidden = hidden / max(float(hidden.sum()), 1e-12)
    kept = np.sort(np.argsort(-shown, kind="stable")[:MOST_SENSORS])
    names = [f"sensor {number}" for number in kept]
    figures = {
        "attention": pictures.attention(found["mask"][:, kept], found["action"], sensors=names, theme=theme),
        "importance": pictures.importance(shown[kept], hidden[kept], sensors=names, theme=theme),
    }
    if "facet" in found:
        figures["facets"] = pictures.facets(
            found["facet"][..., kept],
            found["facet_value"],
            found["facet_distance"],
            sensors=[str(number) for number in kept],
            theme=theme,
        )
    return figures


def explained_words(found: Explained) -> str:
    """What the pictures are worth, in a sentence or two."""
    mask, occlusion, chance = found["fidelity"]
    setting, seed = found["member"]
    text = (
        f"Seed {seed} of setting {setting}, {len(found['mask'])} steps. Hiding everything, so that other states are "
        "seen instead, changes its actions; showing only the fifth of all entries that the mask ranks first avoids "
        f"{mask:.0%} of that, a fifth at random {chance:.0%}, that whose hiding alone changes most {occlusion:.0%}."
    )
    if mask <= chance:
        text += " The mask is no better than chance here: do not read it."
    return text

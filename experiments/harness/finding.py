"""Experiments by name: every module of a family's folder that does not begin with an underscore."""

from __future__ import annotations

import importlib
import pathlib
import pkgutil
from collections.abc import Sequence
from typing import Any

from jaxrl_reg.errors import unknown

FOLDER = pathlib.Path(__file__).parents[1]
APART = ("harness",)  # packages that are no family


def families() -> list[str]:
    """The folders that hold experiments."""
    return sorted(m.name for m in pkgutil.iter_modules([str(FOLDER)]) if m.ispkg and m.name not in APART)


def family(name: str) -> str:
    """The folder of an experiment. Raises ``UserError`` with the nearest name if there is none."""
    for folder in families():
        if not name.startswith("_") and (FOLDER / folder / f"{name}.py").is_file():
            return folder
    raise unknown("experiment", name, names())


def names() -> list[str]:
    """All experiments, by name."""
    found = (module.name for folder in families() for module in pkgutil.iter_modules([str(FOLDER / folder)]))
    return sorted(name for name in found if not name.startswith("_"))


def load(name: str) -> Any:
    """The module of an experiment. Raises ``UserError`` with the nearest name if there is none."""
    return importlib.import_module(f"experiments.{family(name)}.{name}")


def results(name: str) -> pathlib.Path:
    """The folder of an experiment's result, beside its module."""
    return FOLDER / family(name) / "results"


def kept(name: str, scale: str, seeds: Sequence[int]) -> pathlib.Path:
    """The folder from which a run of hours goes on after an interruption; not part of the repository."""
    return FOLDER.parent / ".cache" / "experiments" / name / f"{scale}-{len(seeds)}-from-{seeds[0]}"

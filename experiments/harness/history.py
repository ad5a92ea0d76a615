"""The file of an experiment: its record, every other run, and the power that all of them give the claim.

``NAME.json`` holds ``record``, the one run on seeds that nobody had seen, or None; ``history``, all other runs, oldest
first: those on which settings were chosen, earlier records, reruns; ``power`` of the claim with its number of seeds,
from all of them that answer the same question. Nothing is ever taken out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from experiments.harness import finding
from experiments.harness.claim import Claim, restored, same_question
from experiments.harness.power import power
from jaxrl_reg.errors import UserError

Run = dict[str, Any]  # claim, scale, seeds, values, said, differences, holds, seconds, date, versions, device
PILOT = 10  # settings may be chosen on seeds below this; a run on them is never the record
FRESH = 3_000  # where seeds for records begin


@dataclasses.dataclass
class File:
    """The contents of one ``NAME.json``."""

    name: str
    record: Run | None = None
    history: list[Run] = dataclasses.field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """All runs, the record last."""
        return self.history if self.record is None else [*self.history, self.record]


def read(path: pathlib.Path) -> File:
    """The file at ``path``, empty if there is none.

    Raises:
      UserError: it is no file of an experiment.
    """
    if not path.is_file():
        return File(path.stem)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return File(stored["name"], stored["record"], stored["history"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no result of an experiment ({type(error).__name__}: {error})") from error


def write(file: File, claim: Claim, path: pathlib.Path) -> None:
    """Write ``file`` with the power of ``claim``, whole or not at all."""
    seen = known_power(claim, file.runs, (file.record or {}).get("scale", "small"))
    stored = {
        "name": file.name,
        "record": file.record,
        "power": None if seen is None else dataclasses.asdict(seen),
        "history": file.history,
    }
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def used(files: Iterable[File]) -> set[int]:
    """Seeds that anybody has looked at, whatever the settings were; those for choosing settings among them."""
    return set(range(PILOT)) | {seed for file in files for run in file.runs for seed in run["seeds"]}


def fresh(name: str, count: int) -> range:
    """``count`` seeds from the first hundred, not below 3,000, beyond all that were ever used."""
    latest = max(used([read(finding.results(name) / f"{name}.json")]))
    start = max(FRESH, -(-(latest + 1) // 100) * 100)
    return range(start, start + count)


def pooled(claim: Claim, runs: Iterable[Run], scale: str) -> tuple[list[int], dict[str, list[float]]]:
    """Seeds and values of all runs that answer the question of ``claim``; a seed run twice counts as it came last."""
    found: dict[int, dict[str, float]] = {}
    arms = (claim.method, *claim.rivals)
    for run in runs:
        if run["scale"] == scale and same_question(restored(run["claim"]), claim):
            for row, seed in enumerate(run["seeds"]):
                found[seed] = {arm: run["values"][arm][row] for arm in arms}
    return list(found), {arm: [values[arm] for values in found.values()] for arm in arms}


def known_power(claim: Claim, runs: Iterable[Run], scale: str, n: int | None = None):
    """``Power`` of ``n`` fresh seeds (the claim's own number) from ``runs``; None if none answers its question."""
    seeds, values = pooled(claim, runs, scale)
    return power(claim, values, n or claim.seeds, seeds) if seeds else None

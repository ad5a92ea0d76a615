"""One run of an experiment: values, verdict, files."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
import pathlib
import platform
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from experiments.harness import finding, history
from experiments.harness.claim import Claim
from experiments.harness.figure import figure
from experiments.harness.power import Power
from experiments.harness.statistics import judge, summary_line
from jaxrl_reg.errors import UserError


def run(name: str, seeds: Sequence[int], scale: str, out: pathlib.Path, record: bool = False) -> bool:
    """Run one experiment, write ``NAME.json`` and ``NAME.png`` to ``out``, print the summary line last.

    The run becomes the record if nobody has seen its seeds and there is no record yet, or if ``record`` asks for it;
    every other run goes into the history and leaves the record and its figure alone.

    Returns:
      Whether the claim holds.
    Raises:
      UserError: ``record`` for seeds that have been used, or an arm without a value for every seed.
    """
    module = finding.load(name)
    claim: Claim = module.CLAIM
    path = out / f"{name}.json"
    file = history.read(path)
    seen = sorted(history.used([file, history.read(finding.results(name) / path.name)]) & set(seeds))
    if seen and record:
        raise UserError(f"{name}: seeds {listed(seen)} have been used before; a record needs others")
    print(f"{name}: {claim.statement}")
    ablation = "" if claim.ablation is None else f" ablation: {claim.ablation};"
    print(f"{name}: {claim.method} against {', '.join(claim.baselines)};{ablation} {claim.metric}")
    becomes = record or (not seen and (file.record is None or file.record["claim"]["revision"] != claim.revision))
    if seen:
        print(f"{name}: seeds {listed(seen)} have been used before: this run joins the history and is no record")
    elif not becomes:
        print(f"{name}: a record exists: this run joins the history (python -m experiments record {name} replaces it)")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as aside:  # the figures beside a record are the record's
        result = _measured(module, name, seeds, scale, out if becomes or not file.record else pathlib.Path(aside))
    if becomes:
        if file.record is not None:
            file.history.append(file.record)
        file.record = result
    else:
        file.history.append(result)
    if becomes or file.record is None:
        figure(claim, result["values"], out / f"{name}.png")
    history.write(file, claim, path)
    power = history.known_power(claim, file.runs, scale)
    for d in result["differences"]:
        verdict = "ok" if d["holds"] else "NOT ABOVE"
        print(f"{name}: against {d['rival']}: {d['mean']:.4g} [{d['low']:.4g}, {d['high']:.4g}] {verdict}")
    if power is not None:
        print(f"{name}: {explained(power)}")
    print(summary_line(name, claim, result["values"], judge(claim, result["values"]), power), flush=True)
    return bool(result["holds"])


def _measured(module: Any, name: str, seeds: Sequence[int], scale: str, out: pathlib.Path) -> history.Run:
    """Values, verdict and circumstances of one run; figures that the experiment draws itself go to ``out``."""
    import jax

    claim, said = module.CLAIM, []
    started = time.monotonic()

    def say(text: str) -> None:
        said.append(text)
        print(f"{name}: {text}", flush=True)

    more = {}
    if "out" in inspect.signature(module.run).parameters:
        more["out"] = out
    values = module.run(list(seeds), scale, say, **more)
    for arm, points in values.items():
        if len(points) != len(seeds):
            raise UserError(f"arm {arm!r} has {len(points)} values for {len(seeds)} seeds")
    differences = judge(claim, values)
    return {
        "claim": dataclasses.asdict(claim),
        "scale": scale,
        "seeds": [int(seed) for seed in seeds],
        "values": {arm: [float(v) for v in points] for arm, points in values.items()},
        "said": said,
        "differences": [dataclasses.asdict(d) for d in differences],
        "holds": all(d.holds for d in differences),
        "seconds": round(time.monotonic() - started, 1),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "device": jax.devices()[0].device_kind,
    }


def explained(power: Power) -> str:
    """What the number for the power means, in a line."""
    each = ", ".join(f"{rival} {p:.3f}" for rival, p in power.rivals.items())
    text = f"power of {power.n} fresh seeds, from {power.seen} seeds run so far: {each}"
    if len(power.rivals) > 1:
        text += f"; all of them: product {power.product:.3f}, whatever their dependence at least {power.at_least:.3f}"
    for rival, seed in power.alone.items():
        text += f"; seed {seed} alone decides much of it against {rival}: a robust metric comes before the margin"
    return text


def listed(seeds: Sequence[int]) -> str:
    """``3``, or ``3 to 7``, or ``3, 5, 9`` where seeds are not consecutive."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))

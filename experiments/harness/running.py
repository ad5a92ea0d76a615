"""One run of an experiment: values, verdict, files."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
import json
import os
import pathlib
import platform
import time
from collections.abc import Sequence

from experiments.harness import finding
from experiments.harness.claim import Claim
from experiments.harness.figure import figure
from experiments.harness.statistics import judge, summary_line
from jaxrl_reg.errors import UserError


def run(name: str, seeds: Sequence[int], scale: str, out: pathlib.Path) -> bool:
    """Run one experiment, write ``NAME.json`` and ``NAME.png`` to ``out``, print the summary line last."""
    import jax

    module = finding.load(name)
    claim: Claim = module.CLAIM
    print(f"{name}: {claim.statement}")
    ablation = "" if claim.ablation is None else f" ablation: {claim.ablation};"
    print(f"{name}: {claim.method} against {', '.join(claim.baselines)};{ablation} {claim.metric}")
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    more = {"out": out} if "out" in inspect.signature(module.run).parameters else {}
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        print(f"{name}: {text}", flush=True)

    values = module.run(list(seeds), scale, say, **more)
    for arm, points in values.items():
        if len(points) != len(seeds):
            raise UserError(f"arm {arm!r} has {len(points)} values for {len(seeds)} seeds")
    differences = judge(claim, values)
    record = {
        "name": name,
        "claim": dataclasses.asdict(claim),
        "scale": scale,
        "seeds": [int(seed) for seed in seeds],
        "values": {arm: [float(v) for v in points] for arm, points in values.items()},
        "said": said,
        "differences": [dataclasses.asdict(d) for d in differences],
        "holds": all(d.holds for d in differences),
        "seconds": round(time.monotonic() - started, 1),
        "date": datetime.date.today().isoformat(),
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "device": jax.devices()[0].device_kind,
    }
    partial = out / f".{name}.json.partial"
    partial.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(partial, out / f"{name}.json")
    figure(claim, values, out / f"{name}.png")
    for d in differences:
        print(f"{name}: against {d.rival}: {d.mean:.4g} [{d.low:.4g}, {d.high:.4g}] {'ok' if d.holds else 'NOT ABOVE'}")
    print(summary_line(name, claim, values, differences), flush=True)
    return bool(record["holds"])

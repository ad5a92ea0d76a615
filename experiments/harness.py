"""Run claims: what is measured is declared before any number, the seeds are arguments, the verdict is computed.

A module ``experiments/NAME.py`` has ``CLAIM`` and ``run(seeds, scale, say) -> {arm: one value per seed}``.
One that draws a figure of its own takes the folder as ``out`` as well and saves ``NAME_....png`` there.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib
import inspect
import json
import os
import pathlib
import pkgutil
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrl_reg.errors import UserError, unknown

FOLDER = pathlib.Path(__file__).parent
RESULTS = FOLDER / "results"
SUPPORT = {"harness", "control", "maze", "quoted", "systems"}
SCALES = ("small", "full")
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Claim:
    """What must come out, stated before anything runs. ``margin`` is in the metric's unit.

    The claim holds if, for every baseline and for the ablation, the confidence interval of the paired difference
    (method minus rival over the same seeds; reversed if lower is better) lies above ``margin``. ``ablation`` is None
    where a baseline is the method without what is claimed.
    """

    statement: str
    paper: str
    method: str
    baselines: tuple[str, ...]
    ablation: str | None
    metric: str
    systems: tuple[int, ...] = ()  # rows of the table of systems that this is evidence for
    higher_is_better: bool = True
    margin: float = 0.0

    @property
    def rivals(self) -> tuple[str, ...]:
        return self.baselines if self.ablation is None else (*self.baselines, self.ablation)


@dataclasses.dataclass(frozen=True)
class Difference:
    """Mean paired advantage of the method over a rival and its Student-t confidence interval over seeds."""

    rival: str
    mean: float
    low: float
    high: float
    holds: bool


def names() -> list[str]:
    """All experiments, found by file name."""
    found = (module.name for module in pkgutil.iter_modules([str(FOLDER)]))
    return sorted(name for name in found if name not in SUPPORT and not name.startswith("_"))


def load(name: str) -> Any:
    """The module of an experiment. Raises ``UserError`` with the nearest name if there is none."""
    if name not in names():
        raise unknown("experiment", name, names())
    return importlib.import_module(f"experiments.{name}")


def paired_difference(method: Sequence[float], rival: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95% Student-t interval of ``method - rival`` over paired seeds; infinite for one seed."""
    from scipy import stats

    difference = np.asarray(method, float) - np.asarray(rival, float)
    mean = float(difference.mean())
    if difference.size < 2:
        return mean, -np.inf, np.inf
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, difference.size - 1) * difference.std(ddof=1) / np.sqrt(difference.size)
    return mean, mean - float(half), mean + float(half)


def judge(claim: Claim, values: dict[str, Sequence[float]]) -> list[Difference]:
    """The paired differences to every rival, and whether each clears the margin. NaN never holds."""
    missing = [arm for arm in (claim.method, *claim.rivals) if arm not in values]
    if missing:
        raise UserError(f"the experiment returned no values for {', '.join(missing)}")
    sign = 1.0 if claim.higher_is_better else -1.0
    differences = []
    for rival in claim.rivals:
        mean, low, high = paired_difference(sign * np.asarray(values[claim.method]), sign * np.asarray(values[rival]))
        differences.append(Difference(rival, mean, low, high, bool(low > claim.margin)))
    return differences


def summary_line(name: str, claim: Claim, values: dict[str, Sequence[float]], differences: list[Difference]) -> str:
    """The last line that a run prints; the difference shown is the one to the closest rival."""
    verdict = "holds" if all(d.holds for d in differences) else "fails"
    closest = min(differences, key=lambda d: d.low)
    return (
        f"{name}: {verdict}  {claim.method} {np.mean(values[claim.method]):.4g}  "
        f"{closest.rival} {np.mean(values[closest.rival]):.4g}  "
        f"difference {closest.mean:.4g} [{closest.low:.4g}, {closest.high:.4g}]"
    )


def figure(claim: Claim, values: dict[str, Sequence[float]], path: pathlib.Path) -> None:
    """Every arm's seeds as dots, its mean as a bar."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    order = [claim.method, *claim.rivals, *(arm for arm in values if arm not in (claim.method, *claim.rivals))]
    fig, axes = plt.subplots(figsize=(7, 0.55 * len(order) + 1.4), layout="constrained")
    for row, arm in enumerate(order):
        points = np.asarray(values[arm], float)
        axes.barh(row, points.mean(), color="#2b6cb0" if arm == claim.method else "#b8c4d0", height=0.6)
        axes.plot(points, row + np.linspace(-0.18, 0.18, points.size), "o", color="#1a202c", ms=4, alpha=0.75)
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    axes.set_xlabel(claim.metric)
    axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def run(name: str, seeds: Sequence[int], scale: str, out: pathlib.Path) -> bool:
    """Run one experiment, write ``NAME.json`` and ``NAME.png`` to ``out``, print the summary line last."""
    import jax

    module = load(name)
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


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="{run,list,table,quote}")
    verb = verbs.add_parser("run", help="run experiments and write their results")
    verb.add_argument("names", nargs="*", metavar="NAME", help="see: python -m experiments list")
    verb.add_argument("--all", action="store_true", help="every experiment")
    verb.add_argument("--seeds", type=int, default=5, help="number of seeds (5)")
    verb.add_argument("--seed-offset", type=int, default=0, help="first seed (0)")
    verb.add_argument("--scale", choices=SCALES, default="small", help="small: minutes on 2 cores; full: accelerators")
    verb.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder for the JSON results and figures")
    verbs.add_parser("list", help="the experiments and what they claim")
    verb = verbs.add_parser("table", help="write SYSTEMS.md from the results")
    verb.add_argument("--results", type=pathlib.Path, default=RESULTS)
    verb.add_argument("--to", type=pathlib.Path, default=FOLDER.parent / "SYSTEMS.md")
    verb = verbs.add_parser("quote", help="keep finished runs in docs/results and rewrite the README's tables")
    verb.add_argument("runs", nargs="*", type=pathlib.Path, metavar="RUN", help="run directories of jaxrl-reg sweep")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 if every claim holds, 1 if one fails, 2 on an error."""
    # XLA reads this when its backend starts: without it vmapped loops may stand still on a busy machine.
    flag = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(os.cpu_count() or 1))  # members are split over the cores
    options = parser().parse_args(arguments)
    try:
        if options.verb == "list":
            width = max(map(len, names()), default=0)
            for name in names():
                print(f"{name:<{width}}  {load(name).CLAIM.statement}")
            sys.stdout.flush()  # what is left in the buffer: here a closed pipe can still be caught
            return 0
        if options.verb == "table":
            from experiments import systems

            options.to.write_text(systems.table(options.results))
            print(f"wrote {options.to}")
            return 0
        if options.verb == "quote":
            from experiments import quoted

            quoted.quote(options.runs)
            return 0
        chosen = names() if options.all else options.names
        if not chosen:
            raise UserError("name at least one experiment or give --all; see: python -m experiments list")
        if options.seeds < 2:
            raise UserError(f"--seeds {options.seeds}: an interval needs at least 2 seeds")
        for name in chosen:
            load(name)
        seeds = range(options.seed_offset, options.seed_offset + options.seeds)
        held = [run(name, seeds, options.scale, options.out) for name in chosen]
        return 0 if all(held) else 1
    except UserError as error:
        print(f"experiments: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # | head
        sys.stderr.close()
        return 0
    except Exception:
        traceback.print_exc()
        return 2

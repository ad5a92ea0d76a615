"""Run claims: what is measured is declared before any number, the seeds are arguments, the verdict is computed.

A module ``experiments/FAMILY/NAME.py`` has ``CLAIM`` and ``run(seeds, scale, say) -> {arm: one value per seed}``.
One that draws a figure of its own takes the folder as ``out`` as well and saves ``NAME_....png`` there.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import traceback
from collections.abc import Sequence

from experiments.harness import finding, history
from experiments.harness.power import WANTED, curve, needed
from experiments.harness.running import explained, run
from experiments.harness.statistics import advantages
from jaxrl_reg.errors import UserError

SCALES = ("small", "hour", "full")  # of an experiment, where its module has no SCALES of its own: small and full
SIZES = (3, 5, 8, 10, 15, 20, 30, 50)  # numbers of seeds in the table of powers


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="{run,record,power,list,table,quote}")

    verb = verbs.add_parser("run", help="run experiments; the first run on seeds that nobody has seen is the record")
    _add_choice(verb)
    verb.add_argument("--seeds", type=int, help="number of seeds (the experiment's own, see: power)")
    verb.add_argument(
        "--seed-offset", type=int, default=0, help="first seed (0); those below 10 are for choosing settings"
    )
    _add_scale(verb)
    verb.add_argument("--out", type=pathlib.Path, help="folder for the JSON results and figures (beside the module)")

    verb = verbs.add_parser("record", help="run once on seeds never used before; the old record joins the history")
    _add_choice(verb)
    verb.add_argument("--before", metavar="DATE", help="only records older than DATE, e.g. 2026-11-28T20:00: to go on")
    _add_scale(verb)
    verb.add_argument("--background-nice", action="store_true", help="give way to everything else on this machine")

    verb = verbs.add_parser("power", help="seeds needed against margin, from the values of all runs so far")
    _add_choice(verb)
    _add_scale(verb)

    verbs.add_parser("list", help="the experiments and what they claim")
    verb = verbs.add_parser("table", help="write SYSTEMS.md from the results")
    verb.add_argument("--results", type=pathlib.Path, default=finding.FOLDER)
    verb.add_argument("--to", type=pathlib.Path, default=finding.FOLDER.parent / "SYSTEMS.md")
    verb = verbs.add_parser("quote", help="keep finished runs in docs/results, rewrite its page and README's counts")
    verb.add_argument("runs", nargs="*", type=pathlib.Path, metavar="RUN", help="run directories of jaxrl-reg sweep")
    return top


def _add_choice(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("names", nargs="*", metavar="NAME", help="see: python -m experiments list")
    verb.add_argument("--all", action="store_true", help="every experiment")


def _add_scale(verb: argparse.ArgumentParser) -> None:
    help = "small: minutes on 2 cores; hour: about one there; full: accelerators (the experiment's first, mostly small)"
    verb.add_argument("--scale", choices=SCALES, help=help)


def _scale(name: str, asked: str | None) -> str:
    """The scale of a run. Raises ``UserError`` if the experiment has no such size."""
    known = getattr(finding.load(name), "SCALES", ("small", "full"))
    if asked is not None and asked not in known:
        raise UserError(f"{name} has no scale {asked}; it has {' and '.join(known)}")
    return asked or known[0]


def _chosen(options: argparse.Namespace) -> list[str]:
    names = finding.names() if options.all else options.names
    if not names:
        raise UserError("name at least one experiment or give --all; see: python -m experiments list")
    for name in names:
        finding.family(name)
    return names


def _affordable(options: argparse.Namespace) -> list[str]:
    """The chosen experiments; of ``--all`` those that are over in minutes, the others only by name."""
    names = _chosen(options)
    if options.all and options.scale is None:
        long = [name for name in names if _scale(name, None) != "small"]
        names = [name for name in names if name not in long]
        if long:
            print(f"no small scale, so only by name: {', '.join(long)}")
    return names


def _run(options: argparse.Namespace) -> bool:
    names = _affordable(options)
    if options.seeds is not None and options.seeds < 2:
        raise UserError(f"--seeds {options.seeds}: an interval needs at least 2 seeds")
    held = []
    for name in names:
        count = options.seeds or finding.load(name).CLAIM.seeds
        seeds = range(options.seed_offset, options.seed_offset + count)
        held.append(run(name, seeds, _scale(name, options.scale), options.out or finding.results(name)))
    return all(held)


def _record(options: argparse.Namespace) -> bool:
    if options.background_nice:
        os.nice(19)
    names = _affordable(options)
    if options.before is not None:
        names = [name for name in names if _recorded(name) < options.before]
        print(f"records before {options.before}: {', '.join(names) or 'none'}")
    if len(names) == 1:
        seeds = history.fresh(names[0], finding.load(names[0]).CLAIM.seeds)
        print(f"{names[0]}: seeds {seeds[0]} to {seeds[-1]}, never used before")
        return run(names[0], seeds, _scale(names[0], options.scale), finding.results(names[0]), record=True)
    # A process each: memory is given back, and one that crashes does not take the others along.
    command = [sys.executable, "-m", "experiments", "record", *(["--scale", options.scale] if options.scale else [])]
    codes = {name: subprocess.run([*command, name], check=False).returncode for name in names}
    crashed = [name for name, code in codes.items() if code not in (0, 1)]
    if crashed:
        raise UserError(f"no record, see above: {', '.join(crashed)}")
    return not any(codes.values())


def _recorded(name: str) -> str:
    """When the record of an experiment was made; empty if it has none."""
    record = history.read(finding.results(name) / f"{name}.json").record
    return "" if record is None else record["date"]


def _power(options: argparse.Namespace) -> bool:
    enough = []
    for name in _chosen(options):
        claim, path = finding.load(name).CLAIM, finding.results(name) / f"{name}.json"
        file = history.read(path)
        scale = _scale(name, options.scale)
        seeds, values = history.pooled(claim, file.runs, scale)
        found = history.known_power(claim, file.runs, scale)
        if found is None:
            raise UserError(f"{name}: no values yet; first: python -m experiments run {name} --seeds {history.PILOT}")
        history.write(file, claim, path)  # the claim may have another margin or number of seeds by now
        print(f"{name}: {explained(found)}")
        for rival, points in advantages(claim, values).items():
            spread = f", standard deviation {points.std(ddof=1):.4g}" if len(seeds) > 1 else ""
            print(f"{name}: over {rival}: mean {points.mean():.4g}{spread}")
        print("chance to clear the margin against every rival, whatever their dependence:")
        print("\n".join(curve(claim, values, sorted({*SIZES, claim.seeds}))))
        least = needed(claim, values)
        print(
            f"{name}: power {found.product:.3f} with its {claim.seeds} seeds ({found.assured:.3f} if what {found.seen} "
            f"seeds leave open counts); {WANTED} needs {least or 'more than any number of'} seeds"
        )
        enough.append(found.at_least >= WANTED)
    return all(enough)


def _list(options: argparse.Namespace) -> bool:
    width = max(map(len, finding.names()), default=0)
    for name in finding.names():
        print(f"{name:<{width}}  {finding.load(name).CLAIM.statement}")
    sys.stdout.flush()  # what is left in the buffer: here a closed pipe can still be caught
    return True


def _table(options: argparse.Namespace) -> bool:
    from experiments import quoted, systems

    options.to.write_text(systems.table(options.results, options.to.parent), encoding="utf-8")
    print(f"wrote {options.to}")
    if options.results == finding.FOLDER:
        quoted.recount()
    return True


def _quote(options: argparse.Namespace) -> bool:
    from experiments import quoted

    quoted.quote(options.runs)
    return True


VERBS = {"run": _run, "record": _record, "power": _power, "list": _list, "table": _table, "quote": _quote}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 if every claim holds (``power``: has a power of 0.95), 1 if one does not, 2 on an error."""
    # XLA reads this when its backend starts: without it vmapped loops may stand still on a busy machine.
    flag = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(os.cpu_count() or 1))  # members are split over the cores
    options = parser().parse_args(arguments)
    try:
        return 0 if VERBS[options.verb](options) else 1
    except UserError as error:
        print(f"experiments: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # | head
        sys.stderr.close()
        return 0
    except Exception:
        traceback.print_exc()
        return 2

"""Run claims: what is measured is declared before any number, the seeds are arguments, the verdict is computed.

A module ``experiments/FAMILY/NAME.py`` has ``CLAIM`` and ``run(seeds, scale, say) -> {arm: one value per seed}``.
One that draws a figure of its own takes the folder as ``out`` as well and saves ``NAME_....png`` there.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import traceback
from collections.abc import Sequence

from experiments.harness import finding
from experiments.harness.running import run
from jaxrl_reg.errors import UserError

SCALES = ("small", "full")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="{run,list,table,quote}")
    verb = verbs.add_parser("run", help="run experiments and write their results")
    verb.add_argument("names", nargs="*", metavar="NAME", help="see: python -m experiments list")
    verb.add_argument("--all", action="store_true", help="every experiment")
    verb.add_argument("--seeds", type=int, default=5, help="number of seeds (5)")
    verb.add_argument("--seed-offset", type=int, default=0, help="first seed (0)")
    verb.add_argument("--scale", choices=SCALES, default="small", help="small: minutes on 2 cores; full: accelerators")
    verb.add_argument("--out", type=pathlib.Path, help="folder for the JSON results and figures (beside the module)")
    verbs.add_parser("list", help="the experiments and what they claim")
    verb = verbs.add_parser("table", help="write SYSTEMS.md from the results")
    verb.add_argument("--results", type=pathlib.Path, default=finding.FOLDER)
    verb.add_argument("--to", type=pathlib.Path, default=finding.FOLDER.parent / "SYSTEMS.md")
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
            width = max(map(len, finding.names()), default=0)
            for name in finding.names():
                print(f"{name:<{width}}  {finding.load(name).CLAIM.statement}")
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
        chosen = finding.names() if options.all else options.names
        if not chosen:
            raise UserError("name at least one experiment or give --all; see: python -m experiments list")
        if options.seeds < 2:
            raise UserError(f"--seeds {options.seeds}: an interval needs at least 2 seeds")
        for name in chosen:
            finding.load(name)
        seeds = range(options.seed_offset, options.seed_offset + options.seeds)
        held = [run(name, seeds, options.scale, options.out or finding.results(name)) for name in chosen]
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

"""Measure against peers, side by side in one run, and write docs/benchmark.md and docs/benchmark.json.

Every contestant is a process of its own that waits for its turn; the turns go round-robin, so that whatever else the
machine does hits all alike. On a CPU, ratios are medians of per-round ratios of CPU time, which a busy machine disturbs
least; on an accelerator of wall time, and the files are docs/benchmark-gpu.md and .json. Sections measured earlier stay
in the files. Peers are installed from the package index into environments of their own below ``.venv-peers``; one that
is no package is measured where ``--clone`` names a clone of its repository.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

from benchmarks import accelerators
from benchmarks.contest import ROOT
from benchmarks.page import page
from benchmarks.sections import NEEDS_CLONE, SECTIONS, Setup, measure

ACCELERATORS = "accelerators"


def found() -> tuple[str, int, str]:
    """Platform, number and kind of the devices that JAX uses; asked in a process that ends and lets go of them."""
    ask = "import jax; d = jax.devices(); print(d[0].platform, len(d), d[0].device_kind, sep='|')"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    name, count, kind = done.stdout.strip().splitlines()[-1].split("|")
    return name, int(count), kind


def machine(platform_name: str, devices: int, kind: str) -> str:
    """What the page says about where it was measured."""
    if platform_name != "cpu":
        return f"{devices} x {kind}"
    model = platform.processor() or platform.machine()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{os.cpu_count()} x {model}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="turns of every contestant (7)")
    parser.add_argument("--quick", action="store_true", help="no peers, fewer sizes, to try the machinery")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs", help="folder of the page and the record")
    parser.add_argument(
        "--only",
        default="",
        help=f"sections, by comma: {', '.join([*SECTIONS, ACCELERATORS])} (all but {', '.join([*NEEDS_CLONE, ACCELERATORS])})",
    )
    parser.add_argument(
        "--clone",
        type=pathlib.Path,
        metavar="DIR",
        help="a clone of the repository that section unifloral measures beside ours",
    )
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name]
    if wanted == [ACCELERATORS]:  # nothing is timed, so it has a page of its own and no peers
        accelerators.measure(options.out / "accelerators.json")
        return 0
    if unknown := sorted(set(wanted) - set(SECTIONS)):
        parser.error(f"unknown section {unknown[0]!r}; choose from {', '.join(SECTIONS)}")
    name, devices, kind = found()
    if name != "cpu" and "cores" in wanted:
        parser.error("section 'cores' is about CPUs; choose scaling")
    left_out = () if name == "cpu" else ("cores",)
    wanted = wanted or [section for section in SECTIONS if section not in (*left_out, *NEEDS_CLONE)]
    for section in set(wanted) & set(NEEDS_CLONE):
        if options.clone is None or not (options.clone / "algorithms").is_dir():
            parser.error(f"section {section!r} needs --clone DIR, a clone of {section}; its algorithms/ is not there")
    path = options.out / ("benchmark.json" if name == "cpu" else f"benchmark-{name}.json")
    record = json.loads(path.read_text()) if path.exists() else {"sections": {}, "absent": {}}
    setup = Setup(name, devices, options.rounds, options.quick, dict.fromkeys(NEEDS_CLONE, options.clone))
    about = {"machine": machine(name, devices, kind), "python": platform.python_version()}
    options.out.mkdir(parents=True, exist_ok=True)
    for section in wanted:
        print(f"{section} on {about['machine']}", flush=True)
        today = datetime.date.today().isoformat()
        record["sections"][section] = {"date": today, **about, **measure(section, setup)}
        record["absent"] |= setup.absent
        # After every section, so that what is measured stays if a later one is cut off.
        path.write_text(json.dumps(record, indent=1) + "\n")
        path.with_suffix(".md").write_text(page(record))
        print(f"  {record['sections'][section]['seconds']:.0f} s", flush=True)
    print(f"wrote {path.with_suffix('.md')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

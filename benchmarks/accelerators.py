"""Every agent compiled for accelerators that are not there, and the page that says what came out.

The compilers go into an environment of their own, ``.venv-plan``, as the peers do. What is measured is kept in
``docs/accelerators.json``, one entry per program, so that a run that is cut off can be taken up: programs that are
there are not compiled again, unless their entry is deleted. The page is made from the record alone.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import subprocess
import sys

from benchmarks.contest import FOLDER, ROOT

TARGETS, MEMBERS = ("h100", "tpu-v5e"), (1, 64)
TIMEOUT = 1800  # seconds for one program
INTRO = """\
# Accelerators

Written by `python -m benchmarks --only accelerators`, on a machine without an accelerator: every program was compiled
by the accelerator's own compiler and read, none was run. Agents at their default sizes, batches of 256 (an on-policy
agent: 64 steps of 32 environments of `pointnav`; a curriculum: an episode of 32 of `maze`), 17 observations, 6 actions,
1,000 rows; the whole training program as a sweep runs it, metrics included. Of the token agents, which differ from one
another by switches, `grpo` stands for all: an update samples, verifies and learns from 8 completions of 16 prompts of
`tokens/reverse`. For a sweep of your own: `jaxrl-reg plan --for h100 ...`. Where the compiler, which has no card to try
kernels on, finds no tiles for a product (`grpo` with one member, whose rows are 14 tokens), all products of that
program are the library's.

Launches, branches and copies are per update of all members side by side (on-policy agents and curricula: per
iteration). A launch is a kernel that the device starts; on a GPU about 2 to 5 microseconds each, so that one member
alone is bound by them. A branch is a condition that the device takes up with the host. `fit`: members side by side in
80% of the memory; where 64 are too many, so many as are said are counted. `done / needed`: operations of the matrix
products in the compiled program over those that the algorithm needs, where the program's text tells.

What pays, for an H100 and one member (two layers of 256, or the sizes an agent's paper has):

- BREEZE measures the moments of the data before the loop of updates, not in it: no branch, 1 before. Its two linear
  systems are solved two columns in a turn: 25 turns of 3 launches and no copy, where 50 turns had 4 and a copy each.
  Beside those loops 731 launches are left, and 3 copies, which are counters of loops.
- FQL's flow reads its times and steps from one array: 10 launches a step, 11 before, and 121 beside them. Its one copy
  is the start of that loop's counter, 4 bytes; a loop within a loop cannot begin without.
- DiffusionQL's average takes a step of size 0 in between, where it had a condition. Its gradient goes through the chain
  of denoising, a loop that begins with a copy of zeros for every array it keeps: of up to five steps only what matrix
  products gave is kept, and the activations are made again. With two layers of 256: 7 arrays, 6 copies and 398
  launches, where 44 arrays had 32 and 521. On a CPU the update is no dearer (42.5 ms, 46.7 before).
- A minibatch of PPO is one gather and one write of metrics: 55 launches, no copy.

Compiling for a CPU is measured by the [benchmark](benchmark.md), from nothing to the first update and at the sizes of
the papers. What pays there, in CPU-seconds:

- With eight members at the sizes of their papers the longest wait was for no compiler but for orthogonal kernels: 55
  for FB and 43 for BREEZE, which compile in 7 and 21. In blocks of columns, each in the complement of those before,
  they are there in 11 and 21, random numbers included.
- LLVM's last levels make no update faster: IQL, TD3+BC, DiffusionQL, Decision Transformer, PPO, FB and an evaluation in
  Brax take 0.98 to 1.02 times as long without. Without them FB compiles in 6 and BREEZE in 17, DiffusionQL in 5.7 for
  7.2: `XLA_FLAGS=--xla_backend_optimization_level=1`. It is no default, because half of these programs round otherwise:
  data collected in Brax then are other data, and every record of ours rests on those that are collected now.
- A population's programs compile side by side, each while the next is traced.
- No other option of the compiler gains anything: its preset for fast compiling, one part for code generation, no
  expensive passes, the older emitters, fusions of several outputs.
- Row numbers in one draw of two words for each, where JAX makes two: 0.3 of IQL's 2.7, but a launch more on an H100 (66
  for 65), because the two were part of the gather. Not taken.
- Two updates in a turn of the loop: a quarter more to compile, an update of IQL or TD3+BC no faster (0.98 to 1.01).
  Weight gradients as products with a transposed copy: alone 12% cheaper, in an update of either no difference, because
  the copies cost what the products save.

The programs of FB and BREEZE with eight members are 850 and 2,465 fused kernels; 210 and 641 of them each write one
array of the members' states, optimiser step included.

Where the seconds go, by a sampling profile of FB on another machine (11.2 CPU-seconds): tracing 0.9, lowering 0.5,
passes over the program 1.0, buffers and scheduling 0.9, emitting kernels 1.7, LLVM 4.4, and the rest is memory of all
of these. XLA compiles equal kernels once: of the 850, 178 are calls of a library and the others 344 different ones.
So the 210 writes of state are 80 kernels and 22% of LLVM's code, one for each shape and kind. Optimiser steps on
stacked leaves of one shape can therefore save nothing, and on a flat vector the slices are a kernel for each shape
again. Random numbers are 79 kernels and 21% of the code, with the keys laid out 25%: JAX's generator is a loop for
every shape that is drawn (9 here, 5 of them of keys). Fewer would be other numbers, or a generator of our own.
"""


def environment() -> pathlib.Path:
    """Python of the environment with the compilers, made from the package index where it is missing."""
    folder = ROOT / ".venv-plan"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        wanted = f"{ROOT}[all,plan-cuda,plan-tpu]"
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-e", wanted], check=True)
    return python


def compiled() -> list[str]:
    """The agents on the page: all, but of those of tokens, which differ from one another by static switches, one."""
    from jaxrl_reg import agents

    return [name for name in agents.names() if name == "grpo" or agents.family(name) != "tokens"]


def measure(path: pathlib.Path, python: pathlib.Path | None = None) -> None:
    """Compile what the record at ``path`` does not have yet; record and page are written after every program."""
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    python = python or environment()
    for target in TARGETS:
        for members in MEMBERS:
            for agent in compiled():
                name = f"{target} {members} {agent}"
                if name in record:
                    continue
                options = json.dumps({"agent": agent, "members": members, "target": target})
                command = [str(python), str(FOLDER / "worker_accelerators.py"), options]
                try:
                    done = subprocess.run(
                        command, capture_output=True, text=True, timeout=TIMEOUT,
                        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
                    )  # fmt: skip
                except subprocess.TimeoutExpired:
                    print(f"{name}: not done in {TIMEOUT} s", flush=True)
                    continue
                if done.returncode:  # of this machine, not of the program: nothing is known of it
                    print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
                    continue
                found = json.loads(done.stdout.splitlines()[-1])
                record[name] = {"date": datetime.date.today().isoformat(), **found}
                path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
                path.with_suffix(".md").write_text(page(record), encoding="utf-8")
                print(f"{name}: {found['launches']:g} launches {found['error']}", flush=True)


def page(record: dict) -> str:
    """The page of a record."""
    from jaxrl_reg.population import megabytes
    from jaxrl_reg.population.targets import TARGETS as KNOWN

    fails = sorted({one["target"] + ": " + name.split()[2] for name, one in record.items() if one["error"]})
    missing = {
        (target, members): [agent for agent in compiled() if f"{target} {members} {agent}" not in record]
        for target in TARGETS
        for members in MEMBERS
    }
    words = f"{len(fails)} do not ({', '.join(fails)})" if fails else "0 do not"
    lines = [INTRO, f"Of {len(record)} programs compiled so far, {words}.", ""]
    for (target, members), left in missing.items():
        lines += [f"## {KNOWN[target].title}, {members} member{'s' if members > 1 else ''}", ""]
        found = [agent for agent in compiled() if agent not in left]
        if found:
            lines += [
                "| agent | launches | branches | copies | state | temporaries | fit | done / needed |",
                "|---|---|---|---|---|---|---|---|",
            ]
        for agent in found:
            one = record[f"{target} {members} {agent}"]
            if one["error"]:
                lines.append(f"| {agent} | does not compile: {one['error'].replace('|', '/')} | | | | | | |")
                continue
            waste = f"{one['used_flops'] / one['flops']:.2f}" if one["used_flops"] and one["flops"] else "-"
            of = agent if one["chunk"] == members else f"{agent}, {one['chunk']} side by side"
            lines.append(
                f"| {of} | {one['launches']:.4g} | {one['branches']:.4g} | {one['copies']:.4g} | "
                f"{megabytes(one['state_bytes'])} | {megabytes(one['temporary_bytes'])} | {one['fit']:,} | {waste} |"
            )
        if left:
            lines += [""] if found else []
            lines.append(f"Not measured yet: {', '.join(left)}." if found else "Nothing measured yet.")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"

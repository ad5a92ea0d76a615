"""Populations at scale: 64 members against 64 processes, 1,024 members against their plan, 20 kills.

``python -m benchmarks.populations`` writes docs/populations.md. Every job is a process of its own that trains TD3+BC
(two layers of 32, batch 64, evaluation included) on data of the point environment, with the library as a user has it.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings

ROOT = pathlib.Path(__file__).parents[1]
TITLES = ("64 members in one process, and 64 processes", "1,024 members", "Killed and resumed")
SMALL = {"hidden": [32, 32], "batch_size": 64, "segments": 4, "episodes": 8, "devices": 2}


def work(options: dict) -> None:
    """One job: trains ``seeds`` x ``settings``, prints the plan and every segment, saves the numbers."""
    os.environ["JAX_NUM_CPU_DEVICES"] = str(options["devices"])
    import jax
    import numpy as np

    from jaxrl_reg import agents, data, envs, population
    from jaxrl_reg.evaluation import returns
    from jaxrl_reg.loops import offline

    env, rows = envs.make("pointnav"), data.load(options["data"])
    module = agents.load("td3_bc")
    run = offline(
        module.make(module.Config(hidden=tuple(options["hidden"])), env.spec),
        batch_size=options["batch_size"],
        updates=options["updates"],
        segments=options["segments"],
        evaluate=returns.evaluator(env, options["episodes"]),
    )
    began = []

    def plan(found) -> None:
        began.append(time.perf_counter())
        say(plan=str(found), bytes=found.total_bytes * found.devices, members=found.members)

    def tell(_) -> None:
        say(seconds=time.perf_counter() - began[0])

    request = {
        "seeds": options["seeds"],
        "hypers": population.sample(module.Hyper(), options["settings"], design="sobol", bc_coef="log:0.1:10"),
        "data": rows,
        "directory": options.get("directory"),
        "save_seconds": options.get("save_seconds", 30.0),
        "resume": True,
        "on_plan": plan,
    }
    if options.get("race"):
        result = population.race(run, population.stopping.halving(), on_round=tell, **request)
    else:
        result = population.sweep(run, on_segment=tell, **request)
    if "out" in options:
        leaves = {f"state{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(result.state))}
        np.savez(options["out"], **leaves, **{k.replace("/", "."): v for k, v in result.metrics.items()})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    say(peak=peak, finished=True)


def collect(path: str) -> None:
    """16,000 steps of uniform actions."""
    import jax

    from jaxrl_reg import data, envs
    from jaxrl_reg.loops.explore import explore

    exploration = explore("random", envs.make("pointnav"), steps=16_000, num_envs=16, segments=1)
    state, _ = exploration.run(jax.random.key(0), exploration.hyper)
    data.save(exploration.dataset(state, "random"), path)


def say(**facts) -> None:
    print(json.dumps(facts), flush=True)


def start(**options) -> subprocess.Popen:
    flags = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    if not options.get("cache"):
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    else:
        environment["JAX_COMPILATION_CACHE_DIR"] = options["cache"]
    command = [sys.executable, "-m", "benchmarks.populations", "--work", json.dumps({**SMALL, **options})]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


def lines_of(process: subprocess.Popen) -> dict:
    """Everything that a job says, in one dictionary; the last word counts."""
    out, _ = process.communicate(timeout=3600)
    if process.returncode:
        raise RuntimeError(f"a job ended with status {process.returncode}")
    return {k: v for line in out.splitlines() if line.startswith("{") for k, v in json.loads(line).items()}


def cost(*jobs: dict) -> tuple[float, float, dict]:
    """CPU seconds of all threads and wall seconds of these jobs, started together, and what the last one said."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    running = [start(**job) for job in jobs]
    facts = [lines_of(process) for process in running][-1]
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, facts


def processes(data: str, counts: list[int], singles: int) -> list[str]:
    """64 members in one process against processes of one member each, two at a time, without a compilation cache."""
    found = [
        f"## {TITLES[0]}",
        "",
        "From start to end of a process, imports, compilation and evaluation included; no compilation cache. Of the "
        f"processes with one member each {singles} were run, two at a time, half before and half after the one with "
        "64; 64 of them take 32 times as long as a pair. The claim: one of 64 members costs at most 1/8 of a process.",
        "",
        "| updates per member | together, CPU-s per member | a process each, CPU-s (min, max) | ratio "
        "| together, wall s | 64 processes, wall s (min, max) | ratio | claim |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for updates in counts:
        pairs = []

        def some(first: int, last: int, pairs=pairs, updates=updates) -> None:
            for seed in range(first, last, 2):
                two = [
                    {"data": data, "seeds": [seed + i], "settings": 1, "updates": updates, "devices": 1}
                    for i in range(2)
                ]
                cpu, wall, _ = cost(*two)
                pairs.append((cpu / 2, 32 * wall))

        some(0, singles // 2)
        cpu, wall, _ = cost({"data": data, "seeds": list(range(64)), "settings": 1, "updates": updates})
        some(singles // 2, singles)
        apart, walls = zip(*pairs, strict=True)
        mean, waited = sum(apart) / len(apart), sum(walls) / len(walls)
        holds = 64 * mean / cpu >= 8 and waited / wall >= 8
        found.append(
            f"| {updates:,} | {cpu / 64:.3f} | {mean:.2f} ({min(apart):.2f}, {max(apart):.2f}) "
            f"| 1/{64 * mean / cpu:.1f} | {wall:.1f} | {waited:.0f} ({min(walls):.0f}, {max(walls):.0f}) "
            f"| 1/{waited / wall:.1f} | {'holds' if holds else 'does not hold'} |"
        )
    return found


def thousand(data: str, updates: int, repeats: int = 3) -> list[str]:
    """1,024 members: what the plan says, and how much more memory the process took than with two members."""
    few, many, seconds = [], [], []
    for _ in range(repeats):  # in turn, since what compilation leaves behind differs by tens of MiB from start to start
        _, _, two = cost({"data": data, "seeds": [0, 1], "settings": 1, "updates": updates})
        cpu, _, told = cost({"data": data, "seeds": list(range(64)), "settings": 16, "updates": updates})
        few.append(two["peak"] / 2**20)
        many.append(told["peak"] / 2**20)
        seconds.append(cpu)
    planned, more = told["bytes"] / 2**20, sorted(b - a for a, b in zip(few, many, strict=True))
    middle, took = more[len(more) // 2], sorted(seconds)[len(seconds) // 2]
    return [
        f"## {TITLES[1]}",
        "",
        f"16 settings x 64 seeds, {updates:,} updates each. The plan: {told['plan']}. Medians of {repeats} runs.",
        "",
        f"- {took:.0f} CPU-seconds in all, {1e6 * took / 1024 / updates:.0f} CPU-microseconds per update and member.",
        f"- Planned for both devices: {planned:.0f} MiB. Peak of the process above that of a population of two: "
        f"{middle:.0f} MiB ({more[0]:.0f}, {more[-1]:.0f}; the population of two itself took {min(few):.0f} to "
        f"{max(few):.0f} MiB): {'within' if more[-1] <= planned else 'not always within'} the plan.",
    ]


def fork(options: dict, write_to: int) -> int:
    """A job as a copy of this process, which has imported everything and started no backend; its id."""
    child = os.fork()
    if child == 0:
        os.dup2(write_to, 1)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        try:
            work(options)
            sys.stdout.flush()
        finally:
            os._exit(0)
    return child


def heard(options: dict, rounds: int | None = None, wait: float = 0.0, saving: bool = False) -> list[dict]:
    """What a job says until it ends, or until it is killed ``wait`` seconds after so many rounds.

    With ``saving`` the wait begins when after these rounds a checkpoint is begun.
    """
    read, write = os.pipe()
    child, said = fork(options, write), []
    os.close(write)
    with os.fdopen(read) as lines:
        for line in lines:
            said.append(json.loads(line))
            if rounds is not None and sum("seconds" in one for one in said) == rounds:
                late = time.monotonic() + 10
                while saving and not unfinished(options["directory"]) and time.monotonic() < late:
                    time.sleep(1e-3)
                time.sleep(wait)
                os.kill(child, signal.SIGKILL)  # of a job that has ended, a zombie: no harm
                break
    os.waitpid(child, 0)
    return said


def unfinished(directory: str) -> bool:
    """Whether a checkpoint in there has been begun and not completed."""
    return any(pathlib.Path(directory).glob("*orbax-checkpoint-tmp*"))


def kills(data: str, count: int, seed: int = 0) -> list[str]:
    """Runs killed at random moments, resumed, and compared with one that nobody disturbed: bit by bit.

    Every other one is a race, every third is killed once a checkpoint is begun.
    """
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(SMALL["devices"])}
    flags = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    import jax
    import numpy as np
    import orbax.checkpoint  # noqa: F401

    from jaxrl_reg.agents import td3_bc  # noqa: F401

    warnings.filterwarnings("ignore", message=r"os\.fork")
    generator, same, moments, halves = random.Random(seed), 0, [], 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", f"{folder}/cache")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        shared = {**SMALL, "data": data, "seeds": [0, 1], "settings": 9, "segments": 27, "updates": 27 * 20}
        shared |= {"episodes": 4, "save_seconds": 0.2}
        whole = {}
        for race in (False, True):
            options = {**shared, "race": race, "directory": f"{folder}/whole-{race}", "out": f"{folder}/{race}.npz"}
            said = heard(options)
            assert "finished" in said[-1]
            whole[race] = dict(np.load(options["out"])), [one["seconds"] for one in said if "seconds" in one]
        tries = 0
        while len(moments) < count:
            i, tries = len(moments), tries + 1
            assert tries < 3 * count, "runs end before they are killed"
            race, saving = bool(i % 2), i % 3 == 2
            numbers, times = whole[race]
            options = {**shared, "race": race, "directory": f"{folder}/{tries}", "out": f"{folder}/{tries}.npz"}
            after = generator.randint(1, len(times) - 2)  # rounds that are over
            step = float(np.median(np.diff(times)))
            heard(options, after, generator.uniform(0.0, 0.02 if saving else step), saving)
            if pathlib.Path(options["out"]).exists():
                continue  # it had ended before
            moments.append(after / len(times))
            half = unfinished(options["directory"])
            halves += half
            heard(options)
            again = dict(np.load(options["out"]))
            equal = sorted(again) == sorted(numbers) and all(
                np.array_equal(again[name], value, equal_nan=True) for name, value in numbers.items()
            )
            same += equal
            print(
                f"kill {i + 1} at {moments[-1]:.0%}{', a save cut off' if half else ''}: "
                f"{'same' if equal else 'DIFFERENT'} ({time.monotonic() - began:.0f} s)",
                flush=True,
            )
    return [
        f"## {TITLES[2]}",
        "",
        f"{count} runs of 18 members (every other one a race with early stopping), each killed with SIGKILL at a "
        f"random moment (seed {seed}), {min(moments):.0%} to {max(moments):.0%} of the way, {halves} of them in the "
        f"middle of a save, which a half-written checkpoint shows; then resumed: **{same} of {count}** end with "
        "exactly the parameters, optimiser states and metrics of an undisturbed run.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.populations", description=__doc__)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--collect", help=argparse.SUPPRESS)
    parser.add_argument(
        "--only", choices=("processes", "thousand", "kills"), help="measure one section, keep the others"
    )
    parser.add_argument("--updates", type=int, nargs="+", default=[500, 4_000], help="of the first section")
    parser.add_argument("--singles", type=int, default=6, help="processes of one member (6)")
    parser.add_argument("--kills", type=int, default=20, help="runs to kill (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills (0)")
    parser.add_argument("--to", type=pathlib.Path, default=ROOT / "docs" / "populations.md")
    options = parser.parse_args()
    if options.work:
        return work(json.loads(options.work))
    if options.collect:
        return collect(options.collect)
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/random.hdf5"
        command = [sys.executable, "-m", "benchmarks.populations", "--collect", data]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        jobs = {
            "processes": lambda: processes(data, options.updates, options.singles),
            "thousand": lambda: thousand(data, 500),
            "kills": lambda: kills(data, options.kills, options.seed),
        }
        sections = [jobs[name]() for name in jobs if options.only in (None, name)]
    print("\n\n".join("\n".join(section) for section in sections))
    options.to.write_text(page(options.to, sections))


def page(path: pathlib.Path, sections: list[list[str]]) -> str:
    """The page with these sections, and what it has of the others."""
    before = path.read_text().split("\n\nWritten by")[0].split("\n\n## ")[1:] if path.exists() else []
    found = {text.split("\n")[0]: f"## {text}" for text in before}
    for section in sections:
        found[section[0].removeprefix("## ")] = "\n".join(section)
    head = (
        f"# Populations at scale\n\n{os.cpu_count()} cores, CPU; TD3+BC, two layers of 32, batch 64. All numbers of a "
        "section come from one run; where the machine had other work, CPU time hardly feels it and wall time does."
    )
    foot = "Written by `python -m benchmarks.populations`; `--only SECTION` measures one anew."
    return "\n\n".join([head, *(found[title] for title in TITLES if title in found), foot]) + "\n"


if __name__ == "__main__":
    main()

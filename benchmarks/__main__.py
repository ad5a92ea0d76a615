"""Measure against peers, side by side in one run, and write docs/benchmark.md and docs/benchmark.json.

Every contestant is a process of its own that waits for its turn; the turns go round-robin, so that whatever else the
machine does hits all alike. Ratios are medians of per-round ratios of CPU time, which a busy machine disturbs least.
Peers are installed from the package index into environments of their own below ``.venv-peers``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parent
PEERS = {
    # torch's default build for Linux carries CUDA libraries; this environment is the benchmark's alone.
    "d3rlpy": ("d3rlpy==2.8.1", "torch==2.13.0"),
    "rejax": ("rejax==0.1.3", "gymnax==0.0.9"),
}
SECTIONS = ("members", "cores", "online", "diffusion", "zero_shot")
TARGET_CPU_SECONDS = 0.5
GEMM_GFLOP = 2 * 256**3 / 1e9


def flops(agent: str, batch: int = 256, observation: int = 17, action: int = 6, hidden: int = 256) -> float:
    """Useful floating-point operations of one update in billions; gradients of inputs to first layers do not count."""

    def forward(inputs: int, outputs: int) -> float:
        return 2 * batch * (inputs * hidden + hidden * hidden + hidden * outputs)

    def both(inputs: int, outputs: int) -> float:  # forward, weight gradients, input gradients behind layer one
        return 2 * forward(inputs, outputs) + 2 * batch * (hidden * hidden + hidden * outputs)

    q = observation + action
    if agent == "iql":
        total = forward(observation, 1) + both(observation, 1) + 2 * forward(q, 1) + 2 * both(q, 1)
        return (total + both(observation, action)) / 1e9
    critic = forward(observation, action) + 2 * forward(q, 1) + 2 * both(q, 1)
    through_q = forward(q, 1) + 2 * batch * (q * hidden + hidden * hidden + hidden)
    return (critic + (both(observation, action) + through_q) / 2) / 1e9  # the actor learns every second update


def install(peer: str) -> pathlib.Path | None:
    """The interpreter of a peer's environment, made on first use; None, with a line that says why, if it cannot be."""
    folder = ROOT / ".venv-peers" / peer
    python = folder / "bin" / "python"
    if not (folder / ".done").exists():
        print(f"installing {', '.join(PEERS[peer])} into {folder.relative_to(ROOT)}", flush=True)
        commands = (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *reversed(PEERS[peer])],
        )
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{peer} is left out: {done.stderr.strip().splitlines()[-1]}")
                return None
        (folder / ".done").touch()
    return python


class Contestant:
    """A worker process; ``turn`` gives it a slice and notes what that cost."""

    def __init__(self, name: str, python: pathlib.Path | str, script: str, options: dict):
        self.name, self.options = name, options
        threads = str(options.get("threads", 1))
        environment = {
            **{k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"},
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": threads,
            "PYTHONWARNINGS": "ignore",
        }
        self.log = open(ROOT / ".venv-peers" / f"{name.replace(' ', '_').replace('/', '_')}.log", "w")  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(python), str(FOLDER / script), json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment,
        )  # fmt: skip
        self.turns: list[dict] = []
        self.facts: dict = {}
        self.count = 1

    def ask(self, count: int) -> dict:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"run": count}) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} died; see {self.log.name}")
        return json.loads(line)

    def start(self) -> None:
        self.facts = self.hear()["ready"]
        once = self.ask(1)
        self.count = max(1, round(TARGET_CPU_SECONDS / max(once["cpu"], 1e-4)))

    def turn(self) -> None:
        before = busy()
        reply = self.ask(self.count)
        others = (busy() - before) - reply["cpu"]
        reply["clean"] = others <= 0.05 * reply["wall"] * (os.cpu_count() or 1)
        self.turns.append(reply)

    def stop(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait(timeout=60)
        self.log.close()

    def per_unit(self, clock: str) -> list[float]:
        """Seconds per unit of work in every round."""
        return [turn[clock] / (self.count * self.facts["unit"]) for turn in self.turns]


def busy() -> float:
    """Busy CPU seconds of the whole machine so far (Linux; elsewhere 0)."""
    try:
        fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    except OSError:
        return 0.0
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def contest(contestants: list[Contestant], rounds: int) -> list[Contestant]:
    """Start one after the other, then take turns; a contestant that dies is left out with a line."""
    alive = []
    for contestant in contestants:
        try:
            contestant.start()
            alive.append(contestant)
            print(f"  {contestant.name}: ready in {contestant.facts['prepare_seconds']:.1f} s", flush=True)
        except RuntimeError as error:
            print(f"  {error}")
    for _ in range(rounds):
        for contestant in alive:
            contestant.turn()
    for contestant in alive:
        contestant.stop()
    return alive


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(slow: Contestant, fast: Contestant, clock: str = "cpu") -> dict[str, float]:
    """How many times cheaper ``fast`` is: median, least and greatest of the per-round ratios."""
    return spread([a / b for a, b in zip(slow.per_unit(clock), fast.per_unit(clock), strict=True)])


def measure(rounds: int, quick: bool, wanted: tuple[str, ...]) -> dict:
    """The wanted sections; every number comes from this run."""
    (ROOT / ".venv-peers").mkdir(exist_ok=True)
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    ours, block = "worker_ours.py", 32
    base = {"kind": "offline", "hidden": [256, 256], "batch_size": 256, "block": block, "placement": "auto"}
    one_core = {"core": core, "devices": 1, "threads": 1}
    record: dict = {"rounds": rounds, "quick": quick, "block": block, "sections": {}}

    def ask(name, script, options, python=sys.executable):
        return Contestant(name, python, script, options)

    peers = {} if quick else {name: install(name) for name in PEERS}

    print("single member on one core", flush=True)
    single = [
        ask("gemm forward", ours, {"kind": "gemm", "form": "forward", **one_core}),
        ask("gemm training mix", ours, {"kind": "gemm", "form": "mix", **one_core}),
        *(ask(f"{agent} x1", ours, {**base, **one_core, "agent": agent, "members": 1}) for agent in ("iql", "td3_bc")),
    ]
    if peers.get("d3rlpy"):
        for agent in ("iql", "td3_bc"):
            options = {"kind": "offline", "agent": agent, "hidden": [256, 256], "batch_size": 256, **one_core}
            single.append(ask(f"d3rlpy {agent}", "worker_d3rlpy.py", options, peers["d3rlpy"]))
        single.append(ask("torch gemm", "worker_d3rlpy.py", {"kind": "gemm", **one_core}, peers["d3rlpy"]))
    record["sections"]["single"] = {c.name: c for c in contest(single, rounds)}

    for agent in ("iql", "td3_bc") if "members" in wanted else ():
        print(f"members of {agent} on one core", flush=True)
        sizes = (1, 4, 16) if quick or agent != "iql" else (1, 4, 16, 64)
        scaled = [ask(f"{agent} x{n}", ours, {**base, **one_core, "agent": agent, "members": n}) for n in sizes]
        scaled.append(
            ask(f"{agent} x16 vmap", ours, {**base, **one_core, "agent": agent, "members": 16, "placement": "vmap"})
        )
        record["sections"][f"members {agent}"] = {c.name: c for c in contest(scaled, rounds)}

    cores = os.cpu_count() or 1
    if cores > 1 and "cores" in wanted:
        print(f"all {cores} cores", flush=True)
        whole = {"core": None, "threads": cores}
        everywhere = [
            ask("iql x1", ours, {**base, **whole, "devices": 1, "agent": "iql", "members": 1}),
            ask("iql x16", ours, {**base, **whole, "devices": cores, "agent": "iql", "members": 16}),
            ask(
                "iql x16 vmap",
                ours,
                {**base, **whole, "devices": 1, "agent": "iql", "members": 16, "placement": "vmap"},
            ),
        ]
        record["sections"]["cores"] = {c.name: c for c in contest(everywhere, rounds)}

    if "online" in wanted:
        print("online, Pendulum", flush=True)
        # The same work on both sides, where rejax's settings allow: PPO 64 environments x 64 steps, 4 passes of 8
        # minibatches, networks of 64 x 64, no normalisation; SAC one update a step, 256 x 256, 256 random steps first.
        ppo = {"kind": "online", "agent": "ppo", "steps": 65_536, "members": 1, **one_core}
        ppo |= {
            "config": {"hidden": [64, 64], "epochs": 4, "minibatches": 8, "normalise": False},
            "loop": {"num_envs": 64, "unroll": 64},
        }
        sac = {"kind": "online", "agent": "sac", "steps": 1_024, "members": 1, **one_core}
        sac |= {
            "config": {"hidden": [256, 256]},
            "loop": {"num_envs": 1, "updates": 1, "batch_size": 256, "warmup": 256},
        }
        online = [ask("ppo", ours, ppo), ask("sac", ours, sac)]
        if peers.get("rejax"):
            shared = {"num_envs": 64, "num_steps": 64, "num_epochs": 4, "num_minibatches": 8}
            options = {"agent": "ppo", "steps": 65_536, "members": 1, "config": shared, **one_core}
            online.append(ask("rejax ppo", "worker_rejax.py", options, peers["rejax"]))
            shared = {"num_envs": 1, "buffer_size": 10_000, "fill_buffer": 256, "batch_size": 256}
            shared["hidden_layer_sizes"] = [256, 256]
            options = {"agent": "sac", "steps": 1_280, "unit": 1_024, "members": 1, "config": shared, **one_core}
            online.append(ask("rejax sac", "worker_rejax.py", options, peers["rejax"]))
        record["sections"]["online"] = {c.name: c for c in contest(online, rounds)}

    if "diffusion" in wanted:
        print("diffusion actions on one core", flush=True)
        sizes = {1: "meanflow", 50: "ddpm"} if quick else {1: "meanflow", 3: "edm", 5: "ddpm", 10: "ddpm", 50: "ddpm"}
        actions = [
            ask(
                f"{sampler} {steps} x{n}",
                ours,
                {"kind": "diffusion", "sampler": sampler, "steps": steps, "members": n, "batch_size": 256, **one_core},
            )
            for n in (1, 64)
            for steps, sampler in sizes.items()
        ]
        record["sections"]["diffusion"] = {c.name: c for c in contest(actions, 3 if quick else rounds)}

    if "zero_shot" in wanted:
        print("zero-shot agents on one core", flush=True)
        options = {**base, **one_core, "hidden": [32] if quick else None, "batch_size": 512, "observation": 24}
        options["block"] = 1  # an update of BREEZE samples 512 actions in ten steps of a network of 27 million weights
        for members in (1, 8):  # one population after the other: eight of BREEZE hold 5 GB
            asked = [ask(f"{agent} x{members}", ours, {**options, "agent": agent, "members": members})
                     for agent in ("fb", "breeze")]  # fmt: skip
            found = {c.name: c for c in contest(asked, min(rounds, 3))}
            record["sections"]["zero_shot"] = {**record["sections"].get("zero_shot", {}), **found}
    return record


def page(record: dict) -> str:
    """The results as Markdown."""
    sections = record["sections"]
    single = sections["single"]
    turns = [turn for section in sections.values() for c in section.values() for turn in c.turns]
    clean = sum(turn["clean"] for turn in turns) / len(turns)
    mix = single["gemm training mix"]
    rate = {
        name: GEMM_GFLOP / spread(single[name].per_unit("cpu"))["median"]
        for name in ("gemm forward", "gemm training mix")
    }
    lines = [
        "# Benchmark",
        "",
        "Written by `make bench`; do not edit. All numbers of a table come from one run, contestants taking turns.",
        "",
        f"{record['date']}, {record['machine']}, Python {record['python']}, {record['rounds']} rounds of about "
        f"{TARGET_CPU_SECONDS} CPU-seconds each; {100 * clean:.0f}% of the slices had the machine to themselves.",
        "CPU-milliseconds count all threads. One update is one gradient step on the critics; batch 256, two hidden "
        "layers of 256, 17 observations, 6 actions, 100,000 rows. Evaluation is left out.",
        "",
        "## One member, one core",
        "",
        "| contestant | CPU-ms per update (min, max) | updates per core-second | GFLOP/s | of the matrix-product rate | "
        "compile s | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, c in single.items():
        if "gemm" in name:
            continue
        agent = "iql" if "iql" in name else "td3_bc"
        cost = spread(c.per_unit("cpu"))
        gflops = flops(agent) / cost["median"]
        share = spread(
            [flops(agent) / u / (GEMM_GFLOP / g) for u, g in zip(c.per_unit("cpu"), mix.per_unit("cpu"), strict=True)]
        )
        lines.append(
            f"| {name} | {1e3 * cost['median']:.2f} ({1e3 * cost['min']:.2f}, {1e3 * cost['max']:.2f}) | "
            f"{1 / cost['median']:.0f} | {gflops:.0f} | {share['median']:.2f} ({share['min']:.2f}, {share['max']:.2f}) | "
            f"{c.facts.get('compile_seconds', 0):.1f} | {max(t['peak_bytes'] for t in c.turns) / 2**20:.0f} MiB |"
        )
    lines += [
        "",
        f"The matrix-product rate is that of 256 x 256 float32 products in one compiled scan, measured in the same rounds: "
        f"{rate['gemm forward']:.0f} GFLOP per core-second forward, {rate['gemm training mix']:.0f} for the mix of forward, "
        "input-gradient and weight-gradient forms that training consists of; the share is of the mix.",
        "",
    ]
    for agent in ("iql", "td3_bc"):
        if f"d3rlpy {agent}" in single:
            r = ratio(single[f"d3rlpy {agent}"], single[f"{agent} x1"])
            lines.append(f"- {agent}: **{r['median']:.1f}x** d3rlpy per core ({r['min']:.1f} to {r['max']:.1f}).")
    if "torch gemm" in single:
        r = ratio(single["torch gemm"], single["gemm forward"])
        lines.append(
            f"- Of which the plain matrix product: {r['median']:.2f}x PyTorch's ({r['min']:.2f} to {r['max']:.2f})."
        )
    if "members iql" in sections:
        lines += [
            "",
            "## Members",
            "",
            "Cost of one member's update in a population, relative to a population of one.",
            "",
        ]
        lines += [
            "| population | CPU-ms per update and member (min, max) | relative to x1 (min, max) | compile s | temporaries | states |"
        ]
        lines += ["|---|---|---|---|---|---|"]
        for agent in ("iql", "td3_bc"):
            section = sections[f"members {agent}"]
            for name, c in section.items():
                cost, r = spread(c.per_unit("cpu")), ratio(c, section[f"{agent} x1"])
                lines.append(
                    f"| {name} | {1e3 * cost['median']:.2f} ({1e3 * cost['min']:.2f}, {1e3 * cost['max']:.2f}) | "
                    f"{r['median']:.3f} ({r['min']:.3f}, {r['max']:.3f}) | {c.facts['compile_seconds']:.1f} | "
                    f"{c.facts['temporary_bytes'] / 2**20:.0f} MiB | {c.facts['state_bytes'] / 2**20:.0f} MiB |"
                )
    if "cores" in sections:
        lines += [
            "",
            f"## All {os.cpu_count()} cores",
            "",
            "| population | updates per second, all members (min, max) |",
            "|---|---|",
        ]
        for name, c in sections["cores"].items():
            speed = spread([1 / u for u in c.per_unit("wall")])
            lines.append(f"| {name} | {speed['median']:.0f} ({speed['min']:.0f}, {speed['max']:.0f}) |")
    online = sections.get("online", {})
    if online:
        lines += ["", "## Online, Pendulum, one core", ""]
        lines += ["| contestant | environment steps per core-second (min, max) | compile s |", "|---|---|---|"]
        for name, c in online.items():
            speed = spread([1 / u for u in c.per_unit("cpu")])
            lines.append(
                f"| {name} | {speed['median']:,.0f} ({speed['min']:,.0f}, {speed['max']:,.0f}) | {c.facts['compile_seconds']:.1f} |"
            )
        for agent in ("ppo", "sac"):
            if f"rejax {agent}" in online:
                r = ratio(online[f"rejax {agent}"], online[agent])
                lines += ["", f"- {agent}: {r['median']:.2f}x rejax per core ({r['min']:.2f} to {r['max']:.2f})."]
    if "diffusion" in sections:
        lines += ["", "## Generative policies, one core", ""]
        lines += ["A 3 x 256 network, batches of 256 observations; MeanFlow jumps, EDM is BESO's, DDPM Diffusion-QL's."]
        lines += ["", "| sampler, steps, members | actions per core-second (min, max) |", "|---|---|"]
        section = sections["diffusion"]
        for name, c in section.items():
            speed = spread([1 / u for u in c.per_unit("cpu")])
            lines.append(f"| {name} | {speed['median']:,.0f} ({speed['min']:,.0f}, {speed['max']:,.0f}) |")
        lines.append("")
        for n in (1, 64):
            slow, fast = section.get(f"ddpm 50 x{n}"), section.get(f"meanflow 1 x{n}")
            if slow is None or fast is None:  # one of them died
                continue
            r = ratio(slow, fast)
            members = "One member" if n == 1 else f"{n} members"
            lines.append(
                f"- {members}: one step draws **{r['median']:.0f}x** as many actions as fifty ({r['min']:.0f} to "
                f"{r['max']:.0f})."
            )
    if "zero_shot" in sections:
        lines += ["", "## Zero-shot agents, one core", ""]
        lines += [
            f"The agents' default sizes, which are the papers'; batch 512, 24 observations, 6 actions, "
            f"{min(record['rounds'], 3)} rounds."
            if not record["quick"]
            else "Layers of at most 32, to try the machinery.",
            "",
            "| population | CPU-ms per update and member (min, max) | updates per core-second, all members | compile s | "
            "temporaries | states | peak memory |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, c in sections["zero_shot"].items():
            cost = spread(c.per_unit("cpu"))
            lines.append(
                f"| {name} | {1e3 * cost['median']:,.1f} ({1e3 * cost['min']:,.1f}, {1e3 * cost['max']:,.1f}) | "
                f"{1 / cost['median']:.3g} | {c.facts['compile_seconds']:.1f} | "
                f"{c.facts['temporary_bytes'] / 2**20:,.0f} MiB | {c.facts['state_bytes'] / 2**20:,.0f} MiB | "
                f"{max(t['peak_bytes'] for t in c.turns) / 2**20:,.0f} MiB |"
            )
    lines += [
        "",
        f"Sections left out of this run: {', '.join(record['left_out']) or 'none'}.",
        "brax.training is no contestant: its released version calls a JAX function that the pinned JAX no longer has.",
    ]
    return "\n".join(lines) + "\n"


def machine() -> str:
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
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs", help="folder of benchmark.md and .json")
    parser.add_argument("--sections", default=",".join(SECTIONS), help=f"beside 'single': {', '.join(SECTIONS)} (all)")
    options = parser.parse_args()
    wanted = tuple(name for name in options.sections.split(",") if name)
    if unknown := sorted(set(wanted) - set(SECTIONS) - {"single"}):
        parser.error(f"unknown section {unknown[0]!r}; choose from {', '.join(SECTIONS)}")
    started = time.monotonic()
    record = measure(options.rounds, options.quick, wanted)
    record["left_out"] = [name for name in SECTIONS if name not in wanted]
    record |= {"date": datetime.date.today().isoformat(), "machine": machine(), "python": platform.python_version()}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "benchmark.md").write_text(page(record))
    plain = {
        **record,
        "sections": {
            section: {name: {"facts": c.facts, "count": c.count, "turns": c.turns} for name, c in contestants.items()}
            for section, contestants in record["sections"].items()
        },
    }
    (options.out / "benchmark.json").write_text(json.dumps(plain, indent=1) + "\n")
    print(f"wrote {options.out / 'benchmark.md'} in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

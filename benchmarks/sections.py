"""What is measured: one function per section, from the machine that there is to the results of its contestants."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.contest import ROOT, Contestant, Result, contest, fresh

PEERS = {
    # torch's default build for Linux carries CUDA libraries; this environment is the benchmark's alone.
    "d3rlpy": ("d3rlpy==2.8.1", "torch==2.13.0"),
    "rejax": ("rejax==0.1.3", "gymnax==0.0.9"),
    "qdax": ("qdax==0.5.0",),
}
OURS = "worker_ours.py"
GEMM_CHAINS = 256  # side by side on one accelerator, to fill it
Results = dict[str, Result]


@dataclasses.dataclass(frozen=True)
class Setup:
    """The machine and how thorough to be. ``platform`` is JAX's name; ``devices`` how many there are of it."""

    platform: str
    devices: int
    rounds: int
    quick: bool
    clones: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)  # repositories that are no packages
    absent: dict[str, str] = dataclasses.field(default_factory=dict)  # why a peer is no contestant; filled on the way

    @property
    def cpu(self) -> bool:
        return self.platform == "cpu"

    @property
    def one(self) -> dict:
        """Options of a contestant on one device; on a CPU that is one core."""
        core = max(os.sched_getaffinity(0)) if self.cpu and hasattr(os, "sched_getaffinity") else None
        return {"platform": self.platform, "core": core, "devices": 1, "threads": 1}

    def offline(self, **options) -> dict:
        """Options of a population of offline agents of the usual size."""
        usual = {"kind": "offline", "hidden": [256, 256], "batch_size": 256, "block": 32, "placement": "auto"}
        return {**usual, **self.one, **options}

    def peer(self, name: str) -> pathlib.Path | None:
        """The interpreter of a peer's environment, made on first use; None, with a line that says why, without one."""
        why = "--quick" if self.quick else None if self.cpu else "peers are measured on CPUs only"
        folder = ROOT / ".venv-peers" / name
        python = folder / "bin" / "python"
        if why is None and not (folder / ".done").exists():
            print(f"installing {', '.join(PEERS[name])} into {folder.relative_to(ROOT)}", flush=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            for command in ([sys.executable, "-m", "venv", str(folder)], [*pip, *reversed(PEERS[name])]):
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    why = (done.stderr.strip().splitlines() or ["it cannot be installed"])[-1]
                    break
            else:
                (folder / ".done").touch()
        if why is not None:
            print(f"  {name} is left out: {why}", flush=True)
            self.absent[name] = why
            return None
        return python


def single(setup: Setup) -> Results:
    """One member of each agent, the matrix product, and d3rlpy."""
    forms = {"gemm forward": "forward", "gemm training mix": "mix"}
    found = [Contestant(name, OURS, {"kind": "gemm", "form": form, **setup.one}) for name, form in forms.items()]
    found += [Contestant(f"{agent} x1", OURS, setup.offline(agent=agent, members=1)) for agent in ("iql", "td3_bc")]
    if python := setup.peer("d3rlpy"):
        for agent in ("iql", "td3_bc"):
            found.append(Contestant(f"d3rlpy {agent}", "worker_d3rlpy.py", setup.offline(agent=agent), python))
        found.append(Contestant("torch gemm", "worker_d3rlpy.py", {"kind": "gemm", **setup.one}, python))
    return contest(found, setup.rounds)


def members(setup: Setup, agent: str) -> Results:
    """Populations on one device; one of 16 with the placement that ``auto`` does not choose."""
    sizes = (1, 4, 16) if setup.quick else (1, 4, 16, 64) if setup.cpu else (1, 4, 16, 64, 256, 1024)
    if setup.cpu and agent != "iql":
        sizes = sizes[:3]
    found = [Contestant(f"{agent} x{n}", OURS, setup.offline(agent=agent, members=n)) for n in sizes]
    other = "vmap" if setup.cpu else "map"
    options = setup.offline(agent=agent, members=16, placement=other)
    return contest([*found, Contestant(f"{agent} x16 {other}", OURS, options)], setup.rounds)


def start(setup: Setup) -> Results:
    """What a user waits for first: a new process until its first update is done, again in every round."""
    usual = {"observation": 17, "hidden": [256, 256], "batch_size": 256}
    agents = {"iql": usual, "td3_bc": usual, "fb": {"observation": 24, "hidden": None, "batch_size": 512}}
    turns: dict[str, list[dict]] = {agent: [] for agent in agents}
    for _ in range(min(setup.rounds, 5)):
        for agent, options in agents.items():
            turns[agent].append(fresh("worker_start.py", {"agent": agent, **options}))
    return {agent: Result(1, {"unit": 1}, turns[agent]) for agent in agents}


def unifloral(setup: Setup) -> Results:
    """Unifloral's IQL and TD3+BC beside ours, one member and 16, on one core; see ``worker_unifloral``."""
    found = []
    for agent in ("iql", "td3_bc"):
        for n in (1, 16):
            options = setup.offline(agent=agent, members=n, clone=str(setup.clones["unifloral"]))
            found.append(Contestant(f"unifloral {agent} x{n}", "worker_unifloral.py", options))
            found.append(Contestant(f"{agent} x{n}", OURS, options))
    return contest(found, setup.rounds)


def cores(setup: Setup) -> Results:
    """All cores of a CPU: by devices with members of their own, or by the threads of one device."""
    count = os.cpu_count() or 1
    whole = {"agent": "iql", "core": None, "threads": count}
    ways = {
        "iql x1": {"devices": 1, "members": 1},
        "iql x16": {"devices": count, "members": 16},
        "iql x16 vmap": {"devices": 1, "members": 16, "placement": "vmap"},
    }
    return contest([Contestant(name, OURS, setup.offline(**whole, **way)) for name, way in ways.items()], setup.rounds)


def scaling(setup: Setup) -> Results:
    """Members x devices, and on a CPU members x processes, with the matrix product on as many devices.

    A device of a CPU is a core: one device is pinned to one, ``JAX_NUM_CPU_DEVICES`` makes more in one process.
    """
    most = (os.cpu_count() or 1) if setup.cpu else setup.devices
    counts = [n for n in (1, 2, 4, 8) if n <= most]
    sizes = (1, 4) if setup.quick else (1, 4, 16, 64, 256) if setup.cpu else (1, 4, 16, 64, 256, 1024)
    found = []
    for devices in counts:
        where = {"devices": devices, **({"core": None, "threads": devices} if devices > 1 else {})}
        chains = devices * (1 if setup.cpu else GEMM_CHAINS)
        mix = {"kind": "gemm", "form": "mix", **setup.one, **where, "members": chains}
        found.append(Contestant(f"gemm on {devices}", OURS, mix))
        for n in sizes:
            if n >= devices:
                options = setup.offline(agent="iql", members=n, block=8, **where)
                found.append(Contestant(f"iql x{n} on {devices}", OURS, options))
    if setup.cpu and most > 1:
        where = {"devices": 2, "processes": 2, "core": None, "threads": 1}
        for n in sizes[1:3]:
            options = setup.offline(agent="iql", members=n, block=8, **where)
            found.append(Contestant(f"iql x{n} in 2 processes", OURS, options))
    return contest(found, min(setup.rounds, 5))


def online(setup: Setup) -> Results:
    """PPO and SAC on Pendulum against rejax, which does the same work where its settings allow.

    PPO: 64 environments x 64 steps, 4 passes of 8 minibatches, 64 x 64 with silu, no normalisation. SAC: one update a
    step, 256 x 256, 256 random steps first. Beside the speed, what ten seeds of each have learned after more steps.
    """
    seeds = {"seeds": 2 if setup.quick else 10, "episodes": 16}
    ppo = {"kind": "online", "agent": "ppo", "steps": 65_536, "members": 1, **setup.one}
    ppo |= {
        "config": {"hidden": [64, 64], "activation": "silu", "epochs": 4, "minibatches": 8, "normalise": False},
        "loop": {"num_envs": 64, "unroll": 64},
    }
    sac = {"kind": "online", "agent": "sac", "steps": 1_024, "members": 1, **setup.one}
    sac |= {
        "config": {"hidden": [256, 256]},
        "loop": {"num_envs": 1, "updates": 1, "batch_size": 256, "warmup": 256},
    }
    ppo["learn"] = {"steps": 4096 * (1 if setup.quick else 120), **seeds}
    sac["learn"] = {"steps": 500 if setup.quick else 4_000, **seeds}
    found = [Contestant("ppo", OURS, ppo), Contestant("sac", OURS, sac)]
    if python := setup.peer("rejax"):
        shared = {"num_envs": 64, "num_steps": 64, "num_epochs": 4, "num_minibatches": 8}
        options = {"agent": "ppo", "steps": 65_536, "members": 1, "config": shared, **setup.one}
        options["learn"] = ppo["learn"]
        found.append(Contestant("rejax ppo", "worker_rejax.py", options, python))
        shared = {"num_envs": 1, "buffer_size": 10_000, "fill_buffer": 256, "batch_size": 256}
        shared["hidden_layer_sizes"] = [256, 256]
        options = {"agent": "sac", "steps": 1_280, "unit": 1_024, "members": 1, "config": shared, **setup.one}
        options["learn"] = {**sac["learn"], "steps": sac["learn"]["steps"] + 256}  # the random steps among them
        options["learn_config"] = {"buffer_size": 12_000}
        found.append(Contestant("rejax sac", "worker_rejax.py", options, python))
    return contest(found, setup.rounds)


def diffusion(setup: Setup) -> Results:
    """Actions of generative policies by their number of steps."""
    sizes = {1: "meanflow", 50: "ddpm"}
    if not setup.quick:
        sizes = {1: "meanflow", 3: "edm", 5: "ddpm", 10: "ddpm", 50: "ddpm"}
    found = [
        Contestant(
            f"{sampler} {steps} x{n}",
            OURS,
            {"kind": "diffusion", "sampler": sampler, "steps": steps, "members": n, "batch_size": 256, **setup.one},
        )
        for n in (1, 64)
        for steps, sampler in sizes.items()
    ]
    return contest(found, 3 if setup.quick else setup.rounds)


def zero_shot(setup: Setup) -> Results:
    """FB and BREEZE at the sizes of the papers, three rounds."""
    # One update a call: one of BREEZE samples 512 actions in ten steps of a network of 27 million weights.
    options = {"hidden": [32] if setup.quick else None, "batch_size": 512, "observation": 24, "block": 1}
    found: Results = {}
    for n in (1, 8):  # one population after the other: eight of BREEZE hold 5 GB
        asked = [
            Contestant(f"{agent} x{n}", OURS, setup.offline(agent=agent, members=n, **options))
            for agent in ("fb", "breeze")
        ]
        found |= contest(asked, min(setup.rounds, 3))
    return found


def tokens(setup: Setup) -> Results:
    """Tokens of token policies, sampled and learned from; of one member also sampled without what is remembered."""
    usual = {"kind": "tokens", "length": 8 if setup.quick else 32, "batch_size": 4, "group": 8, **setup.one}
    found = [
        Contestant(f"{form} x{n}", OURS, {**usual, "form": form, "members": n})
        for n in (1, 64)
        for form in ("cached", "uncached", "training")
        if n == 1 or form != "uncached"
    ]
    return contest(found, setup.rounds)


def repertoires(setup: Setup) -> Results:
    """MAP-Elites on an arm, by our grid of elites and by QDax's repertoire."""
    options = {"library": "ours", **setup.one}
    found = [Contestant("elites", "worker_repertoires.py", options)]
    if python := setup.peer("qdax"):
        found.append(Contestant("qdax", "worker_repertoires.py", {**options, "library": "qdax"}, python))
    return contest(found, setup.rounds)


SECTIONS: dict[str, Callable[[Setup], Results]] = {
    "start": start,
    "single": single,
    "members": lambda setup: members(setup, "iql") | members(setup, "td3_bc"),
    "cores": cores,
    "scaling": scaling,
    "online": online,
    "diffusion": diffusion,
    "zero_shot": zero_shot,
    "tokens": tokens,
    "repertoires": repertoires,
    "unifloral": unifloral,
}
NEEDS_CLONE = ("unifloral",)


def measure(name: str, setup: Setup) -> dict:
    """One section as it goes into the record: what it found, and the circumstances."""
    began = time.monotonic()
    results = SECTIONS[name](setup)
    turns = [turn for result in results.values() for turn in result.turns]
    return {
        "platform": setup.platform,
        "rounds": max((len(result.turns) for result in results.values()), default=0),
        "quick": setup.quick,
        "clean": sum(turn["clean"] for turn in turns) / max(len(turns), 1),
        "seconds": time.monotonic() - began,
        "results": {name: dataclasses.asdict(result) for name, result in results.items()},
    }

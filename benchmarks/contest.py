"""Contestants as processes of their own that take turns, and what their turns say.

Whatever else the machine does hits all alike, because turns go round-robin. Ratios are medians of per-round ratios.
Only the standard library is imported: the numerical libraries belong to the workers.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parent
LOGS = ROOT / ".venv-peers" / "logs"
TARGET_SECONDS = 0.5  # of one turn, by the clock that decides


@dataclasses.dataclass(frozen=True)
class Result:
    """What one contestant did: ``count`` units in each of its ``turns``; ``facts`` are those of its preparation."""

    count: int
    facts: dict
    turns: list[dict]

    def per_unit(self, clock: str) -> list[float]:
        """Seconds per unit of work in every round, by ``cpu`` (all threads) or ``wall``."""
        return [turn[clock] / (self.count * self.facts["unit"]) for turn in self.turns]

    @property
    def peak_bytes(self) -> int:
        return max(turn["peak_bytes"] for turn in self.turns)


class Contestant:
    """A worker process; ``turn`` gives it a slice and notes what that cost."""

    def __init__(self, name: str, script: str, options: dict, python: pathlib.Path | str = sys.executable):
        self.name, self.script, self.options, self.python = name, script, options, python
        self.clock = "cpu" if options.get("platform", "cpu") == "cpu" else "wall"
        self.turns: list[dict] = []

    def ask(self, count: int) -> dict:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"run": count}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # hear() says so
        return self.hear()

    def hear(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} died; see {self.log.name}")
        return json.loads(line)

    def start(self) -> None:
        """Import, compile and one turn for warmth. Started here, so that no two compile at once on one core."""
        environment = {
            **{k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"},
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": str(self.options.get("threads", 1)),
            "PYTHONWARNINGS": "ignore",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # contestants share an accelerator
        }
        LOGS.mkdir(parents=True, exist_ok=True)
        self.log = open(LOGS / f"{self.name.replace(' ', '_').replace('/', '_')}.log", "w")  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(self.python), str(FOLDER / self.script), json.dumps(self.options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment,
        )  # fmt: skip
        self.facts = self.hear()["ready"]
        self.count = 1
        if self.facts["first"][self.clock] < 10 * TARGET_SECONDS:
            self.count = max(1, round(TARGET_SECONDS / max(self.ask(1)[self.clock], 1e-4)))

    def turn(self) -> None:
        before = busy()
        reply = self.ask(self.count)
        others = (busy() - before) - reply["cpu"]
        reply["clean"] = others <= 0.05 * reply["wall"] * (os.cpu_count() or 1)
        self.turns.append(reply)

    def stop(self) -> Result:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()
        return Result(self.count, self.facts, self.turns)


def busy() -> float:
    """Busy CPU seconds of the whole machine so far (Linux; elsewhere 0)."""
    try:
        fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    except OSError:
        return 0.0
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def contest(contestants: list[Contestant], rounds: int) -> dict[str, Result]:
    """Start one after the other, then take turns; a contestant that dies is left out with a line."""
    alive = []

    def lost(contestant: Contestant, error: RuntimeError) -> None:
        print(f"  left out: {error}", flush=True)
        contestant.process.kill()
        contestant.process.wait()
        contestant.log.close()

    for contestant in contestants:
        try:
            contestant.start()
            alive.append(contestant)
            print(f"  {contestant.name}: ready in {contestant.facts['prepare_seconds']:.1f} s", flush=True)
        except RuntimeError as error:
            lost(contestant, error)
    for _ in range(rounds):
        for contestant in list(alive):
            try:
                contestant.turn()
            except RuntimeError as error:
                alive.remove(contestant)
                lost(contestant, error)
    return {contestant.name: contestant.stop() for contestant in alive}


def fresh(script: str, options: dict) -> dict:
    """A turn that is a process of its own, which is told when it was ``begun`` and says what it took until when."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(FOLDER)]), "PYTHONWARNINGS": "ignore"}
    environment = {name: value for name, value in environment.items() if not name.startswith(("JAX_", "XLA_"))}
    before, begun = busy(), time.time()
    command = [sys.executable, str(FOLDER / script), json.dumps({**options, "begun": begun})]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    whole = time.time() - begun
    if done.returncode:
        raise RuntimeError(f"{script} died: {(done.stderr.strip().splitlines() or ['silently'])[-1]}")
    reply = json.loads(done.stdout.splitlines()[-1])
    others = (busy() - before) - reply["cpu"]  # its farewell is taken for others' work, which is little
    return {**reply, "clean": others <= 0.05 * whole * (os.cpu_count() or 1) + 0.5}


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(slow: Result, fast: Result, clock: str) -> dict[str, float]:
    """How many times cheaper ``fast`` is: median, least and greatest of the per-round ratios."""
    return spread([a / b for a, b in zip(slow.per_unit(clock), fast.per_unit(clock), strict=True)])

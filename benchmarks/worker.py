"""One contestant as a process of its own: it prepares, says so, then runs as many units as it is told, again and again.

Only the standard library is imported here, because every contestant has its own environment. The protocol is one JSON
object per line: the worker says ``{"ready": ...}``, then answers ``{"run": n}`` with wall and CPU seconds.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time


def pin(core: int | None) -> None:
    """Keep this process and its future threads on one core; call it before a numerical library starts its threads."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def serve(prepare) -> None:
    """``prepare(options) -> (run, facts)`` with ``run(n)`` doing ``n`` units and waiting for the result.

    ``facts["unit"]`` says how much one unit is, in the workload's own unit (updates of all members, env steps, GEMMs).
    ``run`` may return a dictionary: ``peak_bytes`` of its device, ``others_cpu`` seconds of processes that it directs.
    """
    options = json.loads(sys.argv[1])
    pin(options.get("core"))
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not end up in the protocol

    def say(message: dict) -> None:
        os.write(out, (json.dumps(message) + "\n").encode())

    def timed(count: int) -> dict:
        wall, cpu = time.perf_counter(), time.process_time()
        more = run(count) or {}
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {"wall": wall, "cpu": cpu + more.pop("others_cpu", 0.0), "peak_bytes": peak, **more}

    started, cpu = time.perf_counter(), time.process_time()
    run, facts = prepare(options)
    first = timed(1)
    facts = {
        **facts,
        "first": first,
        "prepare_seconds": time.perf_counter() - started,
        "prepare_cpu_seconds": time.process_time() - cpu,
    }
    say({"ready": facts})
    for line in sys.stdin:
        say(timed(json.loads(line)["run"]))

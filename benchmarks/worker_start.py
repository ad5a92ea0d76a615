"""From nothing to the first update: imports, data, compiling, one update; one line of JSON with the seconds.

Nothing that was compiled before is used. As the command line does it, with all cores.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time


def main() -> None:
    options = json.loads(sys.argv[1])
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as empty:
        os.environ["XDG_CACHE_HOME"] = empty
        from jaxrl_reg import cli

        cli.prepare()
        from worker_ours import synthetic

        import jaxrl_reg as jr

        imported = time.process_time()
        table = synthetic(options["observation"])
        module = jr.agents.load(options["agent"])
        sizes = {"hidden": tuple(options["hidden"])} if options["hidden"] else {}
        agent = module.make(module.Config(**sizes), table.spec)
        run = jr.loops.offline(agent, batch_size=options["batch_size"], updates=1)
        found = jr.population.sweep(run, seeds=1, hypers=jr.population.stack([module.Hyper()]), data=table)
    wall, cpu = time.time() - options["begun"], time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    plan = {"trace_seconds": found.plan.trace_seconds, "compile_seconds": found.plan.compile_seconds}
    print(json.dumps({"wall": wall, "cpu": cpu, "imports": imported, "peak_bytes": peak, **plan}))


if __name__ == "__main__":
    main()

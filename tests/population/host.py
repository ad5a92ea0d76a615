"""One process of several: ``python -m tests.population.host PORT PROCESSES PROCESS DIR WHAT...``.

WHAT is ``sweep``, ``race`` or ``evolve``, several one after the other; runs stand in ``DIR/WHAT``, results beside them.
"""

import sys
import time

import numpy as np

from jaxrl_reg import population

from .toy import Hyper, make_data, make_run


def settings():
    return {
        "seeds": 3,
        "hypers": population.grid(Hyper(), learning_rate=[0.05, 0.1, 0.2]),
        "data": make_data(),
    }


def race(**more):
    """Five settings, which two processes cannot share evenly."""
    request = settings() | {"hypers": population.sample(Hyper(), 5, learning_rate="log:0.001:0.3")}
    return population.race(make_run(segments=5), population.stopping.halving(eta=2), **request, **more)


def evolve(**more):
    """Three slots on two processes, so that a slot may copy one that the other process holds."""
    moving = population.Generations({"learning_rate": population.parse_range("learning_rate", "log:0.00001:0.3")})
    return population.sweep(make_run(segments=5), **settings(), generations=moving, **more)


def main(port, processes, process, directory, *kinds):
    if int(processes) > 1:
        population.hosts.join(f"127.0.0.1:{port}", int(processes), int(process), heartbeat_timeout_seconds=10)

    def tell(progress):
        print(progress.segment, progress.plan.devices, flush=True)
        time.sleep(0.05)

    for what in kinds:
        how = {"directory": f"{directory}/{what}", "save_seconds": 0, "resume": True}
        if what == "race":
            result = race(**how)
        elif what == "evolve":
            result = evolve(**how)
        else:
            result = population.sweep(make_run(segments=12), **settings(), on_segment=tell, **how)
        assert result.state["w"].shape == (result.hypers.noise.size, 3, 3)  # every process has all of the result
        if population.hosts.first():
            metrics = {name.replace("/", "_"): one for name, one in result.metrics.items()}
            np.savez(f"{directory}/{what}.npz", w=result.state["w"], **metrics)


if __name__ == "__main__":
    main(*sys.argv[1:])

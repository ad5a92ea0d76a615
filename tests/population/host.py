"""One process of a sweep over several: ``python -m tests.population.host PORT PROCESSES PROCESS DIRECTORY OUT``."""

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


def main(port, processes, process, directory, out):
    if int(processes) > 1:
        population.hosts.join(f"127.0.0.1:{port}", int(processes), int(process), heartbeat_timeout_seconds=10)

    def tell(progress):
        print(progress.segment, progress.plan.devices, flush=True)
        time.sleep(0.05)

    result = population.sweep(
        make_run(segments=12), **settings(), directory=directory, save_seconds=0, resume=True, on_segment=tell
    )
    assert result.state["w"].shape == (3, 3, 3)  # every process has all of the result
    if population.hosts.first():
        np.savez(out, w=result.state["w"], **{name.replace("/", "_"): one for name, one in result.metrics.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])

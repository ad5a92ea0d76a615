"""The machine: what JAX is told before its backend starts, several processes, and Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import pathlib
import shlex
from collections.abc import Iterator
from typing import Any

from jaxrl_reg.cli import PROG, STOPPED, interrupted
from jaxrl_reg.cli.display import Display
from jaxrl_reg.errors import UserError
from jaxrl_reg.io.files import WriteError


def prepare() -> None:
    """Settings that JAX reads when its backend starts. What the environment already says is left alone.

    One CPU device per core lets members train side by side; the scheduler flag avoids a standstill of XLA's CPU runtime
    on a busy machine; compiled programs are kept between runs. Traces are many small objects that live long, in which
    Python looks for garbage a twentieth of the time until the first update, so it looks less often.
    """
    gc.set_threshold(max(gc.get_threshold()[0], 100_000), 50, 100)
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_enable_concurrency_optimized_scheduler" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_enable_concurrency_optimized_scheduler=false".strip()
    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    settings: Any = jax.config  # its attributes are made at run time
    if "xla_force_host_platform_device_count" not in flags and settings.jax_num_cpu_devices == -1:
        with contextlib.suppress(RuntimeError):  # the backend is already up
            jax.config.update("jax_num_cpu_devices", cores)
    if settings.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "jaxrl-reg"))


def add_distributed(parser: argparse.ArgumentParser) -> None:
    """The option ``--distributed``, which ``join`` reads."""
    parser.add_argument(
        "--distributed",
        nargs="?",
        const="",
        metavar="HOST:PORT,N,I",
        help="share the members between N processes, each started with this command: alone under SLURM, GKE, Cloud TPU "
        "or Open MPI, else with the address of process 0, their number and that of this one",
    )


def join(given: str | None) -> None:
    """Become one of several processes, before JAX is used."""
    if given is None:
        return
    from jaxrl_reg.population import hosts

    if not given:
        return hosts.join()
    address, *numbers = given.split(",")
    if ":" not in address or len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        raise UserError(f"--distributed takes HOST:PORT,N,I such as 10.0.0.1:1234,2,0, not {given!r}")
    hosts.join(address, *map(int, numbers))


@contextlib.contextmanager
def job(directory: pathlib.Path | None) -> Iterator[Display]:
    """A display for a job. Ctrl-C becomes exit status 130, and it and a full disk tell the way to go on.

    Raises:
      WriteError: where the disk refused a file.
      SystemExit: after Ctrl-C.
    """
    from jaxrl_reg.population import Interrupted

    def way_on() -> str:
        if directory is not None and (directory / "config.json").exists():
            return f"go on with: {PROG} resume {shlex.quote(str(directory))}"
        return "run the same command again to go on"

    stopped = False
    with Display() as display:
        try:
            yield display
        except (KeyboardInterrupt, Interrupted):
            stopped = True
        except Exception as error:
            stopped = interrupted()
            if not stopped and isinstance(error, WriteError):
                raise WriteError(f"{error}; make room, then {way_on()}") from error
            if not stopped:
                raise
    if stopped:
        display.say(f"stopped; {way_on()}")
        raise SystemExit(STOPPED)

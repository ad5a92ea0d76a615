"""How much memory there is, on systems that lack the calls that Linux has."""

import ctypes
import io
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import population
from jaxrl_reg.io import env_info
from jaxrl_reg.population import placement
from jaxrl_reg.types import Run

from .toy import Hyper, make_data, make_run

PAGE, PAGES = 4096, 1_000_000


class Kernel32:
    """Fills the structure as Windows does: its own length must have been set, the rest is its answer."""

    def GlobalMemoryStatusEx(self, reference):
        status = reference._obj
        assert status.length == ctypes.sizeof(status) == 64
        status.total, status.free = 2 * PAGE * PAGES, PAGE * PAGES
        return 1


def without_proc(monkeypatch):
    def refused(path, *args, **how):
        if path == "/proc/meminfo":
            raise FileNotFoundError(path)
        return open(path, *args, **how)

    monkeypatch.setattr(placement, "open", refused, raising=False)


def macos(monkeypatch):
    names = {"SC_PHYS_PAGES": PAGES, "SC_PAGE_SIZE": PAGE}

    def sysconf(name):
        if name not in names:
            raise ValueError("unrecognized configuration name")
        return names[name]

    monkeypatch.setattr(os, "sysconf", sysconf, raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    without_proc(monkeypatch)


def windows(monkeypatch):
    monkeypatch.delattr(os, "sysconf", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    without_proc(monkeypatch)
    windll = type("windll", (), {"kernel32": Kernel32()})
    monkeypatch.setattr(ctypes, "windll", windll, raising=False)


@pytest.mark.parametrize("system", [macos, windows])
def test_systems_without_the_calls_of_linux_tell_their_memory(monkeypatch, system):
    system(monkeypatch)
    assert placement.memory_limit(jax.devices("cpu")[0]) == PAGE * PAGES // jax.local_device_count()
    assert env_info.describe()["cores"] == os.cpu_count()


def test_linux_counts_the_page_cache_that_can_be_reclaimed(monkeypatch):
    lines = "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 8000 kB\n"
    monkeypatch.setattr(placement, "open", lambda path, **how: io.StringIO(lines), raising=False)
    assert placement.host_memory() == 8000 * 1024


def test_what_nobody_tells_is_no_limit(monkeypatch):
    windows(monkeypatch)
    monkeypatch.delattr(ctypes, "windll")
    assert placement.memory_limit(jax.devices("cpu")[0]) == sys.maxsize
    result = population.sweep(make_run(), seeds=2, hypers=population.grid(Hyper()), data=make_data())
    assert np.isfinite(result.metrics["loss"]).all()


def test_leaves_without_entries_go_from_segment_to_segment_on_two_devices():
    """The physics of MJX have such; a program gives them back on every device alike."""

    def train(state, index, key, hyper, data):
        count, empty = state
        return (count + hyper, empty * 1.0), {"count": count}

    def evaluate(state, index, key, hyper):
        return {"eval/return": state[0]}

    run = Run(lambda key, hyper: (jnp.zeros(()), jnp.zeros((3, 0))), train, evaluate, 2, 1)
    found = population.sweep(run, seeds=[0, 1], hypers=jnp.ones(1), data=None, devices=jax.devices()[:2])
    np.testing.assert_array_equal(found.metrics["eval/return"][0], [[1.0, 2.0], [1.0, 2.0]])

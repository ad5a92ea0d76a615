"""Settings for the whole suite: CPU only, cheap compilations that are shared between tests and runs."""

import collections
import gc
import importlib.metadata
import io
import os
import pathlib
import sys
import tempfile

# XLA reads these once, when the backend starts. Without its optimisations it compiles two to three times faster, and
# the small programs of the tests are hardly slower; without the concurrency-optimised scheduler, vmapped training
# loops cannot stand still on a busy two-core machine.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
    "xla_cpu_parallel_codegen_split_count": 1,  # a program is not cut into parts for threads: the workers are enough
}
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):  # later ones have no such flag, and
    QUICK["xla_cpu_use_fusion_emitters"] = False  # an unknown flag ends the process
os.environ.setdefault("XLA_FLAGS", " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items()))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")  # so that placement over devices is tested
cache = pathlib.Path(tempfile.gettempdir()) / f"jaxrl-reg-tests-{os.getuid()}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

# Where in the source an operation comes from is seen in profiles only, and costs a fifteenth of the time.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# Traces are made of many small objects that live long: with the usual thresholds a twentieth of the time goes into
# looking through all of them for garbage.
gc.set_threshold(1_000_000, 50, 100)

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from tests import costs  # noqa: E402

settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("ci")

if not hasattr(jax, "enable_x64"):  # where the lowest release has it
    from jax.experimental import enable_x64

    jax.enable_x64 = enable_x64


@pytest.fixture
def close_pipe(monkeypatch):
    """``close_pipe()`` leaves standard output as ``| head`` does, and gives standard error.

    To be called in the test: pytest puts its own streams in place between the fixtures and the test.
    """

    def flush():
        raise BrokenPipeError

    def close():
        pipe, errors = io.StringIO(), io.StringIO()
        pipe.flush = flush
        monkeypatch.setattr(sys, "stdout", pipe)
        monkeypatch.setattr(sys, "stderr", errors)
        return errors

    return close


def pytest_addoption(parser):
    parser.addoption("--costs", metavar="FOLDER", help="write there what CPU every test takes; see tests/costs.py")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    before = costs.spent()
    yield
    if folder := item.config.getoption("costs"):
        costs.note(folder, item.nodeid, costs.spent() - before)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config, items):
    """Marks the long ones, of which ``tests/costs.py`` tells.

    For ``--dist loadfile --no-loadscope-reorder``: files with slow tests first, then those with many tests.

    What begins last should be over soon. By itself xdist looks at the number of tests only: a few that take minutes
    begin when all else is done, on one core.
    """
    long = costs.listed()
    for item in items:
        if item.nodeid in long:
            item.add_marker(pytest.mark.long)
    if config.getoption("loadscopereorder", True):
        return
    tests = collections.Counter(item.path for item in items)
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (-slow[item.path], -tests[item.path]))

"""Settings for the whole suite: CPU only, cheap compilations that are shared between tests and runs."""

import os
import pathlib
import tempfile

# XLA reads these once, when the backend starts. Optimisation level 1 halves compile time at equal run time; without the
# concurrency-optimised scheduler, vmapped training loops cannot stand still on a busy two-core machine.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=1 --xla_cpu_enable_concurrency_optimized_scheduler=false",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")  # so that placement over devices is tested
cache = pathlib.Path(tempfile.gettempdir()) / f"jaxrl-reg-tests-{os.getuid()}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

from hypothesis import settings  # noqa: E402

settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("ci")

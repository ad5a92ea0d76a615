"""Accelerators that programs can be compiled for without having one: what their makers publish of them.

``plan_for`` takes all of its constants from here. Sizes are bytes, rates per second. ``flops`` is the dense rate of
matrix products at JAX's default precision for float32: TF32 on NVIDIA's cards, bfloat16 on TPUs. What a card's
multiprocessors have (threads, shared memory, registers) is the table of compute capabilities in NVIDIA's CUDA C++
Programming Guide; lanes, second-level cache and clock are of the white papers of Hopper, Ampere and Ada (96 MB, the
whole chip's cache, where listings of the L40S also say 48). Those only steer the compiler, no estimate reads them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pathlib
from typing import Any, NamedTuple

import jax

from jaxrl_reg.errors import UserError, unknown

# Assumed, not published: what one launch costs when the next is ready, and what it costs to ask the host.
GPU_LAUNCH, GPU_BRANCH = 3e-6, 20e-6  # seconds
TPU_LAUNCH, TPU_BRANCH = 1e-6, 2e-6  # a TPU runs the whole program by itself
REACHED = 0.4  # of the published rate of matrix products, by products as small as these; assumed

_NVIDIA = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {shared_per_core} threads_per_core_limit: {threads} core_count: {cores}
  fpus_per_core: {lanes} block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {l2} clock_rate_ghz: {clock} device_memory_size: {memory}
  shared_memory_per_block_optin: {shared_optin} cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 13 }}
device_description_str: "{title}"
"""


class Target(NamedTuple):
    """One accelerator. ``topology`` is what its compiler is asked for, ``card`` more figures of an NVIDIA card."""

    title: str
    platform: str  # cuda or tpu
    memory: int
    bandwidth: float
    flops: float
    source: str
    topology: str = ""
    card: dict[str, Any] = {}  # noqa: RUF012  read only

    @property
    def launch(self) -> float:
        """Seconds that a launch takes at least."""
        return GPU_LAUNCH if self.platform == "cuda" else TPU_LAUNCH

    @property
    def branch(self) -> float:
        """Seconds that a condition takes at least."""
        return GPU_BRANCH if self.platform == "cuda" else TPU_BRANCH


_HOPPER = {"major": 9, "minor": 0, "threads": 2048, "shared_per_core": 233472, "shared_optin": 232448}
_AMPERE = {"major": 8, "minor": 0, "threads": 2048, "shared_per_core": 167936, "shared_optin": 166912}
_ADA = {"major": 8, "minor": 9, "threads": 1536, "shared_per_core": 102400, "shared_optin": 101376}

TARGETS = {
    "h100": Target(
        "NVIDIA H100 80GB HBM3", "cuda", 84_978_434_048, 3.352e12, 494.7e12, "NVIDIA H100 data sheet, SXM5",
        card={**_HOPPER, "cores": 132, "lanes": 128, "l2": 52_428_800, "clock": 1.98},
    ),
    "a100": Target(
        "NVIDIA A100-SXM4-80GB", "cuda", 84_987_740_160, 2.039e12, 156e12, "NVIDIA A100 data sheet 1758950, 80 GB SXM",
        card={**_AMPERE, "cores": 108, "lanes": 64, "l2": 41_943_040, "clock": 1.41},
    ),
    "l40s": Target(
        "NVIDIA L40S", "cuda", 48_305_799_168, 0.864e12, 183e12, "NVIDIA L40S data sheet, TF32 without sparsity",
        card={**_ADA, "cores": 142, "lanes": 128, "l2": 100_663_296, "clock": 2.52},
    ),
    "tpu-v5e": Target(
        "TPU v5e", "tpu", 16 * 2**30, 0.819e12, 197e12, "docs.cloud.google.com/tpu/docs/v5e, one chip",
        topology="v5e:2x2",
    ),
    "tpu-v6e": Target(
        "TPU v6e", "tpu", 32 * 2**30, 1.638e12, 918e12, "docs.cloud.google.com/tpu/docs/v6e, one chip",
        topology="v6e:2x2",
    ),
}  # fmt: skip

# What XLA says where its first guess at tiles for a product fails, and the option that leaves products to the library.
NO_TILES, LIBRARY = "output tile sizes", {"xla_gpu_enable_triton_gemm": False}

# Extras of this package that bring a compiler, and the module by which it is known.
COMPILERS = {"cuda": ("plan-cuda", ("jax_cuda13_plugin", "nvidia.cu13")), "tpu": ("plan-tpu", ("libtpu",))}


def target(name: str) -> Target:
    """The accelerator of this name.

    Raises:
      UserError: for an unknown one.
    """
    if name not in TARGETS:
        raise unknown("accelerator", name, TARGETS)
    return TARGETS[name]


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def device(name: str) -> Any:
    """A device to compile for, which is not there: the first of the smallest topology.

    Raises:
      UserError: for an unknown name, or without the compiler of this platform.
    """
    one = target(name)
    extra, modules = COMPILERS[one.platform]
    if not all(map(_found, modules)):
        raise UserError(f'compiling for {name} needs its compiler: pip install "jaxrl-reg[{extra}]"')
    from jax.experimental import topologies

    if one.platform == "tpu":
        version = one.topology.split(":")[0]
        kind = {"v5e": "v5litepod-4", "v6e": "v6e-4"}[version]
        about = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": kind}
        for key, value in {**about, "TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}.items():
            os.environ.setdefault(key, value)
        return topologies.get_topology_desc(platform="tpu", topology_name=one.topology).devices[0]
    _find_cuda()
    text = _NVIDIA.format(**one.card, title=one.title, bandwidth=int(one.bandwidth), memory=one.memory)
    asked = {"topology_name": name, "platform": "cuda", "topology": "1x1x1", "target_config": text}
    try:
        return topologies.get_topology_desc(**asked).devices[0]
    except NotImplementedError:  # JAX looked at its plugins before, and left this one out: there is no card
        importlib.import_module("jax_plugins.xla_cuda13").initialize()
        return topologies.get_topology_desc(**asked).devices[0]


def _find_cuda() -> None:
    """Tell the compiler where its assembler lies, and not to try kernels on a card: the plugin reads it on loading."""
    spec = importlib.util.find_spec("nvidia.cu13")
    assert spec is not None
    assert spec.submodule_search_locations
    home = pathlib.Path(next(iter(spec.submodule_search_locations)))
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_cuda_data_dir" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0 --xla_gpu_cuda_data_dir={home}".strip()
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # of the libraries of a card that is not here
    if str(home / "bin") not in os.environ.get("PATH", ""):
        os.environ["PATH"] = f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    importlib.import_module(COMPILERS["cuda"][1][0])  # registers the compiler


def compile_for(device: Any, platform: str, function: Any, *args: Any, donated: tuple[int, ...] = (0,)) -> Any:
    """The optimised program of ``function`` for ``device``; ``args`` are shapes or arrays, some of them ``donated``.

    On a card the compiler tries how to cut a product into tiles. Here it cannot, and where its first guess does not
    work for one of them, as with 14 tokens in a row, all products of the program are the library's.
    """
    sharding = jax.sharding.SingleDeviceSharding(device)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), args)
    cached = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)  # programs for another machine are not kept
    try:
        lowered = jax.jit(function, donate_argnums=donated).trace(*shapes).lower(lowering_platforms=(platform,))
        try:
            return lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if NO_TILES not in str(error):
                raise
            return lowered.compile(compiler_options=LIBRARY)
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)

"""Where the member axis goes: side by side (vmap), one after the other (map), in chunks, over devices.

One training run already fills a CPU core, and members side by side push each other out of its caches: measured, an
update gets 27% dearer at 16 members and 72% at 64. Member after member, in blocks of a whole segment, costs nothing.
An accelerator wants the opposite. Hence ``chunk``: how many members run side by side on one device.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import PyTree

AXIS = "member"
Device = Any  # jax.Device, which type checkers do not take for a class
PLACEMENTS = ("auto", "map", "vmap")
NO_LIMIT = sys.maxsize  # of memory, where nobody tells one


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a sweep chose, and what it costs; ``str(plan)`` is one readable line."""

    members: int
    devices: int
    chunk: int  # members side by side on one device
    platform: str
    state_bytes: int = 0  # per member
    program_bytes: int = 0  # temporaries of one device's program, from the compiler
    data_bytes: int = 0  # one copy per device
    compilations: int = 2  # initialisation and training; evaluation is one more
    trace_seconds: float = 0.0
    compile_seconds: float = 0.0

    @property
    def per_device(self) -> int:
        """Members on one device, padding included."""
        return padded(self.members, self.devices, self.chunk) // self.devices

    @property
    def total_bytes(self) -> int:
        """Estimated peak on one device: data, states in and out, temporaries; on a CPU, whose memory is the host's as
        well, also the states that a checkpoint and the result consist of."""
        copies = 3 if self.platform == "cpu" else 2
        return self.data_bytes + copies * self.per_device * self.state_bytes + self.program_bytes

    def __str__(self) -> str:
        how = "one after the other" if self.chunk == 1 else f"{self.chunk} side by side"
        where = f"{self.devices} {self.platform} device{'s' if self.devices > 1 else ''}"
        return (
            f"{self.members} members on {where}, {how}; {self.compilations} compilations, "
            f"{megabytes(self.total_bytes)} per device ({megabytes(self.state_bytes)} per member, data "
            f"{megabytes(self.data_bytes)} once)"
        )


def megabytes(size: float) -> str:
    """A size in bytes for people."""
    if 0 < size < 2**20 / 10:
        return f"{size / 2**10:.1f} KiB"
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:.2f} GiB"


def padded(members: int, devices: int, chunk: int) -> int:
    """Members rounded up so that every device gets the same whole number of chunks."""
    unit = devices * chunk
    return -(-members // unit) * unit


def mesh(devices: list[Device]) -> Mesh:
    """The devices as one axis, along which members are split."""
    return Mesh(np.asarray(devices), (AXIS,))


def over_members(
    function: Callable[..., PyTree], chunk: int, devices: list[Device] | None = None
) -> Callable[..., PyTree]:
    """``function(member, shared) -> out`` for a population: ``members`` has leading axis ``[M]``, ``shared`` none.

    ``M`` must be a multiple of ``len(devices)``. With several devices each takes its block of members and a
    copy of ``shared``; on one device, chunks of ``chunk`` members run side by side, chunk after chunk.
    """

    def local(members: PyTree, shared: PyTree) -> PyTree:
        count = jax.tree.leaves(members)[0].shape[0]

        def one(member: PyTree) -> PyTree:
            return function(member, shared)

        if chunk >= count > 1:
            return jax.vmap(one)(members)
        return jax.lax.map(one, members, batch_size=None if chunk == 1 else chunk)

    if devices is None or len(devices) == 1:
        return local
    member, everywhere = PartitionSpec(AXIS), PartitionSpec()
    return jax.shard_map(local, mesh=mesh(devices), in_specs=(member, everywhere), out_specs=member, check_vma=False)


def place(members: PyTree, devices: list[Device]) -> PyTree:
    """Put leaves ``[M, ...]`` on the devices, split over the member axis."""
    return _put(members, NamedSharding(mesh(devices), PartitionSpec(AXIS)))


def replicate(shared: PyTree, devices: list[Device]) -> PyTree:
    """Put one copy on every device."""
    return _put(shared, NamedSharding(mesh(devices), PartitionSpec()))


def place_empty(tree: PyTree, devices: list[Device]) -> PyTree:
    """``tree`` whose leaves without entries (of MJX, for example) lie as the others do: what a program gives back has
    them on every device alike, and the next one refuses them."""
    if len(devices) == 1:
        return tree
    return jax.tree.map(lambda leaf: leaf if leaf.size else place(leaf, devices), tree)


def _put(tree: PyTree, sharding: NamedSharding) -> PyTree:
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    # Over processes: each has the whole of ``tree`` on its host and puts its own part.
    def put(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)))
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])

    return jax.tree.map(put, tree)


def choose(members: int, placement: str, chunk: int | None, devices: list[Device]) -> tuple[int, list[Device]]:
    """The chunk and the devices to use, before asking the compiler about memory.

    Raises:
      UserError: for an unknown placement or a chunk below 1.
    """
    if placement not in PLACEMENTS:
        raise UserError(f"unknown placement {placement!r}; choose one of {', '.join(PLACEMENTS)}")
    if chunk is not None and chunk < 1:
        raise UserError(f"chunk={chunk} must be at least 1 member")
    if jax.process_count() == 1:  # a process without a member would have nothing to wait for
        devices = devices[: min(len(devices), members)]
    per_device = -(-members // len(devices))
    if placement == "auto":
        placement = "map" if devices[0].platform == "cpu" else "vmap"
    if chunk is None:
        chunk = 1 if placement == "map" else per_device
    return min(chunk, per_device), devices


def memory_limit(device: Device) -> int:
    """Bytes that one device may use: what the allocator reports, else this host's memory shared by its devices.

    ``NO_LIMIT`` where neither the device nor the operating system tells.
    """
    try:
        stats: dict[str, Any] = device.memory_stats() or {}
    except (NotImplementedError, jax.errors.JaxRuntimeError):  # a platform that keeps no account
        stats = {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    memory = host_memory()
    return NO_LIMIT if memory is None else memory // jax.local_device_count()


def host_memory() -> int | None:
    """Bytes of this host that are free or, where the system does not say what is free, all it has; None: not known."""
    # Linux; counts page cache that can be reclaimed.
    with contextlib.suppress(OSError, StopIteration), open("/proc/meminfo", encoding="utf-8") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):  # macOS knows the second only, Windows neither
        with contextlib.suppress(AttributeError, OSError, ValueError):
            count = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
            if count > 0:  # -1 is no answer
                return count
    return _windows_memory()


def _windows_memory() -> int | None:
    """Free physical memory as ``GlobalMemoryStatusEx`` tells it; None on other systems."""

    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)]
        _fields_ += [(name, ctypes.c_uint64) for name in ("total", "free", "a", "b", "c", "d", "e")]

    status = Status(length=ctypes.sizeof(Status))
    with contextlib.suppress(AttributeError, OSError):
        if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined]
            return int(status.free)
    return None


def tree_bytes(tree: PyTree) -> int:
    """Bytes of all leaves (arrays or shape descriptions); a typed key counts as two words."""

    def size(leaf: Any) -> int:
        item = 8 if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize
        return int(np.prod(leaf.shape, dtype=np.int64)) * item

    return sum(size(leaf) for leaf in jax.tree.leaves(tree))

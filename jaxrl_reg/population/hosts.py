"""One sweep over many processes, on one host or many: what they say to each other, which is little.

Members are independent, so training exchanges nothing. After a segment the metrics are gathered, and the processes
agree on whether to save and whether to stop. Process 0 writes checkpoints and every process reads them, so a directory
must be one that all see. A checkpoint does not know how many processes wrote it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import PyTree


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None, **options) -> None:
    """Become one of the processes of a run; the first thing a program does, before any other use of JAX.

    Under SLURM, GKE, Cloud TPU and Open MPI nothing need be given: ``jax.distributed.initialize`` finds out.

    Args:
      coordinator: ``host:port`` of process 0, the same everywhere.
      processes: how many there are.
      process: which this one is, from 0.
      **options: more of ``jax.distributed.initialize``, such as ``heartbeat_timeout_seconds``.

    Raises:
      UserError: when the processes do not find each other.
    """
    try:
        jax.distributed.initialize(coordinator, processes, process, **options)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the processes of this run did not find each other: {' '.join(str(error).split())[:300]}; without a "
            "cluster that JAX knows, give coordinator (host:port), number of processes and number of this one"
        ) from error


def alone() -> bool:
    """Whether this is the only process."""
    return jax.process_count() == 1


def first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def fetch(tree: PyTree) -> PyTree:
    """All of the arrays ``tree`` on this host, whichever processes hold them; every process must call it.

    Raises ``UserError`` when another process is gone."""
    if alone():
        return jax.device_get(tree)

    def get(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(get(jax.random.key_data(leaf)))
        return _exchange(leaf, tiled=True)

    return jax.tree.map(get, tree)


def from_first(text: str) -> str:
    """``text`` of process 0, at most 4096 bytes; every process must call it."""
    sent = np.zeros(4096, np.uint8)
    encoded = np.frombuffer(text.encode(), np.uint8)
    sent[: encoded.size] = encoded
    return gather(sent)[0].astype(np.uint8).tobytes().rstrip(b"\0").decode()


def gather(values: Any) -> np.ndarray:
    """``values`` of every process, ``[P, ...]``, the caller's own to change; every process must call it."""
    if alone():
        return np.array(values)[None]
    return np.array(_exchange(np.asarray(values), tiled=False))  # what JAX hands out may be read only


def _exchange(leaf: Any, tiled: bool) -> np.ndarray:
    from jax.experimental import multihost_utils

    try:
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=tiled))
    except (ValueError, RuntimeError) as error:  # as the collective of the platform reports it
        raise UserError(
            f"another process of this run seems to have ended: {' '.join(str(error).split())[:200]}; start all of "
            "them again with resume to go on"
        ) from error

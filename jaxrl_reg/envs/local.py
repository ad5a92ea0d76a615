"""What a simulator loads stays with the process that loads it.

An environment closes over the model of its world. MJX, and with it Brax and Playground, puts models and what it makes
of them on the first of all devices; where several processes train one population, that is a device of the first one,
and no other can read what lies there. So inside :func:`devices` the devices are those of this process. Every process
then holds the same numbers, and a compiled program takes them in as constants.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import jax

_LOCK = threading.RLock()  # two threads would else put back each other's function


@contextlib.contextmanager
def devices() -> Iterator[None]:
    """Around the loading of models and the tracing of physics: ``jax.devices`` gives this process's own."""
    if jax.process_count() == 1:
        yield
        return

    def own(backend: Any = None) -> list[Any]:
        return jax.local_devices(backend=backend)

    with _LOCK:
        everywhere, jax.devices = jax.devices, own
        try:
            yield
        finally:
            jax.devices = everywhere

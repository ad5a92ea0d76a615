"""What a population stops at and goes on from: who its members are, whose checkpoint it may read."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.population import hosts
from jaxrl_reg.population.generations import PREFIX
from jaxrl_reg.population.grid import setting_count
from jaxrl_reg.types import PyTree, Run


class Interrupted(RuntimeError):
    """The sweep was asked to stop; everything up to the last finished segment is in the checkpoint, if there is one."""


@contextlib.contextmanager
def stop_flag() -> Iterator[threading.Event]:
    """An event that Ctrl-C (or SIGTERM) sets, so that a segment ends before we stop; a second Ctrl-C stops at once."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # signals belong to the main thread; a caller's thread is stopped by its own means
        return

    def on_signal(number: int, frame: Any) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def agreed(due: bool, stop: bool) -> tuple[bool, bool]:
    """Whether to save and whether to stop, the same in every process: read once, for what raises must be saved."""
    due_of, stop_of = hosts.gather([due, stop]).T
    return bool(due_of[0]), bool(stop_of.any())


def seed_numbers(seeds: int | Sequence[int]) -> np.ndarray:
    """The seeds, one by one. Raises ``UserError`` for none or repeated ones."""
    numbers = np.arange(seeds) if isinstance(seeds, int) else np.asarray(seeds)
    if numbers.ndim != 1 or numbers.size == 0 or np.unique(numbers).size != numbers.size:
        raise UserError(f"seeds must be a positive number or distinct integers, got {numbers.tolist()}")
    return numbers


@jax.jit
def _keys(seeds: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.key)(seeds)


def layout(seeds: np.ndarray, hypers: PyTree, members: np.ndarray) -> tuple[jax.Array, PyTree]:
    """Keys and settings of these members: number ``h S + s`` is seed ``s`` of setting ``h``."""
    setting_of, seed_of = np.divmod(members, seeds.size)
    keys = _keys(jnp.asarray(seeds[seed_of]))
    return keys, jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[setting_of]), hypers)  # nothing to compile


def members_of(tree: PyTree, hypers: PyTree, seeds: np.ndarray) -> PyTree:
    """Leaves ``[H, S, ...]`` as ``[H S, ...]``, in the order of ``layout``.

    Raises ``UserError`` for leaves of another number of settings or seeds.
    """
    wanted = setting_count(hypers), seeds.size

    def flat(leaf: Any) -> Any:
        if leaf.shape[:2] != wanted:
            raise UserError(
                f"start holds members {list(leaf.shape[:2])}, but there are {wanted[0]} settings and {wanted[1]} seeds"
            )
        return leaf.reshape(-1, *leaf.shape[2:])

    return jax.tree.map(flat, tree)


def identity_of(run: Run, numbers: np.ndarray, hypers: PyTree, **more: Any) -> dict[str, Any]:
    """What a checkpoint must agree in to be continued."""
    return {
        "seeds": numbers.tolist(),
        "hypers": {str(i): np.asarray(leaf).tolist() for i, leaf in enumerate(jax.tree.leaves(hypers))},
        "segments": run.segments,
        "updates_per_segment": run.updates_per_segment,
        **more,
    }


def refuse_another(directory: str | pathlib.Path, identity: dict[str, Any], info: dict[str, Any]) -> None:
    """Raises ``UserError`` where the checkpoint that ``info`` comes with was not written by the sweep ``identity``.

    A sweep with fewer segments of the same length is the beginning of this one, and may go on; a race (its ``info`` has
    ``done``) decides by how many there are.
    """
    for name, value in identity.items():
        if name == "segments" and "done" not in info and 0 < info.get(name, 0) <= value:
            continue
        if info.get(name) != value:
            raise UserError(
                f"the checkpoint in {directory} belongs to another sweep: {name} differ; use a new directory"
            )


class Restored(NamedTuple):
    """Every member of a population as its newest checkpoint has it; leading axis ``[M]``, settings x seeds."""

    updates: np.ndarray  # int [H]; a race may have stopped some settings before others
    states: PyTree
    keys: jax.Array
    hypers: PyTree


def restore(directory: str | pathlib.Path, run: Run, seeds: int | Sequence[int], hypers: PyTree) -> Restored | None:
    """The newest checkpoint of ``sweep`` or ``race``, called with these seeds and settings; None if there is none."""
    from jaxrl_reg.io import checkpoint

    numbers, settings = seed_numbers(seeds), setting_count(hypers)
    count = settings * numbers.size
    keys, settings_of_members = layout(numbers, hypers, np.arange(count))
    shapes = jax.eval_shape(jax.vmap(run.init), keys, settings_of_members)

    def like(info: dict[str, Any]) -> PyTree:
        shape = (count, run.segments) if "done" in info else (info["segment"], count)  # of a race, of a sweep
        return shapes, [jax.ShapeDtypeStruct(shape, jnp.float32) for _ in info["metrics"]]

    found = checkpoint.restore(directory, like)
    if found is None:
        return None
    segment, (states, values), info = found
    history = zip(info["metrics"], values, strict=True)
    moved = {name.removeprefix(PREFIX): value[-1] for name, value in history if name.startswith(PREFIX)}
    if moved:  # population-based training: what the last segment was trained with
        settings_of_members = dataclasses.replace(settings_of_members, **moved)
    segments = np.broadcast_to(info.get("done", segment), settings)
    return Restored(segments * run.updates_per_segment, states, keys, settings_of_members)

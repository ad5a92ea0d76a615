"""Train every member of ``settings x seeds`` with one compiled program, segment by segment, resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.population import hosts
from jaxrl_reg.population import placement as placing
from jaxrl_reg.population.grid import setting_count
from jaxrl_reg.types import PyTree, Run, as_float32

if TYPE_CHECKING:
    import pandas as pd

# Rolling out many members at once is cheaper on every machine: physics steps are many and small.
EVALUATION_CHUNK = 256
SAFE_FRACTION = 0.8  # of the memory limit; the rest is for the allocator and for the host
ALIVE = "alive"  # the metric that is 0 from the segment in which a member went NaN, else 1


class Interrupted(RuntimeError):
    """The sweep was asked to stop; everything up to the last finished segment is in the checkpoint, if there is one."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """What ``on_segment`` is told after each segment. ``metrics`` are ``[H, S]`` arrays of this segment."""

    segment: int  # finished segments
    segments: int
    updates: int  # per member, so far
    updates_per_second: float  # all members together, in this segment
    eta_seconds: float
    metrics: dict[str, np.ndarray]
    plan: placing.Plan


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished sweep over ``H`` settings and ``S`` seeds.

    ``metrics[name]`` is ``[H, S, segments]``; every leaf of ``state`` is ``[H, S, ...]``; leaves of ``hypers`` ``[H]``.
    A member that went NaN keeps the state before the segment in which it did; its metrics are NaN from there on.
    """

    metrics: dict[str, np.ndarray]
    state: PyTree
    hypers: Any
    seeds: np.ndarray
    plan: placing.Plan
    updates_per_segment: int

    @property
    def swept(self) -> tuple[str, ...]:
        """Names of the hyperparameters that differ between settings."""
        fields = dataclasses.fields(self.hypers)
        return tuple(f.name for f in fields if np.unique(np.asarray(getattr(self.hypers, f.name))).size > 1)

    @property
    def failed_at(self) -> np.ndarray:
        """``[H, S]`` int: the segment in which a member went NaN and was frozen, -1 for one that did not."""
        dead = self.metrics[ALIVE] == 0
        return np.where(dead.any(axis=-1), dead.argmax(axis=-1), -1)

    @property
    def segments_trained(self) -> np.ndarray:
        """``[H]`` int: how many segments each setting was given; all of them but in a race."""
        return np.isfinite(self.metrics[ALIVE]).sum(axis=-1).max(axis=1)

    def member(self, setting: int, seed: int) -> PyTree:
        """The state of one member, by position in the settings and in the seeds."""
        return jax.tree.map(lambda leaf: leaf[setting, seed], self.state)

    def hyper(self, setting: int) -> Any:
        """One setting, every leaf a scalar."""
        return jax.tree.map(lambda leaf: leaf[setting], self.hypers)

    def frame(self) -> pd.DataFrame:
        """One row per member and segment that it trained: member, seed, setting, swept hyperparameters, segment,
        update, metrics."""
        import pandas as pd

        shape = next(iter(self.metrics.values())).shape
        h, s, t = (axis.ravel() for axis in np.indices(shape))
        columns: dict[str, Any] = {"member": h * shape[1] + s, "seed": self.seeds[s], "setting": h}
        columns |= {name: np.asarray(getattr(self.hypers, name))[h] for name in self.swept}
        columns |= {"segment": t, "update": (t + 1) * self.updates_per_segment}
        columns |= {name: values.ravel() for name, values in self.metrics.items()}
        return pd.DataFrame(columns).loc[np.isfinite(self.metrics[ALIVE]).ravel()]


@contextlib.contextmanager
def _stop_flag() -> Iterator[threading.Event]:
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


def unless_failed(before: PyTree, after: PyTree, alive: jax.Array) -> tuple[PyTree, jax.Array]:
    """One member's state after a segment: frozen at ``before`` once a number in it stops being finite.

    Args:
      before, after: the state around the segment.
      alive: float32 0 or 1; a member that failed earlier stays as it is.

    Returns:
      The state to go on with, and whether the member lives. A number that is not finite from the start (a bound at
      infinity) is no failure.
    """
    numbers = [
        (old, new)
        for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        if jnp.issubdtype(old.dtype, jnp.inexact)
    ]
    fine = [jnp.all(jnp.isfinite(new) | ~jnp.isfinite(old)).astype(jnp.float32) for old, new in numbers]
    # A sort, because XLA fuses it with nothing: a product of all would be written out again for every leaf, and states
    # of some hundred leaves would take minutes to compile.
    alive = alive * jnp.sort(jnp.stack([jnp.float32(1.0), *fine]))[0]
    return jax.tree.map(lambda old, new: jnp.where(alive > 0, new, old), before, after), alive


@dataclasses.dataclass(frozen=True)
class _Programs:
    init: Callable
    train: Callable
    evaluate: Callable | None
    evaluation_chunk: int
    plan: placing.Plan
    metrics: tuple[str, ...]  # what training and evaluation tell


def _compile(
    run: Run,
    members: PyTree,
    data: PyTree,
    chunk: int,
    devices: list[placing.Device],
    count: int,
    evaluation_chunk: int = EVALUATION_CHUNK,
) -> _Programs:
    """Trace and compile, asking the compiler for the memory; halves the chunk until the program fits."""
    keys, hypers = members
    alive = placing.place(jnp.ones(keys.shape[0], jnp.float32), devices)
    index = placing.replicate(jnp.int32(0), devices)
    init = jax.jit(placing.over_members(lambda member, _: run.init(*member), chunk, devices))
    states = jax.eval_shape(init, (keys, hypers), None)
    padded = keys.shape[0]
    state_bytes, data_bytes = placing.tree_bytes(states) // padded, placing.tree_bytes(data)
    limit = placing.memory_limit(devices[0] if hosts.alone() else jax.local_devices()[0])
    limit = int(hosts.gather(np.float32(limit)).min())  # so that every process chooses the same chunk

    def one(member, shared):
        state, alive, key, hyper = member
        after, metrics = run.train(state, shared[0], key, hyper, shared[1])
        state, alive = unless_failed(state, after, alive)
        return state, {**metrics, ALIVE: alive}

    while True:
        start = time.perf_counter()
        side_by_side = placing.over_members(one, chunk, devices)
        # A new function object each time: jit would otherwise return the trace of the chunk before.
        train = jax.jit(
            lambda states, alive, keys, hypers, *shared, f=side_by_side: f((states, alive, keys, hypers), shared),
            donate_argnums=0,
        )
        lowered = train.lower(_like(states, keys), alive, keys, hypers, index, data)
        traced = time.perf_counter()
        compiled = lowered.compile()
        plan = placing.Plan(
            members=count,
            devices=len(devices),
            chunk=chunk,
            platform=devices[0].platform,
            state_bytes=state_bytes,
            program_bytes=int(getattr(compiled.memory_analysis(), "temp_size_in_bytes", 0)),
            data_bytes=data_bytes,
            trace_seconds=traced - start,
            compile_seconds=time.perf_counter() - traced,
        )
        if plan.total_bytes <= SAFE_FRACTION * limit:
            break
        if chunk == 1:
            raise _too_large(plan, limit)
        chunk = -(-chunk // 2)

    programs = _Programs(init, compiled, None, evaluation_chunk, plan, tuple(lowered.out_info[1]))
    return _with_evaluation(programs, run, members, min(plan.per_device, evaluation_chunk), devices)


def _with_evaluation(
    programs: _Programs, run: Run, members: PyTree, chunk: int, devices: list[placing.Device]
) -> _Programs:
    """The same with a compiled evaluation of as many members as these, if the run has one."""
    if run.evaluate is None:
        return programs
    evaluation, start = run.evaluate, time.perf_counter()

    def one(member, index):
        state, key, hyper = member
        return evaluation(state, index, key, hyper)

    states = _like(jax.eval_shape(programs.init, members, None), members[0])
    side_by_side = jax.jit(placing.over_members(one, chunk, devices))
    lowered = side_by_side.lower((states, *members), placing.replicate(jnp.int32(0), devices))
    traced = time.perf_counter()
    compiled = lowered.compile()
    plan = dataclasses.replace(
        programs.plan,
        compilations=programs.plan.compilations + 1,
        trace_seconds=programs.plan.trace_seconds + traced - start,
        compile_seconds=programs.plan.compile_seconds + time.perf_counter() - traced,
    )
    names = (*programs.metrics, *lowered.out_info)
    return _Programs(programs.init, programs.train, compiled, chunk, plan, names)


def outline(
    run: Run,
    *,
    seeds: int | Sequence[int],
    hypers: PyTree,
    data: PyTree = None,
    placement: str = "auto",
    chunk: int | None = None,
    devices: Sequence[placing.Device] | None = None,
) -> placing.Plan:
    """What ``sweep`` would take, without compiling: everything in the plan but the program's temporaries (0 here).

    Raises:
      UserError: as ``sweep``, for settings that are not stacked or a placement that does not exist.
    """
    hypers = as_float32(hypers)
    members = setting_count(hypers) * (seeds if isinstance(seeds, int) else len(seeds))
    chunk, placed_on = placing.choose(members, placement, chunk, list(devices or jax.devices()))
    state = jax.eval_shape(run.init, jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], hypers))
    return placing.Plan(
        members=members,
        devices=len(placed_on),
        chunk=chunk,
        platform=placed_on[0].platform,
        state_bytes=placing.tree_bytes(state),
        data_bytes=placing.tree_bytes(data),
        compilations=2 if run.evaluate is None else 3,
    )


def _too_large(plan: placing.Plan, limit: int) -> UserError:
    return UserError(
        f"{plan.members} members need {placing.megabytes(plan.total_bytes)} per device but only "
        f"{placing.megabytes(SAFE_FRACTION * limit)} can be used; take fewer seeds or a smaller network"
    )


def _smaller(programs: _Programs, error: Exception, members: int, segment: int) -> tuple[int, int]:
    """Chunks of training and evaluation to go on with after ``error``, which is raised if it is of another kind."""
    out_of_memory = any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory"))
    if not out_of_memory or not hosts.alone():  # the others would not know of smaller chunks
        raise error
    if programs.plan.chunk == 1 and (programs.evaluate is None or programs.evaluation_chunk == 1):
        raise UserError(
            f"{members} members one after the other ran out of memory in segment {segment}; take fewer seeds or a "
            "smaller network"
        ) from error
    return -(-programs.plan.chunk // 2), -(-programs.evaluation_chunk // 2)


def _going_on(programs: _Programs, segment: int) -> str:
    return (
        f"out of memory; going on from segment {segment} with {programs.plan.chunk} members side by side in training, "
        f"{programs.evaluation_chunk} in evaluation"
    )


def _went_nan(member: Any, segment: Any, seeds: np.ndarray, hypers: Any) -> str:
    return f"{_name(int(member), seeds, hypers)} went NaN in segment {segment} and is frozen before it"


def _numbers(seeds: int | Sequence[int]) -> np.ndarray:
    """The seeds, one by one. Raises ``UserError`` for none or repeated ones."""
    numbers = np.arange(seeds) if isinstance(seeds, int) else np.asarray(seeds)
    if numbers.ndim != 1 or numbers.size == 0 or np.unique(numbers).size != numbers.size:
        raise UserError(f"seeds must be a positive number or distinct integers, got {numbers.tolist()}")
    return numbers


def _identity(run: Run, numbers: np.ndarray, hypers: PyTree, **more: Any) -> dict[str, Any]:
    """What a checkpoint must agree in to be continued."""
    return {
        "seeds": numbers.tolist(),
        "hypers": {str(i): np.asarray(leaf).tolist() for i, leaf in enumerate(jax.tree.leaves(hypers))},
        "segments": run.segments,
        "updates_per_segment": run.updates_per_segment,
        **more,
    }


def _same_sweep(directory: str | pathlib.Path, identity: dict[str, Any], info: dict[str, Any]) -> None:
    for name, value in identity.items():
        if info.get(name) != value:
            raise UserError(
                f"the checkpoint in {directory} belongs to another sweep: {name} differ; use a new directory"
            )


def _agreed(due: bool, stop: bool) -> tuple[bool, bool]:
    """Whether to save and whether to stop, the same in every process: read once, for what raises must be saved."""
    due_of, stop_of = hosts.gather([due, stop]).T
    return bool(due_of[0]), bool(stop_of.any())


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


def _like(shapes: PyTree, placed: jax.Array) -> PyTree:
    """Shape descriptions with the sharding of an array that is already in place."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=placed.sharding), shapes)


def sweep(
    run: Run,
    *,
    seeds: int | Sequence[int],
    hypers: PyTree,
    data: PyTree = None,
    placement: str = "auto",
    chunk: int | None = None,
    devices: Sequence[placing.Device] | None = None,
    directory: str | pathlib.Path | None = None,
    save_seconds: float = 30.0,
    resume: bool = False,
    on_plan: Callable[[placing.Plan], None] | None = None,
    on_segment: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] = _warn,
) -> Result:
    """Train every seed under every setting: one program, one copy of the data per device.

    A member that goes NaN is frozen in its last finite state, marked (metric ``alive``) and noted; it harms no other.
    Where memory runs out in spite of the plan, the chunk is halved and the segment done again.

    Member ``(h, s)`` is ``run(jax.random.key(seeds[s]), hypers[h], data)``: its parameters equal those of that single
    run to 1e-5 after tens of updates, rounding apart (members side by side are summed in another order).

    Args:
      run: made by a loop, such as ``loops.offline``.
      seeds: how many (0, 1, ...), or which.
      hypers: settings with leaves ``[H]``, from ``population.grid``.
      data: a pytree handed to every member's ``run.train``; never copied per member.
      placement: ``vmap`` (members side by side), ``map`` (one after the other), or ``auto``: map on CPU, else vmap.
      chunk: members side by side on one device; halved until the compiled program fits into memory.
      devices: all by default, those of other processes included (see ``hosts.join``); members are split over them.
      directory: where to keep checkpoints; none are written without it.
      save_seconds: the least time between two checkpoints; 0 saves after every segment. The last is always saved.
      resume: continue from the newest checkpoint in ``directory``; the result is bit-identical to an uninterrupted run.
      on_plan: called once with the plan, before training.
      on_segment: called after every segment.
      on_note: told in one line about what went wrong and was survived; a warning by default.

    Raises:
      UserError: for settings that are not stacked, repeated seeds, a program that cannot fit, a disk that takes no
        checkpoint (the one before is intact), or a checkpoint of another sweep.
      Interrupted: after Ctrl-C or SIGTERM, once the running segment has ended and is saved.
    """
    numbers = _numbers(seeds)
    hypers = as_float32(hypers)
    settings = setting_count(hypers)
    count = settings * numbers.size
    chunk, placed_on = placing.choose(count, placement, chunk, list(devices or jax.devices()))

    identity = _identity(run, numbers, hypers)
    padded = placing.padded(count, len(placed_on), 1)
    members = placing.place(_layout(numbers, hypers, np.arange(padded) % count), placed_on)  # padding repeats the first
    data = placing.replicate(data, placed_on)

    programs = _compile(run, members, data, chunk, placed_on, count)
    if on_plan is not None:
        on_plan(programs.plan)

    def start(read: bool) -> tuple[PyTree, dict[str, list[np.ndarray]], int]:
        """States on the devices, history and finished segments: of the newest checkpoint, or of the beginning."""
        states, history, first = None, {}, 0
        if read and directory is not None:
            states, history, first = _restore(directory, identity, programs, members, count)
        if states is None:
            states = programs.init(members, None)
        if first:  # a checkpoint from before members could fail
            history.setdefault(ALIVE, [np.ones(count, np.float32)] * first)
        return placing.place(states, placed_on), history, first

    def save(segment: int) -> None:
        from jaxrl_reg.io import checkpoint

        if directory is not None:
            names, fetched = sorted(history), states if hosts.alone() else hosts.fetch(states)
            tree = (jax.tree.map(lambda leaf: leaf[:count], fetched), [np.stack(history[name]) for name in names])
            if hosts.first():
                checkpoint.save(directory, segment, tree, {**identity, "metrics": names, "segment": segment})

    def one_segment(segment: int) -> tuple[PyTree, dict[str, np.ndarray]]:
        index = placing.replicate(jnp.int32(segment), placed_on)
        lives = placing.place(alive[np.arange(padded) % count], placed_on)
        after, metrics = programs.train(states, lives, *members, index, data)
        if programs.evaluate is not None:
            metrics = {**metrics, **programs.evaluate((after, *members), index)}
        return after, {name: np.array(value)[:count] for name, value in hosts.fetch(metrics).items()}

    states, history, first = start(resume)
    alive = history[ALIVE][-1] if history else np.ones(count, np.float32)
    saved = started = time.monotonic()
    ran, segment = 0, first  # segments done in this call, and finished ones
    with _stop_flag() as stop:
        while segment < run.segments:
            begun = time.monotonic()
            try:
                states, metrics = one_segment(segment)
            except jax.errors.JaxRuntimeError as error:
                smaller, smaller_evaluation = _smaller(programs, error, count, segment + 1)
                programs = _compile(run, members, data, smaller, placed_on, count, smaller_evaluation)
                if any(leaf.is_deleted() for leaf in jax.tree.leaves(states)):  # donated to the call that failed
                    states, history, segment = start(segment > first or resume)
                    alive = history[ALIVE][-1] if history else np.ones(count, np.float32)
                on_note(_going_on(programs, segment + 1))
                continue
            for member in np.flatnonzero((metrics[ALIVE] == 0) & (alive > 0)):
                on_note(_went_nan(member, segment + 1, numbers, hypers))
            alive = metrics[ALIVE]
            for name, value in metrics.items():
                if name != ALIVE and np.issubdtype(value.dtype, np.floating):
                    value[alive == 0] = np.nan
                history.setdefault(name, []).append(value)
            ran, segment, now = ran + 1, segment + 1, time.monotonic()
            due, stopping = _agreed(now - saved >= save_seconds, stop.is_set())
            if segment == run.segments or stopping or due:
                save(segment)
                saved = time.monotonic()
            if on_segment is not None:
                on_segment(
                    Progress(
                        segment=segment,
                        segments=run.segments,
                        updates=segment * run.updates_per_segment,
                        updates_per_second=count * run.updates_per_segment / max(now - begun, 1e-9),
                        eta_seconds=(now - started) / ran * (run.segments - segment),
                        metrics={name: value.reshape(settings, -1) for name, value in metrics.items()},
                        plan=programs.plan,
                    )
                )
            if stopping:
                raise Interrupted(f"stopped after segment {segment} of {run.segments}")

    def by_setting(leaf: Any) -> Any:
        return leaf[:count].reshape(settings, numbers.size, *leaf.shape[1:])

    return Result(
        metrics={name: by_setting(np.stack(values, axis=1)) for name, values in history.items()},
        state=jax.tree.map(by_setting, hosts.fetch(states)),
        hypers=hypers,
        seeds=numbers,
        plan=programs.plan,
        updates_per_segment=run.updates_per_segment,
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

    numbers, settings = _numbers(seeds), setting_count(hypers)
    count = settings * numbers.size
    keys, settings_of_members = _layout(numbers, hypers, np.arange(count))
    shapes = jax.eval_shape(jax.vmap(run.init), keys, settings_of_members)

    def like(info: dict[str, Any]) -> PyTree:
        shape = (count, run.segments) if "done" in info else (info["segment"], count)  # of a race, of a sweep
        return shapes, [jax.ShapeDtypeStruct(shape, jnp.float32) for _ in info["metrics"]]

    found = checkpoint.restore(directory, like)
    if found is None:
        return None
    segment, (states, _), info = found
    segments = np.broadcast_to(info.get("done", segment), settings)
    return Restored(segments * run.updates_per_segment, states, keys, settings_of_members)


def _layout(seeds: np.ndarray, hypers: PyTree, members: np.ndarray) -> tuple[jax.Array, PyTree]:
    """Keys and settings of these members: number ``h S + s`` is seed ``s`` of setting ``h``."""
    setting_of, seed_of = np.divmod(members, seeds.size)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds[seed_of]))
    return keys, jax.tree.map(lambda leaf: leaf[setting_of], hypers)


def _name(member: int, seeds: np.ndarray, hypers: Any) -> str:
    """``member 3 (seed 1, learning_rate=0.1)`` with the hyperparameters that differ between settings."""
    setting, seed = divmod(int(member), seeds.size)
    parts = [f"seed {seeds[seed]}"]
    for name, leaf in ((field.name, np.asarray(getattr(hypers, field.name))) for field in dataclasses.fields(hypers)):
        if np.unique(leaf).size > 1:
            parts.append(f"{name}={leaf[setting]:g}")
    return f"member {member} ({', '.join(parts)})"


def _restore(
    directory: str | pathlib.Path, identity: dict[str, Any], programs: _Programs, members: PyTree, count: int
) -> tuple[PyTree, dict[str, list[np.ndarray]], int]:
    """States (padded for today's devices), history and finished segments; ``(None, {}, 0)`` without a checkpoint."""
    from jaxrl_reg.io import checkpoint

    states = jax.eval_shape(programs.init, members, None)

    def like(info: dict[str, Any]) -> PyTree:
        _same_sweep(directory, identity, info)
        cut = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), states)
        return cut, [jax.ShapeDtypeStruct((info["segment"], count), jnp.float32) for _ in info["metrics"]]

    found = checkpoint.restore(directory, like)
    if found is None:
        return None, {}, 0
    segment, (states, values), info = found
    again = np.arange(members[0].shape[0]) % count
    history = {name: list(value) for name, value in zip(info["metrics"], values, strict=True)}
    return jax.tree.map(lambda leaf: leaf[again], states), history, segment

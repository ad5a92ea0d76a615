"""The compiled programs of a population: initialisation, training, evaluation, in the memory that there is."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.population import hosts
from jaxrl_reg.population import placement as placing
from jaxrl_reg.types import Judge, PyTree, Run

# Rolling out many members at once is cheaper on every machine: physics steps are many and small.
EVALUATION_CHUNK = 256
SAFE_FRACTION = 0.8  # of the memory limit; the rest is for the allocator and for the host
ALIVE = "alive"  # the metric that is 0 from the segment in which a member went NaN, else 1


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
    # Counts in float32, which a CPU sums by a library; "all" of truth values is a program of its own for every shape.
    bad = [jnp.where(jnp.isfinite(new) | ~jnp.isfinite(old), 0.0, 1.0).sum() for old, new in numbers]
    # A sort, because XLA fuses it with nothing: a sum of all would be written out again for every leaf, and states of
    # some hundred leaves would take minutes to compile.
    worst = jnp.sort(jnp.stack([jnp.float32(0.0), *bad]))[-1]
    alive = alive * (worst == 0.0).astype(jnp.float32)
    return jax.tree.map(lambda old, new: jnp.where(alive > 0, new, old), before, after), alive


@dataclasses.dataclass(frozen=True)
class Programs:
    """What was compiled for a population, and what it costs; ``evaluate`` is None for a run without evaluation."""

    init: Callable
    train: Callable
    evaluate: Callable | None
    evaluation_chunk: int
    plan: placing.Plan
    metrics: tuple[str, ...]  # what training and evaluation tell
    states: PyTree  # the shapes of what ``init`` makes


class _Compiler:
    """Traces programs one after the other and compiles each in a thread meanwhile; of several processes, which may
    wait for each other in it, each compiles at once. Counts the seconds."""

    def __init__(self) -> None:
        self.pool, self.started, self.trace_seconds = concurrent.futures.ThreadPoolExecutor(), time.perf_counter(), 0.0

    def __enter__(self) -> _Compiler:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()

    def lower(self, function: Any, *args: PyTree) -> Any:
        start = time.perf_counter()
        lowered = function.lower(*args)
        self.trace_seconds += time.perf_counter() - start
        return lowered

    def start(self, lowered: Any) -> concurrent.futures.Future:
        future = self.pool.submit(lowered.compile)
        if not hosts.alone():
            concurrent.futures.wait([future])
        return future

    def fitting(self, started: concurrent.futures.Future, lower: Callable[[int], Any], chunk: int) -> tuple[Any, int]:
        """What compiles, and its chunk: halved as long as the compiler itself says that memory does not suffice.

        A TPU's does, where others leave that to the run.

        Raises:
          UserError: if it says so of one member.
        """
        while True:
            try:
                return started.result(), chunk
            except jax.errors.JaxRuntimeError as error:
                if not out_of_memory(error):
                    raise
                if chunk == 1:
                    reason = str(error).strip().splitlines()[0]
                    raise UserError(f"one member does not fit: {reason}; take a smaller network or batch") from error
            chunk = -(-chunk // 2)
            started = self.start(lower(chunk))

    @property
    def compile_seconds(self) -> float:
        """All that has passed, but for tracing."""
        return time.perf_counter() - self.started - self.trace_seconds


def compile_programs(
    run: Run,
    members: PyTree,
    data: PyTree,
    chunk: int,
    devices: list[placing.Device],
    count: int,
    evaluation_chunk: int = EVALUATION_CHUNK,
    begun: tuple[PyTree, ...] | None = None,
    examined: PyTree | None = None,
) -> Programs:
    """Trace and compile, asking the compiler for the memory; halves the chunk until the training program fits.

    Args:
      begun: what members begin from beside ``members``; None: initialisation compiles when it is called, if ever.
      examined: as many members are evaluated in a call; ``members`` by default.
    """
    keys = members[0]
    evaluated = members if examined is None else examined
    evaluation_chunk = min(evaluation_chunk, evaluated[0].shape[0] // len(devices))
    index = placing.replicate(jnp.int32(0), devices)
    alive = placing.place(np.ones(keys.shape[0], np.float32), devices)
    limit = placing.memory_limit(devices[0] if hosts.alone() else jax.local_devices()[0])
    limit = int(hosts.gather(np.float32(limit)).min())  # so that every process chooses the same chunk
    initialised = placing.over_members(lambda member, _: run.init(*member), chunk, devices)
    init: Callable = jax.jit(initialised)
    states: PyTree = None
    starting, judging, told = None, None, ()

    def lower_training(chunk: int) -> Any:
        train = _training(run, chunk, devices)
        return compiler.lower(train, _like(states, keys), alive, *members, index, data)

    def lower_evaluation(chunk: int) -> Any:
        evaluate = _evaluation(run, chunk, devices)
        return compiler.lower(evaluate, (_like(states, evaluated[0]), *evaluated), index)

    with _Compiler() as compiler:
        if begun is None:
            states = jax.eval_shape(init, members, None)
        else:
            lowered = compiler.lower(init, (*members, *begun), None)
            states, starting = lowered.out_info, compiler.start(lowered)
        lowered = lower_training(chunk)
        metrics, training = tuple(lowered.out_info[1]), compiler.start(lowered)
        if run.evaluate is not None:  # traced while training compiles
            lowered = lower_evaluation(evaluation_chunk)
            told, judging = tuple(lowered.out_info), compiler.start(lowered)
        while True:
            compiled, chunk = compiler.fitting(training, lower_training, chunk)
            plan = placing.Plan(
                members=count,
                devices=len(devices),
                chunk=chunk,
                platform=devices[0].platform,
                state_bytes=placing.tree_bytes(states) // keys.shape[0],
                program_bytes=int(getattr(compiled.memory_analysis(), "temp_size_in_bytes", 0)),
                data_bytes=placing.tree_bytes(data),
                compilations=2 if judging is None else 3,
            )
            if plan.total_bytes <= SAFE_FRACTION * limit:
                break
            if chunk == 1:
                raise _too_large(plan, limit)
            chunk = -(-chunk // 2)
            training = compiler.start(lower_training(chunk))
        init = init if starting is None else starting.result()
        evaluate = None
        if judging is not None:
            evaluate, evaluation_chunk = compiler.fitting(judging, lower_evaluation, evaluation_chunk)
        plan = dataclasses.replace(plan, trace_seconds=compiler.trace_seconds, compile_seconds=compiler.compile_seconds)
    return Programs(init, compiled, evaluate, evaluation_chunk, plan, (*metrics, *told), states)


def _training(run: Run, chunk: int, devices: list[placing.Device]) -> Callable:
    """One segment of every member: ``(states, alive, keys, hypers, index, data) -> (states, metrics)``."""

    def one(member, shared):
        state, alive, key, hyper = member
        after, metrics = run.train(state, shared[0], key, hyper, shared[1])
        state, alive = unless_failed(state, after, alive)
        return state, {**metrics, ALIVE: alive}

    side_by_side = placing.over_members(one, chunk, devices)

    # A new function object each time: jit would otherwise return the trace of the chunk before.
    def train(states, alive, keys, hypers, *shared):
        return side_by_side((states, alive, keys, hypers), shared)

    return jax.jit(train, donate_argnums=0)


def _evaluation(run: Run, chunk: int, devices: list[placing.Device]) -> Callable:
    """What ``run.evaluate`` tells of every member: ``((states, keys, hypers), index) -> metrics``."""
    evaluate = run.evaluate
    assert evaluate is not None

    def one(member, index):
        state, key, hyper = member
        return evaluate(state, index, key, hyper)

    return jax.jit(placing.over_members(one, chunk, devices))


def judged(judge: Judge, members: tuple[PyTree, jax.Array, PyTree], segment: int, count: int) -> dict[str, np.ndarray]:
    """What a host-side judge says of the first ``count`` of these members, ``[count]`` each.

    ``members`` are states, keys and hyperparameters ``[M, ...]``. Of several processes each judges its share, and all
    of them must call this.
    """
    states, keys, hypers = hosts.fetch(members)
    share = -(-count // jax.process_count())
    mine = (np.arange(share) + share * jax.process_index()) % count
    states, keys, hypers = jax.tree.map(lambda leaf: leaf[mine], (states, keys, hypers))
    found = judge.measure(states, segment, keys, hypers)
    told = hosts.gather(np.stack([np.asarray(found[name], np.float32) for name in judge.metrics]))
    whole = np.moveaxis(told, 0, 1).reshape(len(judge.metrics), -1)[:, :count]
    return dict(zip(judge.metrics, whole, strict=True))


def _too_large(plan: placing.Plan, limit: int) -> UserError:
    return UserError(
        f"{plan.members} members need {placing.megabytes(plan.total_bytes)} per device but only "
        f"{placing.megabytes(SAFE_FRACTION * limit)} can be used; take fewer seeds or a smaller network"
    )


def out_of_memory(error: Exception) -> bool:
    """Whether it says that memory does not suffice, be it the runtime's error or the compiler's."""
    return any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory"))


def smaller_chunks(programs: Programs, error: Exception, members: int, segment: int) -> tuple[int, int]:
    """Chunks of training and evaluation to go on with after ``error``, which is raised if it is of another kind."""
    if not out_of_memory(error) or not hosts.alone():  # the others would not know of smaller chunks
        raise error
    if programs.plan.chunk == 1 and (programs.evaluate is None or programs.evaluation_chunk == 1):
        raise UserError(
            f"{members} members one after the other ran out of memory in segment {segment}; take fewer seeds or a "
            "smaller network"
        ) from error
    return -(-programs.plan.chunk // 2), -(-programs.evaluation_chunk // 2)


def going_on(programs: Programs, segment: int) -> str:
    """What is noted when memory ran out and ``programs`` are the smaller ones."""
    return (
        f"out of memory; going on from segment {segment} with {programs.plan.chunk} members side by side in training, "
        f"{programs.evaluation_chunk} in evaluation"
    )


def _like(shapes: PyTree, placed: jax.Array) -> PyTree:
    """Shape descriptions with the members and the sharding of an array that is already in place."""
    count = placed.shape[:1]
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(count + s.shape[1:], s.dtype, sharding=placed.sharding), shapes)

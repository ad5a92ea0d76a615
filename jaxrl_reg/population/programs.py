"""The compiled programs of a population: initialisation, training, evaluation, in the memory that there is."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

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


def compile_programs(
    run: Run,
    members: PyTree,
    data: PyTree,
    chunk: int,
    devices: list[placing.Device],
    count: int,
    evaluation_chunk: int = EVALUATION_CHUNK,
) -> Programs:
    """Trace and compile, asking the compiler for the memory; halves the chunk until the program fits."""
    keys, hypers = members
    alive = placing.place(np.ones(keys.shape[0], np.float32), devices)
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

    programs = Programs(init, compiled, None, evaluation_chunk, plan, tuple(lowered.out_info[1]))
    return with_evaluation(programs, run, members, min(plan.per_device, evaluation_chunk), devices)


def with_evaluation(
    programs: Programs, run: Run, members: PyTree, chunk: int, devices: list[placing.Device]
) -> Programs:
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
    return Programs(programs.init, programs.train, compiled, chunk, plan, names)


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


def smaller_chunks(programs: Programs, error: Exception, members: int, segment: int) -> tuple[int, int]:
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


def going_on(programs: Programs, segment: int) -> str:
    """What is noted when memory ran out and ``programs`` are the smaller ones."""
    return (
        f"out of memory; going on from segment {segment} with {programs.plan.chunk} members side by side in training, "
        f"{programs.evaluation_chunk} in evaluation"
    )


def _like(shapes: PyTree, placed: jax.Array) -> PyTree:
    """Shape descriptions with the sharding of an array that is already in place."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=placed.sharding), shapes)

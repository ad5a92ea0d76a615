"""Train every member of ``settings x seeds`` with one compiled program, segment by segment, resumable."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.population import hosts
from jaxrl_reg.population import placement as placing
from jaxrl_reg.population.checkpointing import (
    Interrupted,
    agreed,
    identity_of,
    layout,
    members_of,
    refuse_another,
    seed_numbers,
    stop_flag,
)
from jaxrl_reg.population.generations import PREFIX, Generations
from jaxrl_reg.population.grid import setting_count
from jaxrl_reg.population.programs import ALIVE, Programs, compile_programs, going_on, judged, smaller_chunks
from jaxrl_reg.population.results import Progress, Result, warn, went_nan
from jaxrl_reg.types import PyTree, Run, as_float32


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


def sweep(
    run: Run,
    *,
    seeds: int | Sequence[int],
    hypers: PyTree,
    data: PyTree = None,
    start: PyTree = None,
    generations: Generations | None = None,
    placement: str = "auto",
    chunk: int | None = None,
    devices: Sequence[placing.Device] | None = None,
    directory: str | pathlib.Path | None = None,
    save_seconds: float = 30.0,
    resume: bool = False,
    on_plan: Callable[[placing.Plan], None] | None = None,
    on_segment: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] = warn,
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
      start: what each member begins from, leaves ``[H, S, ...]``: the third argument of ``run.init``, for loops that go
        on with trained agents.
      generations: population-based training: after every segment but the last the worst settings of each seed copy the
        best, and their hyperparameters move; ``hyper/<name>`` among the metrics is what a segment was trained with.
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
    numbers = seed_numbers(seeds)
    hypers = as_float32(hypers)
    settings = setting_count(hypers)
    count = settings * numbers.size
    chunk, placed_on = placing.choose(count, placement, chunk, list(devices or jax.devices()))

    identity = identity_of(run, numbers, hypers)
    if generations is not None:
        generations.check(hypers)
    padded = placing.padded(count, len(placed_on), 1)
    members = placing.place(layout(numbers, hypers, np.arange(padded) % count), placed_on)  # padding repeats the first
    data = placing.replicate(data, placed_on)
    begun = () if start is None else (members_of(start, hypers, numbers),)
    begun = placing.place(jax.tree.map(lambda leaf: leaf[np.arange(padded) % count], begun), placed_on)

    programs = compile_programs(run, members, data, chunk, placed_on, count)
    if on_plan is not None:
        on_plan(programs.plan)

    def begin(read: bool) -> tuple[PyTree, dict[str, list[np.ndarray]], int]:
        """States on the devices, history and finished segments: of the newest checkpoint, or of the beginning."""
        states, history, first = None, {}, 0
        if read and directory is not None:
            states, history, first = _restore(directory, identity, programs, members, count)
        if states is None:
            states = programs.init((*members, *begun), None)
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

    def evolve(segment: int) -> None:
        """Copies and moved hyperparameters before a segment, from the metrics of the one before."""
        nonlocal states, members, alive
        assert generations is not None
        before = {name: values[-1] for name, values in history.items()}
        parents, following = generations.following(
            segment, numbers, layout(numbers, hypers, np.arange(count))[1], before
        )
        again = np.arange(padded) % count
        if hosts.alone():
            states = placing.place(take(states, parents[again]), placed_on)
        else:  # who is copied may be with another process: all pass through the hosts, as for a checkpoint
            copied = jax.tree.map(lambda leaf: leaf[parents[again]], hosts.fetch(states))
            states = placing.place(copied, placed_on)
        members = members[0], placing.place(jax.tree.map(lambda leaf: jnp.asarray(leaf)[again], following), placed_on)
        alive = alive[parents]

    def one_segment(segment: int) -> tuple[PyTree, dict[str, np.ndarray]]:
        index = placing.replicate(jnp.int32(segment), placed_on)
        lives = placing.place(alive[np.arange(padded) % count], placed_on)
        after, metrics = programs.train(states, lives, *members, index, data)
        if programs.evaluate is not None:
            metrics = {**metrics, **programs.evaluate((after, *members), index)}
        told = {name: np.array(value)[:count] for name, value in hosts.fetch(metrics).items()}
        if run.judge is not None:
            told |= judged(run.judge, (after, members[0], members[1]), segment, count)
        return after, told

    take = jax.jit(lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree))
    states, history, first = begin(resume)
    alive = history[ALIVE][-1] if history else np.ones(count, np.float32)
    saved = started = time.monotonic()
    ran, segment = 0, first  # segments done in this call, and finished ones
    evolved = 0  # the segment that members have copied each other for
    with stop_flag() as stop:
        while segment < run.segments:
            since = time.monotonic()
            if generations is not None and segment > evolved:
                evolve(segment)
                evolved = segment
            try:
                states, metrics = one_segment(segment)
            except jax.errors.JaxRuntimeError as error:
                smaller, smaller_evaluation = smaller_chunks(programs, error, count, segment + 1)
                programs = compile_programs(run, members, data, smaller, placed_on, count, smaller_evaluation)
                if any(leaf.is_deleted() for leaf in jax.tree.leaves(states)):  # donated to the call that failed
                    states, history, segment = begin(segment > first or resume)
                    evolved = 0
                    alive = history[ALIVE][-1] if history else np.ones(count, np.float32)
                on_note(going_on(programs, segment + 1))
                continue
            for member in np.flatnonzero((metrics[ALIVE] == 0) & (alive > 0)):
                on_note(went_nan(member, segment + 1, numbers, hypers))
            alive = metrics[ALIVE]
            if generations is not None:
                metrics |= {name: value[:count] for name, value in generations.used(hosts.fetch(members[1])).items()}
            for name, value in metrics.items():
                if name != ALIVE and not name.startswith(PREFIX) and np.issubdtype(value.dtype, np.floating):
                    value[alive == 0] = np.nan
                history.setdefault(name, []).append(value)
            ran, segment, now = ran + 1, segment + 1, time.monotonic()
            due, stopping = agreed(now - saved >= save_seconds, stop.is_set())
            if segment == run.segments or stopping or due:
                save(segment)
                saved = time.monotonic()
            if on_segment is not None:
                on_segment(
                    Progress(
                        segment=segment,
                        segments=run.segments,
                        updates=segment * run.updates_per_segment,
                        updates_per_second=count * run.updates_per_segment / max(now - since, 1e-9),
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


def _restore(
    directory: str | pathlib.Path, identity: dict[str, Any], programs: Programs, members: PyTree, count: int
) -> tuple[PyTree, dict[str, list[np.ndarray]], int]:
    """States (padded for today's devices), history and finished segments; ``(None, {}, 0)`` without a checkpoint."""
    from jaxrl_reg.io import checkpoint

    states = jax.eval_shape(programs.init, members, None)

    def like(info: dict[str, Any]) -> PyTree:
        refuse_another(directory, identity, info)
        cut = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), states)
        return cut, [jax.ShapeDtypeStruct((info["segment"], count), jnp.float32) for _ in info["metrics"]]

    found = checkpoint.restore(directory, like)
    if found is None:
        return None, {}, 0
    segment, (states, values), info = found
    again = np.arange(members[0].shape[0]) % count
    history = {name: list(value) for name, value in zip(info["metrics"], values, strict=True)}
    return jax.tree.map(lambda leaf: leaf[again], states), history, segment

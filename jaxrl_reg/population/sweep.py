"""Train every member of ``settings x seeds`` with one compiled program, segment by segment, resumable."""

from __future__ import annotations

import dataclasses
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
from jaxrl_reg.population.programs import (
    ALIVE,
    EVALUATION_CHUNK,
    Programs,
    compile_programs,
    going_on,
    judged,
    smaller_chunks,
)
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


@dataclasses.dataclass
class _Population:
    """What a sweep holds between segments; it changes in place, and nothing of it is traced.

    ``M`` members are padded to a multiple of the devices, ``P``, by members over again.
    """

    run: Run
    numbers: np.ndarray  # seeds
    hypers: PyTree  # [H]
    members: PyTree  # keys and hyperparameters [P]
    begun: tuple[PyTree, ...]  # what members begin from [P], or nothing
    data: PyTree
    devices: list[placing.Device]
    programs: Programs
    generations: Generations | None
    directory: str | pathlib.Path | None
    identity: dict[str, Any]
    states: PyTree = None  # [P]
    history: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)  # metric -> [M] per segment
    alive: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(0))  # [M]
    segment: int = 0  # how many are finished
    evolved: int = 0  # the segment that members have copied each other for

    @property
    def count(self) -> int:
        return setting_count(self.hypers) * self.numbers.size

    @property
    def padding(self) -> np.ndarray:
        """The member in each of the ``P`` places."""
        return np.arange(self.members[0].shape[0]) % self.count

    def begin(self, read: bool) -> None:
        """The state of the newest checkpoint where there is one to ``read``, else that of the beginning."""
        self.states, self.history, self.segment, self.evolved = None, {}, 0, 0
        if read and self.directory is not None:
            self._restore()
        if self.states is None:
            self.states = self.programs.init((*self.members, *self.begun), None)
        if self.segment:  # a checkpoint from before members could fail
            self.history.setdefault(ALIVE, [np.ones(self.count, np.float32)] * self.segment)
        self.states = placing.place(self.states, self.devices)
        self.alive = self.history[ALIVE][-1] if self.history else np.ones(self.count, np.float32)

    def _restore(self) -> None:
        from jaxrl_reg.io import checkpoint

        assert self.directory is not None
        directory, states = self.directory, self.programs.states

        def like(info: dict[str, Any]) -> PyTree:
            refuse_another(directory, self.identity, info)
            cut = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((self.count, *leaf.shape[1:]), leaf.dtype), states)
            return cut, [jax.ShapeDtypeStruct((info["segment"], self.count), jnp.float32) for _ in info["metrics"]]

        if (found := checkpoint.restore(directory, like)) is not None:
            self.segment, (kept, values), info = found
            self.history = {name: list(value) for name, value in zip(info["metrics"], values, strict=True)}
            self.states = jax.tree.map(lambda leaf: leaf[self.padding], kept)

    def save(self) -> None:
        """A checkpoint of the finished segments, where there is a directory for it."""
        from jaxrl_reg.io import checkpoint

        if self.directory is not None:
            names = sorted(self.history)
            fetched = self.states if hosts.alone() else hosts.fetch(self.states)
            kept = jax.tree.map(lambda leaf: leaf[: self.count], fetched)
            tree = (kept, [np.stack(self.history[name]) for name in names])
            if hosts.first():
                info = {**self.identity, "metrics": names, "segment": self.segment}
                checkpoint.save(self.directory, self.segment, tree, info)

    def evolve(self) -> None:
        """Copies and moved hyperparameters before a segment, from the metrics of the one before."""
        if self.generations is None or self.segment <= self.evolved:
            return
        self.evolved = self.segment
        again, before = self.padding, {name: values[-1] for name, values in self.history.items()}
        own = layout(self.numbers, self.hypers, np.arange(self.count))[1]
        parents, following = self.generations.following(self.segment, self.numbers, own, before)
        if hosts.alone():
            copied = _take(self.states, parents[again])
        else:  # who is copied may be with another process: all pass through the hosts, as for a checkpoint
            copied = jax.tree.map(lambda leaf: leaf[parents[again]], hosts.fetch(self.states))
        self.states = placing.place(copied, self.devices)
        moved = jax.tree.map(lambda leaf: jnp.asarray(leaf)[again], following)
        self.members = self.members[0], placing.place(moved, self.devices)
        self.alive = self.alive[parents]

    def train(self) -> dict[str, np.ndarray]:
        """One segment of every member and its evaluation; gives the metrics ``[M]``."""
        index = placing.replicate(jnp.int32(self.segment), self.devices)
        lives = placing.place(self.alive[self.padding], self.devices)
        begun = placing.place_empty(self.states, self.devices)
        states, metrics = self.programs.train(begun, lives, *self.members, index, self.data)
        states = placing.place_empty(states, self.devices)
        if self.programs.evaluate is not None:
            metrics = {**metrics, **self.programs.evaluate((states, *self.members), index)}
        told = {name: np.array(value)[: self.count] for name, value in hosts.fetch(metrics).items()}
        if self.run.judge is not None:
            told |= judged(self.run.judge, (states, *self.members), self.segment, self.count)
        self.states = states
        return told

    def finish(self, metrics: dict[str, np.ndarray], on_note: Callable[[str], None]) -> None:
        """What the segment told goes into the history; who went NaN is noted, and its numbers with it."""
        self.segment += 1
        for member in np.flatnonzero((metrics[ALIVE] == 0) & (self.alive > 0)):
            on_note(went_nan(member, self.segment, self.numbers, self.hypers))
        self.alive = metrics[ALIVE]
        if self.generations is not None:
            used = self.generations.used(hosts.fetch(self.members[1]))
            metrics |= {name: value[: self.count] for name, value in used.items()}
        for name, value in metrics.items():
            if name != ALIVE and not name.startswith(PREFIX) and np.issubdtype(value.dtype, np.floating):
                value[self.alive == 0] = np.nan
            self.history.setdefault(name, []).append(value)

    def shrink(self, error: jax.errors.JaxRuntimeError, again: bool) -> str:
        """Programs for fewer members at once after memory ran out; raises any other ``error``. Gives a line to note.

        Where the failed call had been given the states, training goes on from the newest checkpoint if ``again`` says
        that it is of this run, else from the beginning.
        """
        number = self.segment + 1
        smaller, smaller_evaluation = smaller_chunks(self.programs, error, self.count, number)
        self.programs = compile_programs(
            self.run, self.members, self.data, smaller, self.devices, self.count, smaller_evaluation
        )
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(self.states)):
            self.begin(again)
        return going_on(self.programs, self.segment + 1)

    def result(self) -> Result:
        """All of it by setting and seed, on the host."""
        settings = setting_count(self.hypers)

        def by_setting(leaf: Any) -> Any:
            return leaf[: self.count].reshape(settings, self.numbers.size, *leaf.shape[1:])

        return Result(
            metrics={name: by_setting(np.stack(values, axis=1)) for name, values in self.history.items()},
            state=jax.tree.map(by_setting, hosts.fetch(self.states)),
            hypers=self.hypers,
            seeds=self.numbers,
            plan=self.programs.plan,
            updates_per_segment=self.run.updates_per_segment,
        )


@jax.jit
def _take(tree: PyTree, index: np.ndarray) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], tree)


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
    numbers, hypers = seed_numbers(seeds), as_float32(hypers)
    settings = setting_count(hypers)
    count = settings * numbers.size
    chunk, placed_on = placing.choose(count, placement, chunk, list(devices or jax.devices()))
    if generations is not None:
        generations.check(hypers)
    again = np.arange(placing.padded(count, len(placed_on), 1)) % count  # padding repeats the first
    members = placing.place(layout(numbers, hypers, again), placed_on)
    data = placing.replicate(data, placed_on)
    begun = () if start is None else (members_of(start, hypers, numbers),)
    begun = placing.place(jax.tree.map(lambda leaf: leaf[again], begun), placed_on)
    goes_on = resume and directory is not None and _has_checkpoint(directory)
    programs = compile_programs(
        run, members, data, chunk, placed_on, count, EVALUATION_CHUNK, None if goes_on else begun
    )
    identity = identity_of(run, numbers, hypers)
    held = _Population(
        run, numbers, hypers, members, begun, data, placed_on, programs, generations, directory, identity
    )
    if on_plan is not None:
        on_plan(programs.plan)

    held.begin(resume)
    first, ran = held.segment, 0  # segments that were there, and that were done in this call
    saved = started = time.monotonic()
    with stop_flag() as stop:
        while held.segment < run.segments:
            since = time.monotonic()
            held.evolve()
            try:
                metrics = held.train()
            except jax.errors.JaxRuntimeError as error:
                on_note(held.shrink(error, held.segment > first or resume))
                continue
            held.finish(metrics, on_note)
            ran, now = ran + 1, time.monotonic()
            due, stopping = agreed(now - saved >= save_seconds, stop.is_set())
            if held.segment == run.segments or stopping or due:
                held.save()
                saved = time.monotonic()
            if on_segment is not None:
                on_segment(
                    Progress(
                        segment=held.segment,
                        segments=run.segments,
                        updates=held.segment * run.updates_per_segment,
                        updates_per_second=count * run.updates_per_segment / max(now - since, 1e-9),
                        eta_seconds=(now - started) / ran * (run.segments - held.segment),
                        metrics={name: value.reshape(settings, -1) for name, value in metrics.items()},
                        plan=held.programs.plan,
                    )
                )
            if stopping:
                raise Interrupted(f"stopped after segment {held.segment} of {run.segments}")
    return held.result()


def _has_checkpoint(directory: str | pathlib.Path) -> bool:
    from jaxrl_reg.io import checkpoint

    return bool(checkpoint.steps(directory))

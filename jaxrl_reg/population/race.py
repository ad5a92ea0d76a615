"""A sweep in which settings have to earn their updates: a rule decides after every segment who goes on.

Those that go on are gathered into small blocks of one compiled program, so a stopped member costs nothing from then on
and nothing is compiled again. Blocks hold members that are at the same segment: its index stays unbatched.

Over several processes settings are dealt out like cards, and stay where they are: processes exchange metrics, never
states, and the rule, which is pure, decides the same in each. The round ends when the slowest has trained its own.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import unknown
from jaxrl_reg.population import hosts, stopping
from jaxrl_reg.population import placement as placing
from jaxrl_reg.population.checkpointing import (
    Interrupted,
    agreed,
    identity_of,
    members_of,
    refuse_another,
    seed_numbers,
    stop_flag,
)
from jaxrl_reg.population.grid import setting_count
from jaxrl_reg.population.programs import (
    ALIVE,
    EVALUATION_CHUNK,
    Programs,
    compile_programs,
    going_on,
    smaller_chunks,
)
from jaxrl_reg.population.results import Result, warn, went_nan
from jaxrl_reg.types import PyTree, Run, as_float32

BLOCKS = 8  # the population is cut into at least so many: what padding may waste when few are left


@dataclasses.dataclass(frozen=True)
class Round:
    """What ``on_round`` is told. ``metrics`` are ``[H, S]`` arrays, NaN for settings that did not train."""

    trained: np.ndarray  # bool [H]
    done: np.ndarray  # int [H], segments of each setting, this one included
    segments: int
    updates: int  # of all members together, so far
    updates_per_second: float
    metrics: dict[str, np.ndarray]
    plan: placing.Plan


def race(
    run: Run,
    rule: stopping.Rule,
    *,
    seeds: int | Sequence[int],
    hypers: PyTree,
    data: PyTree = None,
    start: PyTree = None,
    score: str = "eval/return",
    placement: str = "auto",
    chunk: int | None = None,
    devices: Sequence[placing.Device] | None = None,
    directory: str | pathlib.Path | None = None,
    save_seconds: float = 30.0,
    resume: bool = False,
    on_plan: Callable[[placing.Plan], None] | None = None,
    on_round: Callable[[Round], None] | None = None,
    on_note: Callable[[str], None] = warn,
) -> Result:
    """``sweep`` with early stopping: the members that are trained get the numbers that ``sweep`` would give them.

    A member that goes NaN, memory that runs out and other processes are dealt with as in ``sweep``; after a halving
    of the chunk only the block that did not fit is done again.

    Args:
      run: made by a loop; its segments are the times at which settings can stop.
      rule: from ``stopping``; sees the mean over seeds of ``score`` for every setting. A setting with a member that
        went NaN counts as minus infinity.
      seeds, hypers, data, start, placement, directory, save_seconds, resume, on_plan, on_note: as for ``sweep``.
      score: the metric that is compared, higher is better.
      chunk: members side by side on one device, at most; halved until the compiled program fits into memory.
      devices: of this process, all of them by default.
      on_round: called after every round of segments.

    Returns:
      ``Result``, with NaN for every segment that a member did not train; ``segments_trained`` counts the others. The
      state of a stopped member is that in which it stopped.

    Raises:
      UserError: as ``sweep``, and for a metric that the run does not have.
      Interrupted: after Ctrl-C or SIGTERM, once the running round has ended and is saved.
    """
    numbers = seed_numbers(seeds)
    hypers = as_float32(hypers)
    settings, total = setting_count(hypers), run.segments
    processes = jax.process_count()
    share = -(-settings // processes)
    mine = jax.process_index() + processes * np.repeat(np.arange(share), numbers.size)  # settings; padding past the end
    seed_of, count = np.tile(np.arange(numbers.size), share), share * numbers.size
    everywhere = np.minimum(mine, settings - 1) * numbers.size + seed_of  # among the members of all processes
    side_by_side, placed_on = placing.choose(count, placement, chunk, list(devices or jax.local_devices()))
    side_by_side = min(side_by_side, max(1, math.ceil(count / len(placed_on) / BLOCKS)))
    keys = jax.vmap(jax.random.key)(jnp.asarray(numbers[seed_of]))
    members = keys, jax.tree.map(lambda leaf: leaf[mine % settings], hypers)
    data = placing.replicate(data, placed_on)
    home = placed_on[0]

    def block_of(index: np.ndarray, size: int) -> tuple[PyTree, np.ndarray]:
        """Keys and hyperparameters of these members, padded to ``size`` by the first of them."""
        padded = np.concatenate([index, np.full(size - index.size, index[0])])
        return placing.place(jax.tree.map(lambda leaf: leaf[padded], members), placed_on), padded

    size = side_by_side * len(placed_on)
    evaluated = len(placed_on) * min(EVALUATION_CHUNK, max(1, math.ceil(count / len(placed_on) / BLOCKS)))

    def for_blocks(chunk: int, evaluation_chunk: int) -> Programs:
        """For blocks of ``size`` and ``evaluated`` members, so many of each side by side."""
        block, examined = (block_of(np.arange(min(n, count)), n)[0] for n in (size, evaluated))
        return compile_programs(run, block, data, chunk, placed_on, count, evaluation_chunk, None, examined)

    programs = for_blocks(side_by_side, evaluated // len(placed_on))
    plan = dataclasses.replace(programs.plan, members=settings * numbers.size, devices=processes * len(placed_on))
    if on_plan is not None:
        on_plan(plan)
    names = sorted({*programs.metrics, *(run.judge.metrics if run.judge is not None else ())})
    if score not in names:
        raise unknown("metric", score, names)

    def blocks(index: np.ndarray, size: int) -> list[np.ndarray]:
        return [index[i : i + size] for i in range(0, index.size, size)]

    take = jax.jit(lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree))
    # Padding has an index past the end, which is dropped.
    put = jax.jit(
        lambda tree, index, new: jax.tree.map(lambda leaf, one: leaf.at[index].set(one, mode="drop"), tree, new),
        donate_argnums=0,
    )

    begun = None if start is None else jax.tree.map(lambda leaf: leaf[everywhere], members_of(start, hypers, numbers))

    def first_states() -> PyTree:
        made = []
        for index in blocks(np.arange(count), size):
            block, padded = block_of(index, size)
            if begun is not None:
                block = (*block, placing.place(jax.tree.map(lambda leaf, p=padded: leaf[p], begun), placed_on))
            states = programs.init(block, None)
            made.append(jax.tree.map(lambda leaf, n=index.size: jax.device_put(leaf, home)[:n], states))
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *made)

    def all_states() -> PyTree:
        """Those of all processes ``[H S, ...]``, setting by setting."""
        if hosts.alone():
            return states
        dealt = np.arange(processes * count).reshape(processes, share, -1)
        order = dealt.swapaxes(0, 1).ravel()[: settings * numbers.size]
        return jax.tree.map(lambda leaf: leaf[order], hosts.fetch(states))

    identity = identity_of(run, numbers, hypers, score=score)
    states, done, rounds = None, np.zeros(settings, int), 0
    history = {name: np.full((settings * numbers.size, total), np.nan, np.float32) for name in names}
    if resume and directory is not None:
        saved_states = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((settings * numbers.size, *leaf.shape[1:]), leaf.dtype),
            jax.eval_shape(jax.vmap(run.init), *members),
        )
        kept = _restore(directory, identity, saved_states, history)
        if kept is not None:
            saved_states, saved_history, done, rounds = kept
            states, history = jax.tree.map(lambda leaf: leaf[everywhere], saved_states), history | saved_history
    states = jax.device_put(first_states() if states is None else states, home)

    def save() -> None:
        from jaxrl_reg.io import checkpoint

        if directory is not None:
            info = {**identity, "metrics": names, "done": done.tolist(), "segment": rounds}
            tree = all_states(), [history[name] for name in names]
            if hosts.first():
                checkpoint.save(directory, rounds, tree, info)

    def attempt(step: Callable[[], PyTree], segment: int) -> PyTree:
        """What ``step`` returns, in smaller chunks where memory runs out."""
        nonlocal programs
        while True:
            try:
                return jax.block_until_ready(step())
            except jax.errors.JaxRuntimeError as error:
                programs = for_blocks(*smaller_chunks(programs, error, count, segment + 1))
                on_note(going_on(programs, segment + 1))

    def one_segment(chosen: np.ndarray, segment: int, found: dict[str, np.ndarray]) -> None:
        """Train and evaluate these members of this process; their metrics go into ``found``, ``[count]`` each."""
        nonlocal states
        index = placing.replicate(jnp.int32(segment), placed_on)
        alive = history[ALIVE][everywhere, segment - 1] if segment else np.ones(count, np.float32)

        def record(these: np.ndarray, metrics: PyTree) -> None:
            for name, value in jax.device_get(metrics).items():
                found[name][these] = np.asarray(value)[: these.size]

        def train(these: np.ndarray) -> PyTree:
            block, padded = block_of(these, size)
            lives = placing.place(alive[padded], placed_on)
            after, metrics = programs.train(placing.place(take(states, padded), placed_on), lives, *block, index, data)
            return jax.device_put(after, home), metrics

        def evaluate(these: np.ndarray) -> PyTree:
            assert programs.evaluate is not None
            block, padded = block_of(these, evaluated)
            return programs.evaluate((placing.place(take(states, padded), placed_on), *block), index)

        for these in blocks(chosen, size):
            after, metrics = attempt(lambda these=these: train(these), segment)
            states = put(states, np.concatenate([these, np.full(size - these.size, count)]), after)
            record(these, metrics)
        if programs.evaluate is not None:
            for these in blocks(chosen, evaluated):
                record(these, attempt(lambda these=these: evaluate(these), segment))
        if run.judge is not None and chosen.size:
            told = take(states, chosen), *jax.tree.map(lambda leaf: leaf[chosen], members)
            record(chosen, run.judge.measure(told[0], segment, *told[1:]))

    def exchanged(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What every process has found, ``[H S]`` each."""
        told = hosts.gather(np.stack([found[name] for name in names]))
        told = told.reshape(processes, len(names), share, numbers.size).transpose(1, 2, 0, 3)  # as they were dealt
        return dict(zip(names, told.reshape(len(names), -1)[:, : settings * numbers.size], strict=True))

    described = stopping.features(hypers)
    saved = time.monotonic()
    with stop_flag() as stop:
        while True:
            scores = history[score].reshape(settings, -1, total).astype(float).mean(axis=1)
            scores = np.where((np.arange(total) < done[:, None]) & ~np.isfinite(scores), -np.inf, scores)
            asked = rule(stopping.Curves(scores, done.copy(), described)) & (done < total)
            if not asked.any():
                break
            started = time.monotonic()
            found = {name: np.full(count, np.nan, np.float32) for name in names}
            for segment in np.unique(done[asked]):
                here = np.append(asked & (done == segment), np.zeros(processes, bool))[mine]
                one_segment(np.flatnonzero(here), segment, found)
            latest = exchanged(found)
            trained, at = np.repeat(asked, numbers.size), np.repeat(done, numbers.size)
            dead = trained & (latest[ALIVE] == 0)
            for member in np.flatnonzero(dead):
                if at[member] == 0 or history[ALIVE][member, at[member] - 1] > 0:
                    on_note(went_nan(member, at[member] + 1, numbers, hypers))
            for name, values in latest.items():
                if name != ALIVE:
                    values[dead] = np.nan
                history[name][trained, at[trained]] = values[trained]
            now, rounds, done = time.monotonic(), rounds + 1, done + asked
            due, stopping_now = agreed(now - saved >= save_seconds, stop.is_set())
            if stopping_now or due:
                save()
                saved = now
            if on_round is not None:
                each = run.updates_per_segment * numbers.size
                speed = int(asked.sum()) * each / max(now - started, 1e-9)
                metrics = {name: values.reshape(settings, -1) for name, values in latest.items()}
                on_round(Round(asked, done.copy(), total, int(done.sum()) * each, speed, metrics, plan))
            if stopping_now:
                raise Interrupted(f"stopped after round {rounds}")
        save()

    def by_setting(leaf: Any) -> Any:
        return leaf.reshape(settings, numbers.size, *leaf.shape[1:])

    return Result(
        metrics={name: by_setting(rows) for name, rows in history.items()},
        state=jax.tree.map(by_setting, jax.device_get(all_states())),
        hypers=hypers,
        seeds=numbers,
        plan=plan,
        updates_per_segment=run.updates_per_segment,
    )


def _restore(
    directory: str | pathlib.Path, identity: dict[str, Any], states: PyTree, history: dict[str, np.ndarray]
) -> tuple[PyTree, dict[str, np.ndarray], np.ndarray, int] | None:
    """States and history of all members, finished segments of each setting and rounds; None without a checkpoint."""
    from jaxrl_reg.io import checkpoint

    def like(info: dict[str, Any]) -> PyTree:
        refuse_another(directory, identity, info)
        rows = next(iter(history.values())).shape
        return states, [jax.ShapeDtypeStruct(rows, jnp.float32) for _ in info["metrics"]]

    found = checkpoint.restore(directory, like)
    if found is None:
        return None
    _, (states, values), info = found
    history = {name: np.array(value) for name, value in zip(info["metrics"], values, strict=True)}
    return states, history, np.asarray(info["done"], int), info["segment"]

"""A sweep in which settings have to earn their updates: a rule decides after every segment who goes on.

Those that go on are gathered into small blocks of one compiled program, so a stopped member costs nothing from then on
and nothing is compiled again. Blocks hold members that are at the same segment: its index stays unbatched.
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

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.population import hosts, stopping
from jaxrl_reg.population import placement as placing
from jaxrl_reg.population.grid import setting_count
from jaxrl_reg.population.sweep import (
    ALIVE,
    EVALUATION_CHUNK,
    SAFE_FRACTION,
    Interrupted,
    Result,
    _compile,
    _like,
    _name,
    _stop_flag,
    _too_large,
    _warn,
)
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
    score: str = "eval/return",
    placement: str = "auto",
    chunk: int | None = None,
    devices: Sequence[placing.Device] | None = None,
    directory: str | pathlib.Path | None = None,
    save_seconds: float = 30.0,
    resume: bool = False,
    on_plan: Callable[[placing.Plan], None] | None = None,
    on_round: Callable[[Round], None] | None = None,
    on_note: Callable[[str], None] = _warn,
) -> Result:
    """``sweep`` with early stopping: the members that are trained get the numbers that ``sweep`` would give them.

    Args:
      run: made by a loop; its segments are the times at which settings can stop.
      rule: from ``stopping``; sees the mean over seeds of ``score`` for every setting. A setting with a member that
        went NaN counts as minus infinity.
      seeds, hypers, data, placement, devices, directory, save_seconds, resume, on_plan, on_note: as for ``sweep``.
      score: the metric that is compared, higher is better.
      chunk: members side by side on one device, at most.
      on_round: called after every round of segments.

    Returns:
      ``Result``, with NaN for every segment that a member did not train; ``segments_trained`` counts the others. The
      state of a stopped member is that in which it stopped.

    Raises:
      UserError: as ``sweep``, and for a metric that the run does not have.
      Interrupted: after Ctrl-C or SIGTERM, once the running round has ended and is saved.
    """
    numbers = np.arange(seeds) if isinstance(seeds, int) else np.asarray(seeds)
    if numbers.ndim != 1 or numbers.size == 0 or np.unique(numbers).size != numbers.size:
        raise UserError(f"seeds must be a positive number or distinct integers, got {numbers.tolist()}")
    if not hosts.alone():
        raise UserError("early stopping moves members between devices and runs in one process only; use sweep")
    hypers = as_float32(hypers)
    settings, total = setting_count(hypers), run.segments
    count = settings * numbers.size
    side_by_side, placed_on = placing.choose(count, placement, chunk, list(devices or jax.local_devices()))
    side_by_side = min(side_by_side, max(1, math.ceil(count / len(placed_on) / BLOCKS)))
    setting_of, seed_of = np.divmod(np.arange(count), numbers.size)
    keys = jax.vmap(jax.random.key)(jnp.asarray(numbers[seed_of]))
    members = keys, jax.tree.map(lambda leaf: leaf[setting_of], hypers)
    data = placing.replicate(data, placed_on)
    home = placed_on[0]

    def block_of(index: np.ndarray, size: int) -> tuple[PyTree, np.ndarray]:
        """Keys and hyperparameters of these members, padded to ``size`` by the first of them."""
        padded = np.concatenate([index, np.full(size - index.size, index[0])])
        return placing.place(jax.tree.map(lambda leaf: leaf[padded], members), placed_on), padded

    size = side_by_side * len(placed_on)
    block, _ = block_of(np.arange(min(size, count)), size)
    programs = _compile(dataclasses.replace(run, evaluate=None), block, data, side_by_side, placed_on, size)
    evaluated = len(placed_on) * min(EVALUATION_CHUNK, max(1, math.ceil(count / len(placed_on) / BLOCKS)))
    evaluate, begun = None, time.perf_counter()
    if run.evaluate is not None:
        evaluation = run.evaluate
        examined, _ = block_of(np.arange(min(evaluated, count)), evaluated)
        shapes = _like(jax.eval_shape(jax.vmap(run.init), *examined), examined[0])
        evaluate = jax.jit(
            placing.over_members(
                lambda member, index: evaluation(member[0], index, member[1], member[2]),
                evaluated // len(placed_on),
                placed_on,
            )
        )
        evaluate = evaluate.lower((shapes, *examined), placing.replicate(jnp.int32(0), placed_on)).compile()
    plan = dataclasses.replace(
        programs.plan,
        members=count,
        compilations=programs.plan.compilations + (evaluate is not None),
        compile_seconds=programs.plan.compile_seconds + time.perf_counter() - begun,
    )
    if plan.total_bytes > SAFE_FRACTION * placing.memory_limit(home):
        raise _too_large(plan, placing.memory_limit(home))
    if on_plan is not None:
        on_plan(plan)

    def blocks(index: np.ndarray, size: int) -> list[np.ndarray]:
        return [index[i : i + size] for i in range(0, index.size, size)]

    take = jax.jit(lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree))
    # Padding has an index past the end, which is dropped.
    put = jax.jit(
        lambda tree, index, new: jax.tree.map(lambda leaf, one: leaf.at[index].set(one, mode="drop"), tree, new),
        donate_argnums=0,
    )

    def first_states() -> PyTree:
        made = [
            jax.tree.map(
                lambda leaf, n=index.size: jax.device_put(leaf, home)[:n],
                programs.init(block_of(index, size)[0], None),
            )
            for index in blocks(np.arange(count), size)
        ]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *made)

    identity = {
        "seeds": numbers.tolist(),
        "hypers": {str(i): np.asarray(leaf).tolist() for i, leaf in enumerate(jax.tree.leaves(hypers))},
        "segments": total,
        "updates_per_segment": run.updates_per_segment,
        "score": score,
    }
    states, history, done, rounds = None, {}, np.zeros(settings, int), 0
    if resume and directory is not None:
        shapes = jax.eval_shape(jax.vmap(run.init), *members)
        states, history, done, rounds = _restore(directory, identity, shapes, count, total, done)
    if states is None:
        states = first_states()
    states = jax.device_put(states, home)

    def save() -> None:
        from jaxrl_reg.io import checkpoint

        if directory is not None:
            names = sorted(history)
            info = {**identity, "metrics": names, "done": done.tolist(), "segment": rounds}
            checkpoint.save(directory, rounds, (states, [history[name] for name in names]), info)

    def record(index: np.ndarray, segment: int, metrics: PyTree) -> None:
        for name, value in jax.device_get(metrics).items():
            rows = history.setdefault(name, np.full((count, total), np.nan, np.float32))
            rows[index, segment] = np.asarray(value)[: index.size]

    described = stopping.features(hypers)
    saved = time.monotonic()
    with _stop_flag() as stop:
        while True:
            scores = np.full((settings, total), np.nan)
            if history:
                if score not in history:
                    raise unknown("metric", score, history)
                scores = history[score].reshape(settings, -1, total).mean(axis=1)
                begun = np.arange(total) < done[:, None]
                scores = np.where(begun & ~np.isfinite(scores), -np.inf, scores)
            asked = rule(stopping.Curves(scores, done.copy(), described)) & (done < total)
            if not asked.any():
                break
            started = time.monotonic()
            for segment in np.unique(done[asked]):
                chosen = np.flatnonzero((asked & (done == segment))[setting_of])
                index = placing.replicate(jnp.int32(segment), placed_on)
                for these in blocks(chosen, size):
                    before = history[ALIVE][these, segment - 1] if segment else np.ones(these.size, np.float32)
                    block, padded = block_of(these, size)
                    lives = placing.place(np.resize(before, size), placed_on)
                    after, metrics = programs.train(
                        placing.place(take(states, padded), placed_on), lives, *block, index, data
                    )
                    into = np.where(np.arange(size) < these.size, padded, count)
                    states = put(states, into, jax.device_put(after, home))
                    record(these, segment, metrics)
                    alive = history[ALIVE][these, segment]
                    for member in these[(alive == 0) & (before > 0)]:
                        name = _name(member, numbers, hypers)
                        on_note(f"{name} went NaN in segment {segment + 1} and is frozen before it")
                if evaluate is not None:
                    for these in blocks(chosen, evaluated):
                        block, padded = block_of(these, evaluated)
                        now = placing.place(take(states, padded), placed_on)
                        record(these, segment, evaluate((now, *block), index))
                dead = chosen[history[ALIVE][chosen, segment] == 0]
                for name, rows in history.items():
                    if name != ALIVE:
                        rows[dead, segment] = np.nan
            now, rounds = time.monotonic(), rounds + 1
            done = done + asked
            stopping_now = stop.is_set()
            if stopping_now or now - saved >= save_seconds:
                save()
                saved = now
            if on_round is not None:
                last = np.where(asked, done - 1, 0)[setting_of]
                latest = {
                    name: np.where(asked[setting_of], rows[np.arange(count), last], np.nan).reshape(settings, -1)
                    for name, rows in history.items()
                }
                each = run.updates_per_segment * numbers.size
                speed = int(asked.sum()) * each / max(now - started, 1e-9)
                on_round(Round(asked, done.copy(), total, int(done.sum()) * each, speed, latest, plan))
            if stopping_now:
                raise Interrupted(f"stopped after round {rounds}")
        save()

    def by_setting(leaf: Any) -> Any:
        return leaf.reshape(settings, numbers.size, *leaf.shape[1:])

    return Result(
        metrics={name: by_setting(rows) for name, rows in history.items()},
        state=jax.tree.map(by_setting, jax.device_get(states)),
        hypers=hypers,
        seeds=numbers,
        plan=plan,
        updates_per_segment=run.updates_per_segment,
    )


def _restore(
    directory: str | pathlib.Path, identity: dict[str, Any], states: PyTree, count: int, total: int, done: np.ndarray
) -> tuple[PyTree, dict[str, np.ndarray], np.ndarray, int]:
    from jaxrl_reg.io import checkpoint

    def like(info: dict[str, Any]) -> PyTree:
        for name, value in identity.items():
            if info.get(name) != value:
                raise UserError(
                    f"the checkpoint in {directory} belongs to another sweep: {name} differ; use a new directory"
                )
        return states, [jax.ShapeDtypeStruct((count, total), jnp.float32) for _ in info["metrics"]]

    found = checkpoint.restore(directory, like)
    if found is None:
        return None, {}, done, 0
    _, (states, values), info = found
    history = {name: np.array(value) for name, value in zip(info["metrics"], values, strict=True)}
    return states, history, np.asarray(info["done"], int), info["segment"]

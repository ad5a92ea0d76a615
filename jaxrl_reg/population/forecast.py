"""What a sweep would take on an accelerator that is not there: its programs compiled for it, and counted."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reg.population import kernels, targets
from jaxrl_reg.population import placement as placing
from jaxrl_reg.population.grid import setting_count
from jaxrl_reg.population.programs import ALIVE, EVALUATION_CHUNK, SAFE_FRACTION, out_of_memory, unless_failed
from jaxrl_reg.types import PyTree, Run, as_float32


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What one program takes on one device of a target. Counts are per ``unit`` of all members side by side: an update,
    or an iteration of acting and learning where a run is made of those.

    ``error`` is one line where training does not compile; then only sizes are known. ``evaluation_error`` likewise;
    ``evaluates`` is None where nothing is evaluated or evaluation was not asked for. ``trains`` is False of a run that
    gives every state back as it got it, such as a rival that is a warm start: then there is no program of training.
    """

    target: str
    members: int
    chunk: int  # members side by side
    fit: int  # members side by side that memory has room for
    state_bytes: int  # per member
    temporary_bytes: int  # per member
    data_bytes: int  # once
    launches: float
    branches: float
    copies: float
    unknown_loops: int
    flops: float  # needed, of matrix products
    used_flops: float | None  # by the compiled program; None where its text does not tell
    compile_seconds: float
    unit: str = "update"
    error: str = ""
    evaluates: bool | None = None
    evaluation_error: str = ""
    trains: bool = True

    @property
    def seconds_per_update(self) -> float:
        """The estimate: the slower of launching and computing."""
        return max(self.launch_seconds, self.compute_seconds)

    @property
    def launch_seconds(self) -> float:
        """At least, of one update of all members side by side."""
        one = targets.target(self.target)
        return (self.launches + self.copies) * one.launch + self.branches * one.branch

    @property
    def compute_seconds(self) -> float:
        """Products at a part of the published rate, or the state read and written and temporaries written and read."""
        one = targets.target(self.target)
        traffic = 2.0 * self.chunk * (self.state_bytes + self.temporary_bytes)
        return max((self.used_flops or self.flops) / (targets.REACHED * one.flops), traffic / one.bandwidth)

    @property
    def bound(self) -> str:
        """By what: ``launches`` or ``compute``."""
        return "launches" if self.launch_seconds >= self.compute_seconds else "compute"

    @property
    def updates_per_second(self) -> float:
        """The estimate, in units, of all members side by side together; 0 where nothing trains or compiles."""
        return self.chunk / self.seconds_per_update if self.trains and not self.error else 0.0

    def lines(self) -> list[str]:
        """For people, a line each."""
        per = placing.megabytes
        one = targets.target(self.target)
        size = (
            f"per member: state {per(self.state_bytes)}, temporaries {per(self.temporary_bytes)}; "
            f"data {per(self.data_bytes)} once"
        )
        if self.error:
            return [f"training does not compile for {one.title}: {self.error}", size]
        if not self.trains:
            return ["no program of training: its updates leave everything as it is", size, *self._evaluation()]
        waste = "" if not self.used_flops or not self.flops else f", {self.used_flops / self.flops:.2f} of them done"
        found = [
            f"training compiles for {one.title}, in {self.compile_seconds:.0f} s here",
            f"{self.members} members, {self.chunk} side by side; {self.fit:,} fit into "
            f"{SAFE_FRACTION:.0%} of {per(one.memory)}",
            size,
            f"per {self.unit} of {self.chunk}: {self.launches:.4g} launches, {self.branches:.3g} branches, "
            f"{self.copies:.3g} copies; {self.flops / 1e9:.3g} GFLOP needed{waste}",
            f"estimate: {self.updates_per_second:,.0f} {self.unit}s per second, bound by {self.bound} "
            f"(launches {1e6 * self.launch_seconds:.0f} us, compute {1e6 * self.compute_seconds:.0f} us)",
        ]
        if self.unknown_loops:
            found.append(
                f"{self.unknown_loops} loops inside have a length that the compiler does not know; counted once"
            )
        return [*found, *self._evaluation()]

    def _evaluation(self) -> list[str]:
        if self.evaluates is None:
            return []
        return [f"evaluation {'compiles too' if self.evaluates else f'does not compile: {self.evaluation_error}'}"]


def constants(target: str) -> str:
    """What an estimate is made of, with its source, in one line."""
    one = targets.target(target)
    return (
        f"{one.title}: {one.memory / 2**30:.0f} GiB, {one.bandwidth / 1e12:.3g} TB/s, {one.flops / 1e12:.4g} TFLOP/s "
        f"of matrix products ({one.source}); assumed: {targets.REACHED:.0%} of that rate, {1e6 * one.launch:g} us "
        f"per launch, {1e6 * one.branch:g} us per branch"
    )


def needed_flops(jaxpr: Any) -> tuple[float, bool]:
    """Floating-point operations of the matrix products of a program, and whether every loop's length is known."""
    total, known = 0.0, True
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (left, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in left)
            continue
        inside = [needed_flops(sub) for sub in _inner(equation)]
        if not inside:
            continue
        if equation.primitive.name == "cond":
            flops = max(one for one, _ in inside)
        else:
            flops = sum(one for one, _ in inside) * equation.params.get("length", 1)
        total += flops
        known = known and all(sure for _, sure in inside) and (equation.primitive.name != "while" or flops == 0.0)
    return total, known


def main_turns(jaxpr: Any) -> int | None:
    """Turns of the outermost loop of known length that computes most; a TPU's compiler does not write them down."""
    most, turns = 0.0, None
    for equation in jaxpr.eqns:
        for sub in _inner(equation):
            length, loops = equation.params.get("length"), equation.primitive.name == "while"
            flops, found = needed_flops(sub)[0] * (length or 1), length or (None if loops else main_turns(sub))
            if flops > most:
                most, turns = flops, found
    return turns


def _inner(equation: Any) -> list[Any]:
    found = []
    for value in equation.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                found.append(one)
    return found


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"[:300]


def plan_for(
    run: Run,
    target: str,
    *,
    seeds: int | Sequence[int],
    hypers: PyTree,
    data: PyTree = None,
    chunk: int | None = None,
    evaluation: bool = True,
    start: PyTree = None,
) -> Forecast:
    """What ``sweep`` would take on one device of ``target``, without having one: members go side by side.

    It holds for ``evolve`` too, whose members train as those of a sweep and are exchanged between segments.

    Args:
      run, seeds, hypers, data, start: as for ``sweep``; of ``data`` and ``start`` the shapes are enough.
      target: a name in ``targets.TARGETS``.
      chunk: members side by side; as in a sweep all of them, halved until the compiled program fits.
      evaluation: compile the evaluation as well.

    Raises:
      UserError: for an unknown target, one whose compiler is not installed, or settings that are not stacked.
    """
    device, one = targets.device(target), targets.target(target)
    hypers = as_float32(hypers)
    members = setting_count(hypers) * (seeds if isinstance(seeds, int) else len(seeds))
    hyper = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), hypers)
    key = jax.eval_shape(lambda: jax.random.key(0))
    begun = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[2:], leaf.dtype), start)
    state = jax.eval_shape(run.init, key, hyper, *(() if start is None else (begun,)))
    state_bytes, data_bytes = placing.tree_bytes(state), placing.tree_bytes(data)
    room = SAFE_FRACTION * one.memory - data_bytes
    chunk = min(members, members if chunk is None else chunk)

    def many(tree: PyTree, size: int) -> PyTree:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype), tree)

    def compiled(size: int) -> Any:
        def train(states, keys, hypers, alive, index, data):
            def once(state, key, hyper, alive):
                after, metrics = run.train(state, index, key, hyper, data)
                state, alive = unless_failed(state, after, alive)
                return state, {**metrics, ALIVE: alive}

            return (once if size == 1 else jax.vmap(once))(states, keys, hypers, alive)

        member = state, key, hyper, jax.ShapeDtypeStruct((), jnp.float32)
        shapes = member if size == 1 else many(member, size)
        return targets.compile_for(device, one.platform, train, *shapes, index, data)

    clock, index = time.perf_counter(), jnp.int32(0)
    jaxpr = jax.make_jaxpr(run.train)(state, index, key, hyper, data)
    flops, known = needed_flops(jaxpr.jaxpr)
    each = flops / run.updates_per_segment if known else flops
    sizes: dict[str, Any] = {"target": target, "members": members, "state_bytes": state_bytes, "data_bytes": data_bytes}
    counts = dict.fromkeys(("fit", "temporary_bytes", "launches", "branches", "copies", "unknown_loops"), 0)

    def judged() -> dict[str, Any]:
        if not evaluation or run.evaluate is None:
            return {}
        return _evaluation(run, device, one, state, key, hyper, min(members, EVALUATION_CHUNK))

    leaves = len(jax.tree.leaves(state))
    if jaxpr.jaxpr.outvars[:leaves] == jaxpr.jaxpr.invars[:leaves]:
        return Forecast(
            **sizes, **counts, chunk=chunk, flops=0.0, used_flops=None, compile_seconds=0.0, trains=False, **judged()
        )
    program, chunk, error = _fitting(compiled, chunk, room, state_bytes)
    if program is None:
        seconds = time.perf_counter() - clock
        return Forecast(
            **sizes, **counts, chunk=chunk, flops=each * chunk, used_flops=None, compile_seconds=seconds, error=error
        )
    temporaries = _temporaries(program)
    counted = kernels.main_loop(program.as_text())
    turns = main_turns(jaxpr.jaxpr) if counted.turns is None else counted.turns
    whole = turns is not None and turns > 0 and run.updates_per_segment % turns == 0
    group = run.updates_per_segment // turns if turns is not None and whole else 1  # updates in one turn
    used = counted.flops / group if one.platform == "cuda" and counted.flops else None
    per_member = 2 * state_bytes + temporaries / chunk
    seconds = time.perf_counter() - clock
    return Forecast(
        **sizes,
        chunk=chunk,
        fit=max(0, int(room / per_member)),
        temporary_bytes=temporaries // chunk,
        launches=counted.launches / group,
        branches=counted.branches / group,
        copies=counted.copies / group,
        unknown_loops=counted.unknown,
        flops=each * chunk,
        used_flops=used,
        compile_seconds=seconds,
        unit="update" if whole else "iteration",
        **judged(),
    )


def _fitting(compiled: Callable[[int], Any], chunk: int, room: float, state_bytes: int) -> tuple[Any, int, str]:
    """The program of the most members side by side that ``room`` holds, and their number; None and what the compiler
    says where it makes none."""
    while True:
        try:
            program = compiled(chunk)
            if chunk == 1 or 2 * chunk * state_bytes + _temporaries(program) <= room:
                return program, chunk, ""
        except Exception as error:  # whatever the compiler says
            if chunk == 1 or not out_of_memory(error):  # a TPU's plans the memory itself
                return None, chunk, _first_line(error)
        chunk = -(-chunk // 2)


def _temporaries(program: Any) -> int:
    return int(program.memory_analysis().temp_size_in_bytes)


def _evaluation(
    run: Run, device: Any, one: targets.Target, state: PyTree, key: Any, hyper: PyTree, size: int
) -> dict[str, Any]:
    """``Forecast``'s fields on whether the evaluation of ``size`` members compiles."""
    evaluate = run.evaluate
    assert evaluate is not None

    def all_of_them(states, keys, hypers, index):
        return jax.vmap(lambda *member: evaluate(member[0], index, *member[1:]))(states, keys, hypers)

    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype), (state, key, hyper))
    try:
        targets.compile_for(device, one.platform, all_of_them, *shapes, jnp.int32(0), donated=())
    except Exception as error:  # whatever the compiler says
        return {"evaluates": False, "evaluation_error": _first_line(error)}
    return {"evaluates": True}

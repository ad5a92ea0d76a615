"""The rules, one function each: ``check(subject)`` raises ``Broken`` with one line, or returns.

``CHECKS`` lists them in the order in which they make sense; one that cannot run because of an earlier fault says so.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.contract import subject as _subject
from jaxrl_reg.contract import tokens, transitions
from jaxrl_reg.contract.subject import BATCH, SEGMENTS, AgentError, Broken, Subject, lane, named, on_host
from jaxrl_reg.types import Paper, PyTree

TOLERANCE = 1e-5  # of a member against its single run after 20 updates (on-policy 4), absolute and relative
PROGRAM_BYTES = 1_500_000  # an agent with 160 arrays of parameters, which is a lot, has 1.3 million
LEARNING_SEGMENTS = 10
LOSSES = ("critic_loss", "value_loss", "actor_loss")
CONCRETE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
)


class Check(NamedTuple):
    """``needs`` names the checks without which this one has nothing to look at."""

    run: Callable[[Subject], None]
    needs: tuple[str, ...]


CHECKS: dict[str, Check] = {}


def _check(*needs: str) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    def add(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        CHECKS[function.__name__] = Check(function, needs)
        return function

    return add


@_check()
def documented(subject: Subject) -> None:
    """The module says what it is: docstring, complete ``PAPER``, and a default and a help text for every setting."""
    module = subject.module
    if not (module.__doc__ or "").strip():
        raise Broken("the module has no docstring; say what is learnt, in words, and what each metric means")
    if subject.agent.kind != module.KIND:
        raise Broken(f"KIND is {module.KIND!r}, but make gives an agent of kind {subject.agent.kind!r}; pass kind=KIND")
    paper = module.PAPER
    if not isinstance(paper, Paper):
        raise Broken(f"PAPER is a {type(paper).__name__}; it must be a jaxrl_reg.types.Paper")
    for field in ("title", "authors", "url"):
        if not getattr(paper, field).strip():
            raise Broken(f"PAPER.{field} is empty")
    if not paper.url.startswith(("https://", "http://")):
        raise Broken(f"PAPER.url is {paper.url!r}; give a link")
    if not 1900 < paper.year < 2100:
        raise Broken(f"PAPER.year is {paper.year}")
    for cls in (module.Config, module.Hyper):
        for field in dataclasses.fields(cls):
            label = f"{cls.__name__}.{field.name}"
            if not field.metadata.get("help", "").strip():
                raise Broken(f"{label} has no help text; declare it with setting(default, help)")
            if field.default is dataclasses.MISSING:
                raise Broken(f"{label} has no default; declare it with setting(default, help)")
            if cls is module.Hyper and not isinstance(field.default, float):
                raise Broken(f"{label} = {field.default!r} is not a float; what cannot be traced belongs to Config")
    try:
        hash(subject.config)
    except TypeError as error:
        raise Broken("Config cannot be hashed; make it a frozen dataclass of numbers, strings and tuples") from error


@_check()
def jit(subject: Subject) -> None:
    """``init``, ``update`` and ``act`` can be traced with every argument abstract, ``explore`` apart."""
    try:
        _ = subject.traces
    except AgentError as failed:
        place = _subject.where(failed.error, subject.module)
        if isinstance(failed.error, CONCRETE):
            raise Broken(
                f"{failed.label}: a Python `if`, loop, cast or NumPy call on a traced value{place}; use jnp.where, "
                "jax.lax.cond or jnp, or move the setting to Config"
            ) from failed
        kind, text = type(failed.error).__name__, _subject.first_line(failed.error)
        raise Broken(f"{failed.label} raises {kind}{place}: {text}") from failed


@_check("jit")
def state(subject: Subject) -> None:
    """``update`` gives back the state as it got it: structure, shapes, strong dtypes; metrics are scalars."""
    initial, updated = subject.traces["init"], subject.traces["update"]
    before = named(initial.out)
    for (path, leaf), kind, weak in zip(before.items(), initial.kinds, initial.weak, strict=True):
        if kind in (bool, int, float, complex):
            raise Broken(f"init: State{path} is a Python {kind.__name__}; make it a jnp array with a dtype")
        if weak:
            raise Broken(f"init: State{path} is weakly typed and costs a second compilation; give the array its dtype")
        if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype != jnp.float32:
            raise Broken(f"init: State{path} is {leaf.dtype}; states are float32")
    state_out, metrics = updated.out
    if jax.tree.structure(state_out) != jax.tree.structure(initial.out):
        raise Broken("update: the new state has another tree structure than the state from init; keep every field")
    after = named(state_out)
    for (path, leaf), weak in zip(after.items(), updated.weak, strict=False):
        if (leaf.shape, leaf.dtype) != (before[path].shape, before[path].dtype):
            raise Broken(
                f"update: State{path} goes in as {before[path].dtype}{list(before[path].shape)} and comes out as "
                f"{leaf.dtype}{list(leaf.shape)}; a scan needs them equal"
            )
        if weak:
            raise Broken(f"update: State{path} comes out weakly typed and would be compiled again; give it its dtype")
    if not isinstance(metrics, dict):
        raise Broken(f"update: metrics are a {type(metrics).__name__}; return a dict of scalars")
    for name, leaf in metrics.items():
        if getattr(leaf, "shape", None) != ():
            raise Broken(f"update: metric {name!r} is not a scalar; reduce it over the batch")


@_check("jit")
def purity(subject: Subject) -> None:
    """Tracing twice gives the same program, and no tracer survives: nothing is read or kept outside the arguments."""
    functions, initial = subject.functions(), subject.traces["init"].out
    with _subject.new_tracers() as kept:
        again = {label: _subject.trace(f, *subject.arguments(name, initial)) for label, (name, f) in functions.items()}
        if total := kept():
            for label, (name, function) in functions.items():
                _subject.trace(function, *subject.arguments(name, initial))
                if kept() > total:
                    raise Broken(
                        f"{label}: a traced value is kept after the call (in a global, a closure, an attribute); "
                        "return it instead"
                    )
    for label, once in subject.traces.items():
        same_text = _text(once.jaxpr) == _text(again[label].jaxpr)
        if not same_text or not _equal_constants(once.jaxpr.consts, again[label].jaxpr.consts):
            raise Broken(
                f"{label}: two traces give two programs, so it reads something that changes (a counter, random "
                "numbers of NumPy or Python); pass it in the state, or draw it from the key"
            )


def _text(jaxpr: Any) -> str:
    return re.sub(r"0x[0-9a-f]+", "", str(jaxpr))  # addresses of Python functions


def _equal_constants(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(first, second, strict=True)
    )


@_check("jit")
def keys(subject: Subject) -> None:
    """Every random key is used once."""
    for label, error in subject.reused_keys.items():
        raise Broken(
            f"{label}: a random key is used twice{_subject.where(error, subject.module)}; give each use its own with "
            "jax.random.split or fold_in"
        )


@_check("state")
def vmap(subject: Subject) -> None:
    """The whole training vmaps over keys and hyperparameters."""
    jax.block_until_ready(subject.history)


@_check("vmap")
def branches(subject: Subject) -> None:
    """Delayed updates stay branches in a population, because they look at ``step``, which is not batched."""
    keys, hypers = subject.stacked
    index, member = jnp.int32(0), jax.eval_shape(lane, (subject.initial, keys, hypers), 0)
    all_of_them = subject.train_all.trace(subject.initial, index, keys, hypers, subject.data)  # type: ignore[attr-defined]
    alone = subject.train.trace(member[0], index, *member[1:], subject.data)  # type: ignore[attr-defined]
    found, kept = (_subject.equations(traced.jaxpr.jaxpr, "cond") for traced in (alone, all_of_them))
    if kept < found:
        raise Broken(
            f"{found - kept} of {found} jax.lax.cond compute both sides under vmap, because their condition depends on "
            "the member; take it from `step`, not from a counter in the state, or use jnp.where if that is meant"
        )


@_check("vmap")
def members(subject: Subject) -> None:
    """A member of a population equals its single run to 1e-5, absolute and relative, after 20 updates (on-policy 4)."""
    initial, (states, metrics) = on_host(subject.initial), map(on_host, subject.history[0])
    for index, member in enumerate(subject.members[:4]):
        key = jax.random.key(member.seed)
        alone = subject.start(key, member.hyper)
        _compare(alone, initial, index, f"init of {member.label}")
        alone, alone_metrics = subject.train(alone, jnp.int32(0), key, member.hyper, subject.data)
        _compare(alone, states, index, f"{subject.updates} updates of {member.label}")
        _compare(alone_metrics, metrics, index, f"metrics of {member.label}")


@_check("vmap")
def cycle(subject: Subject) -> None:
    """An agent with ``Agent.cycle``: a segment of whole cycles ends where one update after the other does, to 1e-5."""
    period = len(subject.agent.cycle)
    if period == 0:
        return
    if period == 1:
        raise Broken("Agent.cycle has one function; that is update itself, leave it empty")
    count = period * max(1, subject.updates // period)
    key, hyper = subject.key, subject.hyper
    if count == subject.updates:  # then the program that other checks run is one of cycles
        cycles = subject.train(subject.start(key, hyper), jnp.int32(0), key, hyper, subject.data)
    else:
        cycles = subject.after(subject.agent, count)
    ends = on_host(cycles)
    for path, expected in on_host(subject.after(subject.agent._replace(cycle=()), count)).items():
        found = ends[path]
        if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            gap = np.max(np.abs(found.astype(np.float64) - expected))
            raise Broken(
                f"{path} differs by {gap:.2g} between {count} updates in cycles and one after the other; "
                f"cycle[i] is update at steps i, i + {period}, ..."
            )


def _compare(single: PyTree, members: dict[str, np.ndarray], index: int, label: str) -> None:
    for path, expected in on_host(single).items():
        found = members[path][index]
        if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            gap = np.max(np.abs(found.astype(np.float64) - expected))
            raise Broken(
                f"{label}: {path} differs by {gap:.2g} between a member of a population and the same run alone; "
                "look for state outside the arguments, or an operation that mixes members"
            )


@_check("jit")
def retrace(subject: Subject) -> None:
    """One compilation serves every setting, seed, segment and data set of the same shape."""
    index, key, data = jnp.int32(0), subject.key, subject.data
    state = subject.start(key, subject.hyper)
    for member in subject.members[:4]:
        key = jax.random.key(member.seed)
        state, _ = subject.train(state, index, key, member.hyper, data)
        index = index + 1
    subject.train(state, index, key, subject.hyper, subject.paying(0.0))
    if subject.train_traces != 1:
        raise Broken(
            f"training was traced {subject.train_traces} times for one shape; look for weakly typed or reshaped leaves "
            "of the state"
        )


@_check("vmap")
def hypers(subject: Subject) -> None:
    """Every hyperparameter matters: its extremes lead to another state, or to other actions when exploring. Those that
    choose levels (``setting(..., curriculum=True)``) do so in a world that has some, which this check has not."""
    keys, stacked = subject.stacked
    states = on_host(subject.history[-1][0])
    # The same trained agent and key in every lane, so that only the setting differs.
    trained, same_key = _first_everywhere((subject.history[-1][0], keys))
    actions = np.asarray(subject.act_all(trained, stacked, same_key)[1])
    noise = max(_distance(states, 0, 4), 1e-7)  # lane 4 repeats lane 0
    count = SEGMENTS * subject.updates
    for name in subject.hyper_names:
        if name in subject.of_curriculum:
            continue
        moved = max(_distance(states, 0, index) for index in subject.lanes(name))
        acted = max(np.max(np.abs(actions[index] - actions[0]), initial=0.0) for index in subject.lanes(name))
        if not (moved > 10 * noise or acted > 1e-6 or np.isnan(moved) or np.isnan(acted)):
            low, high = (float(getattr(subject.members[i].hyper, name)) for i in subject.lanes(name))
            raise Broken(
                f"Hyper.{name} does nothing: {low:g} and {high:g} give the state and the actions of "
                f"{float(getattr(subject.hyper, name)):g} after {count} updates; use it or remove it"
            )


@jax.jit
def _first_everywhere(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), tree)


def _distance(states: dict[str, np.ndarray], first: int, second: int) -> float:
    """The largest difference of two lanes, relative where values exceed 1; NaN if either has one."""
    gaps = []
    for leaf in states.values():
        a, b = leaf[first].astype(np.float64), leaf[second].astype(np.float64)
        gaps.append(np.max(np.abs(a - b) / np.maximum(1.0, np.abs(a)), initial=0.0))
    return float(np.max(gaps))


@_check("vmap")
def finite(subject: Subject) -> None:
    """No NaN or infinity in 40 updates (on-policy 8), at every hyperparameter's extremes and for constant rewards."""
    for label, segments in _conditions(subject):
        for index, (states, metrics) in enumerate(segments):
            for kind, tree in (("State", states), ("metric ", metrics)):
                _require_finite(subject, tree, kind, f"after {(index + 1) * subject.updates} updates{label}")
    greedy, exploring = subject.actions
    _require_finite(subject, {"explore=False": greedy, "explore=True": exploring}, "actions ", "after training")


def _conditions(subject: Subject) -> Iterator[tuple[str, Any]]:
    yield "", subject.history
    for reward in (0.0, 1.0):
        yield f" with every reward {reward:g}", subject.population(subject.paying(reward))


def _require_finite(subject: Subject, tree: PyTree, kind: str, when: str) -> None:
    for path, leaf in on_host(tree).items():
        bad = np.flatnonzero(~np.isfinite(leaf.reshape(leaf.shape[0], -1)).all(axis=1))
        if bad.size:
            raise Broken(
                f"{kind}{path} is not finite {when}, setting: {subject.members[bad[0]].label}; look for exp, log, "
                "division or a power that needs a bound"
            )


@_check("vmap")
def targets(subject: Subject) -> None:
    """Target parameters follow the online ones and learn nothing: no gradient, no place in an optimiser."""
    initial = on_host(subject.initial)
    aims = [path for path in initial if _is_target(path)]
    for path in aims:
        if _in_optimiser(path):
            raise Broken(f"State{path}: target parameters are in an optimiser's state; keep them outside of it")
    online = [
        leaf.shape[1:]
        for path, leaf in initial.items()
        if leaf.ndim > 1 and not _is_target(path) and not _in_optimiser(path)
    ]
    for path, shapes in _slots(subject.initial):
        extra = collections.Counter(shapes) - collections.Counter(online)
        if extra:
            shape = list(next(iter(extra)))
            raise Broken(
                f"State{path} optimises a parameter of shape {shape} which is not an online one; initialise the "
                "optimiser with the online parameters alone"
            )
    if not aims:
        return
    if subject.target_rate is not None:
        still = len(subject.members) - 1  # the lane whose targets must not move
        for index, (states, _) in enumerate(subject.history, start=1):
            after = on_host(states)
            for path in aims:
                if not np.array_equal(after[path][still], initial[path][still]):
                    raise Broken(
                        f"State{path} moves although {subject.target_rate}=0, in {index * subject.updates} updates: "
                        "it receives a gradient, or is not an average of its old value and the online parameters"
                    )
        return
    _require_average(subject)


def _parts(path: str) -> list[str]:
    return re.findall(r"\w+", path)


def _is_target(path: str) -> bool:
    return any(part.startswith("target") for part in _parts(path)) and not any(
        "metric" in part for part in _parts(path)
    )


def _in_optimiser(path: str) -> bool:
    return any(part.startswith("opt") for part in _parts(path))


def _slots(tree: Any, path: str = "") -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    """Every copy of the parameters that optax keeps (first moment, second moment, ...): path and shapes."""
    if dataclasses.is_dataclass(tree):
        children = {f".{field.name}": getattr(tree, field.name) for field in dataclasses.fields(tree)}
    elif isinstance(tree, tuple) and hasattr(tree, "_asdict"):
        children = {f".{name}": value for name, value in tree._asdict().items()}  # type: ignore[attr-defined]
    elif isinstance(tree, tuple | list):
        children = {f"[{i}]": value for i, value in enumerate(tree)}
    elif isinstance(tree, dict):
        children = {f"[{name!r}]": value for name, value in tree.items()}
    else:
        return
    inner = [slot for name, child in children.items() for slot in _slots(child, path + name)]
    yield from inner
    if not inner and type(tree).__module__.split(".")[0] == "optax":
        for name, child in children.items():
            shapes = [leaf.shape[1:] for leaf in jax.tree.leaves(child) if leaf.ndim > 1]
            if shapes:
                yield path + name, shapes


def _require_average(subject: Subject) -> None:
    """Without a rate to set to 0: after one update, a target is (1 - c) old + c online, with one c in [0, 1]."""
    before = subject.start(subject.key, subject.hyper)
    batch = subject.sample(subject.data, subject.key, BATCH)
    update = _subject.quick(subject.agent.update)
    old, new = (on_host(tree) for tree in (before, update(before, batch, subject.hyper, subject.key, jnp.int32(0))[0]))
    for path in filter(_is_target, old):
        pattern = re.sub(r"target_?", "", path, count=1)
        candidates = [other for other in old if not _is_target(other) and _parts(other) == _parts(pattern)]
        candidates += [other for other in old if _parts(other.replace(".params", "", 1)) == _parts(pattern)]
        pairs = [(old[path], source[other]) for other in candidates for source in (old, new)]
        if pairs and not any(_is_average(new[path], start, end) for start, end in pairs):
            raise Broken(
                f"State{path} is not an average of its old value and State{candidates[0]} after an update; move "
                "targets with transforms.polyak or by copying"
            )


def _is_average(value: np.ndarray, start: np.ndarray, end: np.ndarray) -> bool:
    way = (end - start).astype(np.float64)
    moved = value.astype(np.float64) - start
    c = float(np.vdot(way, moved) / max(np.vdot(way, way), 1e-30))
    return -1e-3 <= c <= 1.0 + 1e-3 and bool(np.allclose(moved, c * way, atol=1e-6))


@_check("vmap")
def learns(subject: Subject) -> None:
    """On four rows, again and again, a loss falls within 200 updates (on-policy 40) at ten times the learning rates.

    The loss is the first of the metrics ``critic_loss``, ``value_loss``, ``actor_loss``, or else the first with "loss"
    in its name. Every row ends an episode, so a critic regresses on rewards and has a target that stands still. Of a
    token agent it is the loss of ``imitate``, on four prompts.
    """
    if subject.kind == "tokens":
        _require_lessons(subject)
        return
    faster = {
        name: 10.0 * float(getattr(subject.hyper, name))
        for name in subject.hyper_names
        if "learning_rate" in name or name == "lr"
    }
    hyper = dataclasses.replace(subject.hyper, **{name: jnp.float32(value) for name, value in faster.items()})
    data = subject.given(transitions.four_rows(subject.rows))
    state, values, name = subject.start(subject.key, hyper), [], ""
    for index in range(LEARNING_SEGMENTS):
        state, metrics = subject.train(state, jnp.int32(index), subject.key, hyper, data)
        if not values:
            named_loss = [*(n for n in LOSSES if n in metrics), *(n for n in sorted(metrics) if "loss" in n)]
            if not named_loss:
                raise Broken('no metric has "loss" in its name; report what is minimised')
            name = named_loss[0]
        values.append(float(metrics[name]))
    if not values[-1] < values[0]:
        raise Broken(
            f"{name} does not fall on four rows: {values[0]:.4g} over the first {subject.updates} updates, "
            f"{values[-1]:.4g} over the last of {LEARNING_SEGMENTS * subject.updates}; look for a wrong sign, or "
            "parameters that are not updated"
        )


def _require_lessons(subject: Subject) -> None:
    if subject.agent.imitate is None:
        raise Broken("make gives no imitate, which the warm start of a token agent calls; see Agent.imitate")
    name, values = tokens.lessons(subject)
    if not values:
        raise Broken('no metric of imitate has "loss" in its name; report what is minimised')
    if not values[-1] < values[0]:
        raise Broken(f"imitate: {name} does not fall on four prompts: {values[0]:.4g}, {values[-1]:.4g} at last")


@_check("vmap")
def actions(subject: Subject) -> None:
    """Actions are float32 ``[..., A]`` within [-1, 1] for any observation, and the same for the same key.

    Those of a token agent are completions: int32 ``[..., T]``, ids in range, nothing but padding after the end.
    """
    state, _, hyper, key = subject.arguments("act", subject.traces["init"].out)
    ids = subject.kind == "tokens"
    size, dtype = (subject.spec.completion, jnp.int32) if ids else (subject.spec.action_dim, jnp.float32)
    for leading in ((), (2, 5)):
        observation = subject.observed(leading)
        for explore in (False, True):
            out = jax.eval_shape(lambda *args, e=explore: subject.act(*args, e), state, observation, hyper, key)
            expected = (*leading, size)
            if out.shape != expected or out.dtype != dtype:
                raise Broken(
                    f"act, explore={explore}: observation {list(observation.shape)} gives {out.dtype}{list(out.shape)}"
                    f", expected {jnp.dtype(dtype).name}{list(expected)}"
                )
    for explore, values in zip((False, True), subject.actions, strict=True):
        if ids:
            fault = tokens.fault_of(values)
            if fault is not None:
                raise Broken(f"act, explore={explore}: {fault}")
            continue
        worst = np.max(np.abs(values[:5]), axis=(0, 2))  # per observation, over the ordinary members
        for scale, part in zip(("ordinary", "zero", "huge"), worst.reshape(3, BATCH), strict=True):
            if not part.max() <= 1.0:  # NaN fails as well
                raise Broken(
                    f"act, explore={explore}: {scale} observations give an action of size {part.max():.4g}; "
                    "actions lie in [-1, 1], so squash or clip them"
                )
    keys, hypers = subject.stacked
    again = subject.act_all(subject.history[-1][0], hypers, keys)
    for explore, first, second in zip((False, True), subject.actions, again, strict=True):
        if not np.array_equal(first, np.asarray(second), equal_nan=True):
            raise Broken(
                f"act, explore={explore}: the same state, observation and key give two actions; use only the key"
            )


@_check("vmap")
def memory(subject: Subject) -> None:
    """``Agent.policy``, where there is one: pure, ``act`` first, and nothing shared by episodes or by members.

    Its carry has the axes of its episodes in front and keeps its shapes; a key is used once; the same keys give the
    same actions, within [-1, 1]; every episode and every member acts as it would alone.
    """
    if subject.agent.policy is None:
        return
    state, _, hyper, key = subject.arguments("act", subject.traces["init"].out)
    for explore in (False, True):
        for shape in ((), (2, 5)):
            _check_step(subject, shape, explore, state, hyper, key)
    keys, hypers = subject.stacked
    states, observation = subject.history[-1][0], subject.watched[0][0]

    def played(state, hyper, key):
        both = [subject.episodes(_subject.EPISODES[1:], state, hyper, key, explore) for explore in (False, True)]
        first = jax.random.fold_in(key, 0)
        return both, [subject.act(state, observation, hyper, first, explore) for explore in (False, True)]

    play = _subject.quick(jax.vmap(played))
    (ran, first), (again, _) = (jax.device_get(play(states, hypers, keys)) for _ in range(2))
    for explore, values, second, acted in zip((False, True), ran, again, first, strict=True):
        label = f"policy, explore={explore}"
        if not np.array_equal(values, second, equal_nan=True):
            raise Broken(f"{label}: the same state, observations and keys give two episodes; use only the key")
        if not np.abs(values).max() <= 1.0:  # NaN fails as well
            raise Broken(f"{label}: an action of size {np.abs(values).max():.4g}; actions lie in [-1, 1]")
        if not np.allclose(values[:, 0], acted, rtol=TOLERANCE, atol=TOLERANCE):
            raise Broken(f"{label}: its first action is not that of `act`, which is the first step of an episode")
    alone = _subject.quick(lambda state, hyper, key: subject.episodes((), state, hyper, key, False))
    for index, member in enumerate(subject.members[:2]):
        single = np.asarray(alone(lane(states, index), lane(hypers, index), keys[index]))
        if not np.allclose(ran[0][index, :, 0], single, rtol=TOLERANCE, atol=TOLERANCE):
            gap = np.abs(ran[0][index, :, 0] - single).max()
            raise Broken(
                f"policy, {member.label}: an episode differs by {gap:.2g} between episodes side by side and the same "
                "one alone; look for an operation that mixes episodes or members"
            )


def _check_step(subject: Subject, shape: tuple[int, ...], explore: bool, state: Any, hyper: Any, key: Any) -> None:
    """Shapes, keys and purity of one step of a policy, by tracing."""
    label = f"policy, explore={explore}"
    assert subject.agent.policy is not None
    make = subject.agent.policy
    observation = jax.ShapeDtypeStruct((*shape, subject.spec.observation_dim), jnp.float32)
    reward = jax.ShapeDtypeStruct(shape, jnp.float32)

    def first(state, hyper):
        return make(state, hyper, explore).start(shape)

    def step(state, hyper, carry, observation, reward, key):
        return make(state, hyper, explore).step(carry, observation, reward, key)

    carry = jax.eval_shape(first, state, hyper)
    for path, leaf in named(carry).items():
        if leaf.shape[: len(shape)] != shape:
            raise Broken(
                f"{label}: start({shape}) gives carry{path} of shape {list(leaf.shape)}; every leaf begins with the "
                "axes of the episodes"
            )
    arguments = (state, hyper, carry, observation, reward, key)
    try:
        with jax.debug_key_reuse(True):
            _subject.trace(step, *arguments)
    except jax.errors.KeyReuseError as error:
        raise Broken(f"{label}: a random key is used twice{_subject.where(error, subject.module)}") from error
    once = _subject.trace(step, *arguments)
    if not shape:  # once is enough: the number of episodes changes nothing here
        again = _subject.trace(step, *arguments)
        if _text(once.jaxpr) != _text(again.jaxpr) or not _equal_constants(once.jaxpr.consts, again.jaxpr.consts):
            raise Broken(f"{label}: two traces of a step give two programs; keep what is remembered in the carry")
    action, after = once.out
    if action.shape != (*shape, subject.spec.action_dim) or action.dtype != jnp.float32:
        raise Broken(f"{label}: episodes {list(shape)} give actions {action.dtype}{list(action.shape)}")
    if jax.tree.structure(after) != jax.tree.structure(carry):
        raise Broken(f"{label}: a step changes the structure of the carry; a scan needs it equal")
    for path, leaf in named(after).items():
        before = named(carry)[path]
        if (leaf.shape, leaf.dtype) != (before.shape, before.dtype):
            raise Broken(
                f"{label}: carry{path} goes into a step as {before.dtype}{list(before.shape)} and comes out as "
                f"{leaf.dtype}{list(leaf.shape)}; a scan needs them equal"
            )


@_check("vmap")
def checkpoint(subject: Subject) -> None:
    """A checkpoint gives the state back bit by bit, and training resumed from it ends as if it had never stopped."""
    from jaxrl_reg.io import checkpoint as io

    (half, _), (whole, _) = subject.history
    with tempfile.TemporaryDirectory() as directory:
        io.save(directory, 1, half, {"segment": 1})
        _, restored, _ = io.restore(directory, lambda info: half)  # type: ignore[misc]
    _require_same(half, restored, "comes back changed from a checkpoint; keep arrays and typed keys alone in State")
    keys, hypers = subject.stacked
    resumed, _ = subject.train_all(restored, jnp.int32(1), keys, hypers, subject.data)
    _require_same(
        whole, resumed, "differs between a run that was resumed and one that was not; derive every key by fold_in"
    )


def _require_same(expected: PyTree, found: PyTree, problem: str) -> None:
    if jax.tree.structure(expected) != jax.tree.structure(found):
        raise Broken(f"State's structure {problem}")
    found = on_host(found)
    for path, leaf in on_host(expected).items():
        if leaf.dtype != found[path].dtype or not np.array_equal(leaf, found[path], equal_nan=leaf.dtype.kind == "f"):
            raise Broken(f"State{path} {problem}")


@_check("vmap")
def program(subject: Subject) -> None:
    """The text of the compiled program is below 1.5 MB: nothing large is written into it as a constant."""
    state = jax.eval_shape(subject.run.init, subject.key, subject.hyper)
    lowered = subject.train.lower(state, jnp.int32(0), subject.key, subject.hyper, subject.data)  # type: ignore[attr-defined]
    size = len(lowered.as_text())
    if size > PROGRAM_BYTES:
        raise Broken(
            f"the training program is {size / 1e6:.1f} MB of text; pass large arrays as arguments, and use "
            "jax.lax.scan instead of long Python loops"
        )

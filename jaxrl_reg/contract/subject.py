"""One agent under test: tiny data, a population of settings, and the few programs that all checks share.

A check runs little and compiles much, so the programs are compiled once per agent, and for a quick compilation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import inspect
import re
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxrl_reg import agents, loops
from jaxrl_reg.contract import tokens, transitions
from jaxrl_reg.data.samplers import Sampler
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Agent, Array, Dataset, Key, Metrics, PyTree, as_float32, policy_of

KINDS = ("offline", "off_policy", "on_policy", "tokens")
HIDDEN, BATCH = 8, 16
EPISODES = (6, 3)  # steps and number of the episodes in which a memory is watched
SEGMENTS = 2
UPDATES = {"offline": 20, "off_policy": 20, "on_policy": 4, "tokens": 4}  # per segment; on-policy, each is many steps

# Three to five times less compile time for tiny networks; the programs are slower, but hardly run.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


class Broken(AssertionError):
    """A rule of the contract is broken. The message is one line: what is wrong, and what to do."""


class AgentError(Exception):
    """An error of the agent's own while the function ``label`` was traced."""

    def __init__(self, label: str, error: Exception):
        super().__init__(label, error)
        self.label, self.error = label, error


@functools.cache
def _accepted_options() -> dict[str, Any]:
    accepted = {}
    for name, value in QUICK.items():
        try:
            jax.jit(lambda x: x + 1, compiler_options={name: value})(jnp.float32(0)).block_until_ready()
        except Exception:  # this version of XLA, or this backend, has no such option
            continue
        accepted[name] = value
    return accepted


def quick(function: Callable[..., Any]) -> Callable[..., Any]:
    """``jax.jit`` with a quick compilation and exact matrix products, so that one tolerance serves every device."""

    def exact(*args):
        with jax.default_matmul_precision("highest"):
            return function(*args)

    return jax.jit(exact, compiler_options=_accepted_options())


class Trace(NamedTuple):
    """What tracing a function shows without compiling it."""

    jaxpr: Any
    out: PyTree  # shapes and dtypes
    weak: list[bool]  # per leaf: a Python number in disguise, which recompiles its users
    kinds: list[type]  # per leaf: the type that the function returned


def trace(function: Callable[..., Any], *args: Any) -> Trace:
    """Trace ``function`` anew (no cache is consulted)."""
    kinds: list[type] = []

    def recorded(*args):
        out = function(*args)
        kinds[:] = [type(leaf) for leaf in jax.tree.leaves(out)]
        return out

    traced = jax.jit(recorded).trace(*args)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), traced.out_info)
    return Trace(
        traced.jaxpr, shapes, [bool(getattr(aval, "weak_type", False)) for aval in traced.jaxpr.out_avals], kinds
    )


def tiny(config_class: type, overrides: dict[str, Any]) -> Any:
    """The default ``Config`` with every width of a hidden layer set to 8, and what has one to its own ``small``.

    Raises ``UserError`` for an override that the agent does not have, or a default that is missing.
    """
    values = {}
    for field in dataclasses.fields(config_class):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            if field.name not in overrides:
                raise UserError(f"Config.{field.name} has no default; give it one with setting(default, help)")
        elif "small" in field.metadata:
            values[field.name] = field.metadata["small"]
        elif "hidden" in field.name:
            values[field.name] = HIDDEN if isinstance(field.default, int) else (HIDDEN,)
    known = [field.name for field in dataclasses.fields(config_class)]
    for name in overrides:
        if name not in known:
            raise UserError(f"Config has no setting {name!r}; it has {', '.join(known)}")
    return config_class(**{**values, **overrides})


def brief(hyper_class: type) -> Any:
    """The default ``Hyper``, what has one at its own ``small``: a phase so short that the suite's updates outlast it.

    Otherwise the hyperparameters of what comes after it would seem to do nothing.
    """
    fields = dataclasses.fields(hyper_class)
    return hyper_class(**{field.name: field.metadata["small"] for field in fields if "small" in field.metadata})


def extremes(name: str, value: float, limits: tuple[float, float] | None) -> tuple[float, float]:
    """The smallest and largest sensible value of a hyperparameter.

    ``limits`` come from ``setting(..., range=(low, high))``. Without them: a hundredth and a hundred times the default,
    but at most 1 for a default below 1, which is taken for a probability, a rate or a discount.
    """
    if limits is not None:
        return limits
    if value == 0.0:
        return 0.01, 1.0
    if 0.0 < value < 1.0:
        return 0.01 * value, min(100.0 * value, 1.0)
    return 0.01 * value, 100.0 * value


class Member(NamedTuple):
    """One lane of the population: a label for messages, a seed and a setting."""

    label: str
    seed: int
    hyper: PyTree


class Subject:
    """An agent and everything that is computed about it, once."""

    def __init__(
        self,
        agent: ModuleType | str,
        config: dict[str, Any] | None = None,
        data: Dataset | None = None,
        sample: Sampler | None = None,
    ):
        self.module = agents.load(agent) if isinstance(agent, str) else agent
        self.name = agents.short_name(self.module)
        self.kind = self.module.KIND
        if self.kind not in KINDS:
            raise UserError(f"{self.name}.KIND is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        self.updates = UPDATES[self.kind]
        self.world: Any = tokens if self.kind == "tokens" else transitions
        self.rows = self.world.example() if data is None else data
        self.spec = self.world.spec_of(self.rows)
        self.config = tiny(self.module.Config, config or {})
        self.agent: Agent = self.module.make(self.config, self.spec)
        self.data = self.given(self.rows)
        self.sample = sample or self.agent.sample or transitions.held(self.agent, self.world.SAMPLERS[self.kind])
        self.act: Callable[..., Array] = self.agent.act
        self.hyper = as_float32(brief(self.module.Hyper))
        self.key = jax.random.key(0)
        self.results: dict[str, Any] = {}

    def given(self, rows: Dataset) -> PyTree:
        """What a run on ``rows`` takes."""
        return rows if self.agent.prepare is None else self.agent.prepare(rows)

    def paying(self, reward: float) -> PyTree:
        """The ordinary data with every reward equal."""
        return self.given(self.world.constant(self.rows, reward))

    # The run of ``loops.offline``, whatever the kind: only the batch differs.

    @functools.cached_property
    def run(self):
        agent = self.agent._replace(update=jax.jit(self.agent.update))  # traced once for one member and for all
        return loops.offline(
            agent, batch_size=BATCH, updates=SEGMENTS * self.updates, segments=SEGMENTS, sample=self.sample
        )

    @functools.cached_property
    def hyper_names(self) -> list[str]:
        return [field.name for field in dataclasses.fields(self.module.Hyper)]

    @functools.cached_property
    def of_curriculum(self) -> set[str]:
        """Hyperparameters of an agent's curriculum alone, which choose levels and are seen by no update."""
        fields = dataclasses.fields(self.module.Hyper) if self.agent.curriculum is not None else ()
        return {field.name for field in fields if field.metadata.get("curriculum")}

    # Traces: nothing is compiled.

    def arguments(self, name: str, state: PyTree = None) -> tuple[Any, ...]:
        """Shapes of the arguments of ``init``, ``update`` or ``act``, given those of the state."""
        key, hyper = jax.eval_shape(lambda: (jax.random.key(0), self.hyper))
        if name == "init":
            return key, hyper
        if name == "update":
            batch = jax.eval_shape(lambda data, key: self.sample(data, key, BATCH), self.data, key)
            return state, batch, hyper, key, jax.ShapeDtypeStruct((), jnp.int32)
        return state, self.observed((BATCH,)), hyper, key

    def observed(self, leading: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        """What ``act`` sees, by its shape: observations ``[..., O]``, or prompts ``[..., P]``."""
        return self.world.observed(self.spec, leading)

    def functions(self) -> dict[str, tuple[str, Callable[..., Any]]]:
        """What is traced: label -> (name of the arguments, function)."""
        agent, act = self.agent, self.act
        return {
            "init": ("init", agent.init),
            "update": ("update", agent.update),
            "act, explore=False": ("act", lambda *args: act(*args, False)),
            "act, explore=True": ("act", lambda *args: act(*args, True)),
        }

    @functools.cached_property
    def traces(self) -> dict[str, Trace]:
        """A trace of each function; raises what the agent raises. ``reused_keys`` collects faults on the way."""
        self.reused_keys: dict[str, Exception] = {}
        found: dict[str, Trace] = {}
        for label, (name, function) in self.functions().items():
            state = found["init"].out if found else None
            arguments = self.arguments(name, state)
            try:
                with jax.debug_key_reuse(True):
                    found[label] = trace(function, *arguments)
            except jax.errors.KeyReuseError as error:
                self.reused_keys[label] = error
                found[label] = trace(function, *arguments)
            except Exception as error:
                raise AgentError(label, error) from error
        return found

    # One member alone.

    @functools.cached_property
    def start(self) -> Callable[[Key, PyTree], PyTree]:
        return quick(self.run.init)

    @functools.cached_property
    def train(self) -> Callable[..., tuple[PyTree, Metrics]]:
        """``(state, index, key, hyper, data) -> (state, metrics)``: one segment."""
        self.train_traces = 0

        def counted(*args):
            self.train_traces += 1
            return self.run.train(*args)

        return quick(counted)

    def after(self, agent: Agent, updates: int) -> tuple[PyTree, Metrics]:
        """State and metrics of one member after ``updates`` from the start, as ``agent`` makes them."""
        run = loops.offline(agent, batch_size=BATCH, updates=updates, sample=self.sample)
        state = self.start(self.key, self.hyper)
        return quick(run.train)(state, jnp.int32(0), self.key, self.hyper, self.data)

    # The population: every lane a setting.

    @functools.cached_property
    def members(self) -> list[Member]:
        """Lanes 0 to 3: two seeds of two settings. Lane 4: lane 0 again. Then each hyperparameter's extremes."""
        base = {name: float(getattr(self.hyper, name)) for name in self.hyper_names}

        def hyper(**changes):
            return as_float32(self.module.Hyper(**{**base, **changes}))

        other = hyper(**{name: 0.9 * value for name, value in base.items()})
        members = [
            Member(f"seed {seed}, {label}", seed, h)
            for label, h in (("defaults", self.hyper), ("0.9 x", other))
            for seed in (0, 1)
        ]
        members.append(Member("seed 0, defaults", 0, self.hyper))
        for field in dataclasses.fields(self.module.Hyper):
            for value in extremes(field.name, base[field.name], field.metadata.get("range")):
                members.append(Member(f"{field.name}={value:g}", 0, hyper(**{field.name: value})))
        if self.target_rate is not None:
            members.append(Member(f"{self.target_rate}=0", 0, hyper(**{self.target_rate: 0.0})))
        return members

    @functools.cached_property
    def target_rate(self) -> str | None:
        """The hyperparameter that moves the targets: ``tau``, or ``target_..._rate``, ``target_tau``."""
        for name in self.hyper_names:
            if name == "tau" or re.fullmatch(r"target_(\w*_)?(rate|tau)", name):
                return name
        return None

    def lanes(self, name: str) -> tuple[int, int]:
        """The lanes of a hyperparameter's two extremes."""
        first = 5 + 2 * self.hyper_names.index(name)
        return first, first + 1

    @functools.cached_property
    def stacked(self) -> tuple[Array, PyTree]:
        """Keys ``[M]`` and hyperparameters ``[M]`` of the members."""
        keys = jax.vmap(jax.random.key)(jnp.array([member.seed for member in self.members]))
        hypers = jax.device_get([member.hyper for member in self.members])  # on the host: nothing is compiled for it
        return keys, jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *hypers)

    @functools.cached_property
    def start_all(self) -> Callable[[Array, PyTree], PyTree]:
        return quick(jax.vmap(self.run.init))

    @functools.cached_property
    def train_all(self) -> Callable[..., tuple[PyTree, Metrics]]:
        """``(states, index, keys, hypers, data)``: one segment of every member; index and data are shared."""
        return quick(jax.vmap(self.run.train, in_axes=(0, None, 0, 0, None)))

    def population(self, data: PyTree) -> Iterator[tuple[PyTree, Metrics]]:
        """States and metrics, leaves ``[M, ...]``, after each segment."""
        keys, hypers = self.stacked
        states = self.initial
        for index in range(SEGMENTS):
            states, metrics = self.train_all(states, jnp.int32(index), keys, hypers, data)
            yield states, metrics

    @functools.cached_property
    def initial(self) -> PyTree:
        return self.start_all(*self.stacked)

    @functools.cached_property
    def history(self) -> list[tuple[PyTree, Metrics]]:
        """The population after each segment, on the ordinary data."""
        return list(self.population(self.data))

    @functools.cached_property
    def observations(self) -> Array:
        """Ordinary observations, then zeros, then huge ones: ``[3 BATCH, O]``; prompts likewise."""
        return self.world.observations(self.spec, BATCH)

    @functools.cached_property
    def act_all(self) -> Callable[..., tuple[Array, Array]]:
        """``(states, hypers, keys) -> (greedy, exploring)`` actions ``[M, 3 BATCH, A]``."""
        observations = self.observations

        def both(state, hyper, key):
            greedy, exploring = jax.random.split(key)
            return (
                self.agent.act(state, observations, hyper, greedy, False),
                self.agent.act(state, observations, hyper, exploring, True),
            )

        return quick(jax.vmap(both))

    @functools.cached_property
    def watched(self) -> tuple[Array, Array]:
        """Observations ``[T, N, O]`` and rewards ``[T, N]`` (0 first) of episodes that do not depend on the actions."""
        observation = jax.random.normal(jax.random.key(2), (*EPISODES, self.spec.observation_dim))
        return observation, observation[..., 0].at[0].set(0.0)

    def episodes(self, shape: tuple[int, ...], state: PyTree, hyper: PyTree, key: Key, explore: bool) -> Array:
        """Actions ``[T, *shape, A]`` over these episodes; ``shape`` is ``(N,)``, or ``()`` for the first of them."""
        observation, reward = (x if shape else x[:, 0] for x in self.watched)
        policy = policy_of(self.agent, state, hyper, explore)

        def step(carry, inputs):
            t, observation, reward = inputs
            action, carry = policy.step(carry, observation, reward, jax.random.fold_in(key, t))
            return carry, action

        return jax.lax.scan(step, policy.start(shape), (jnp.arange(EPISODES[0]), observation, reward))[1]

    @functools.cached_property
    def actions(self) -> tuple[np.ndarray, np.ndarray]:
        """Greedy and exploring actions of the trained population, ``[M, 3 BATCH, A]``."""
        keys, hypers = self.stacked
        return jax.device_get(self.act_all(self.history[-1][0], hypers, keys))


@contextlib.contextmanager
def new_tracers() -> Iterator[Callable[[], int]]:
    """Counts the tracers made since that something still refers to; outside of a trace there should be none."""

    def count() -> int:
        gc.collect()
        return sum(issubclass(type(item), Tracer) for item in gc.get_objects())

    gc.freeze()  # what is there already is neither collected nor listed, which would take most of the time
    try:
        yield count
    finally:
        gc.unfreeze()


# Reading trees.


def is_key(leaf: Any) -> bool:
    """Whether an array holds typed random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def named(tree: PyTree) -> dict[str, Any]:
    """Path such as ``.critic.params['kernel']`` -> leaf; typed keys become their integers."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path): jax.random.key_data(leaf) if isinstance(leaf, jax.Array) and is_key(leaf) else leaf
        for path, leaf in leaves
    }


def on_host(tree: PyTree) -> dict[str, np.ndarray]:
    """``named`` as NumPy arrays."""
    return {path: np.asarray(leaf) for path, leaf in jax.device_get(named(tree)).items()}


@jax.jit
def lane(tree: PyTree, index: int) -> PyTree:
    """One member of a population."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def equations(jaxpr: Any, primitive: str) -> int:
    """How often a primitive occurs in a program, inner programs included."""
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name == primitive
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    count += equations(inner, primitive)
    return count


def where(error: BaseException, module: ModuleType) -> str:
    """`` at file.py:12``: the innermost line of the agent's own file in a traceback, else nothing."""
    try:
        source = inspect.getsourcefile(module)
    except TypeError:
        source = None
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if source and f.filename == source]
    return f" at {source.rsplit('/', 1)[-1]}:{lines[-1]}" if lines else ""  # type: ignore[union-attr]


def first_line(error: BaseException) -> str:
    """The beginning of an error's message, or its type."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__

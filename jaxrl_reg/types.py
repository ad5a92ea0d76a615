"""The whole contract on one screen: what flows between losses, agents, data sets, environments and runs.

Shapes: ``B`` batch, ``N`` rows of a data set, ``O`` observation, ``A`` action, ``T`` time, ``E`` parallel environments.
Every array is float32 unless said otherwise. Actions live in ``[-1, 1]``; environments and readers do the scaling.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

Array = jax.Array
Key = jax.Array  # a typed key, from ``jax.random.key``
PyTree = Any
Metrics = dict[str, Array]  # name -> scalar
T = TypeVar("T")


def setting(default: Any, help: str, **metadata: Any) -> Any:
    """A field of a ``Config`` or ``Hyper`` with its meaning; the command line prints ``help`` beside the default."""
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


@dataclass_transform(frozen_default=True, field_specifiers=(setting, dataclasses.field))
def pytree(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen dataclass whose fields are pytree children (``dataclasses.replace`` edits a copy).

    A field declared with ``metadata={"static": True}`` is part of the tree structure instead and must be hashable.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    static = [f.name for f in dataclasses.fields(cls) if f.metadata.get("static")]  # type: ignore[arg-type]
    dynamic = [f.name for f in dataclasses.fields(cls) if f.name not in static]  # type: ignore[arg-type]
    return jax.tree_util.register_dataclass(cls, data_fields=dynamic, meta_fields=static)


def as_float32(tree: T) -> T:
    """Every leaf as a strong float32 array: Python numbers and arrays then share one compilation."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


@dataclasses.dataclass(frozen=True)
class Spec:
    """Sizes that an agent needs to build its networks.

    ``discrete``: of an action only the largest component counts, the first of equals. Agents for continuous actions
    work there as they are; those with a categorical policy take it.
    """

    observation_dim: int
    action_dim: int
    max_episode_steps: int = 1000
    discrete: bool = False


@dataclasses.dataclass(frozen=True)
class TokenSpec:
    """Sizes of a world of tokens: ids in ``[0, vocabulary)``, columns of a prompt, padded on the LEFT, and of a
    completion, padded on the right and only after its first ``EOS``."""

    vocabulary: int
    prompt: int
    completion: int
    PAD: ClassVar[int] = 0
    EOS: ClassVar[int] = 1

    @property
    def second(self) -> TokenSpec:
        """Of a second turn, whose prompt is the first one, what was completed, and a cue."""
        return TokenSpec(self.vocabulary, self.prompt + self.completion + 1, self.completion)


@pytree
class Transition:
    """A batch of steps ``[B, ...]``, or a trajectory ``[T, E, ...]`` for on-policy agents.

    ``discount`` is 0 only at a true termination and 1 otherwise, time-outs included; gamma is never folded in.
    ``next_observation`` is what the action led to, before any reset. ``last`` is 1 where the episode ends either way.
    ``next_action`` is the behaviour's action at ``next_observation`` (at an episode's end, its own action).
    ``return_rank`` in [0, 1] is the quantile of the episode's return within the data set (1 = best).
    """

    observation: Array
    action: Array
    reward: Array
    discount: Array
    next_observation: Array
    last: Array | None = None
    next_action: Array | None = None
    return_rank: Array | None = None
    extras: dict[str, Array] = dataclasses.field(default_factory=dict)


@pytree
class Completions:
    """What a token agent learns from: ``B`` prompts and ``G`` completions of each, int32, with what was paid for them.
    ``mask`` is 1 up to and including the first ``EOS``; ``truncated`` is 1 for one that was cut off, without.
    ``extras["second"]``, for agents of two turns, are ``Completions`` of the second, with a prompt for each."""

    prompt: Array  # [B, P]
    completion: Array  # [B, G, T]
    mask: Array  # [B, G, T]
    reward: Array  # [B, G]
    truncated: Array  # [B, G]
    extras: dict[str, Any] = dataclasses.field(default_factory=dict)


class TokenTask(NamedTuple):
    """A world of tokens: questions, and an exact judge of the answers. Pure and for one of each; callers vmap.
    ``draw(key) -> prompt [P]``; ``verify(prompt, completion [T]) -> reward``, 1 right, 0 wrong, also without ``EOS``;
    ``solve(prompt, key) -> completion`` is right, by the key one of several; None: nobody can show how, and there is no
    warm start. ``parts(prompt, completion) -> {name: reward}`` are what ``verify`` adds up, where there are several.
    ``decode(ids) -> text``, on the host, writes one row for people. ``follow(prompt, completion) -> prompt`` of
    ``spec.second`` asks again after an answer, for agents of two turns; the judge sees the first prompt."""

    draw: Callable[[Key], Array]
    verify: Callable[[Array, Array], Array]
    solve: Callable[[Array, Key], Array] | None
    spec: TokenSpec
    name: str = ""
    parts: Callable[[Array, Array], Metrics] | None = None
    decode: Callable[[Any], str] = lambda ids: " ".join(str(int(token)) for token in ids if token)
    follow: Callable[[Array, Array], Array] | None = None


@pytree
class Dataset:
    """Immutable rows on the device, in time order, episode after episode. Always an argument of a jitted function.

    ``episode`` ``[N]`` int32 numbers the episodes; ``step`` ``[N]`` int32 counts within one; ``start`` and ``end`` are
    the first row of a row's episode and one past its last. ``score_random`` and ``score_expert`` are undiscounted
    returns measured in the data set's own environment; normalised score = 100 (return - random) / (expert - random).

    ``cut`` ``[N]`` is 1 where an episode ends only because its recording does, so that its return is not the policy's;
    None: nowhere. ``dropped_reward`` ``[N]`` is, at the end of an episode, the reward of the row after it that had no
    successor and was left out, and NaN elsewhere; None: nowhere. ``rewarded`` False: the rewards are not known, and are
    0. ``discrete``: of an action only the largest number counts. ``action_bounds`` are the ``(low, high)``, ``A``
    numbers each, that actions were rescaled from, to [-1, 1]; None: they were not. ``notes`` say in words what reading
    did to the data.
    """

    observation: Array
    action: Array
    reward: Array
    discount: Array
    next_observation: Array
    next_action: Array
    last: Array
    return_rank: Array
    episode: Array
    step: Array
    start: Array
    end: Array
    score_random: Array
    score_expert: Array
    extras: dict[str, Array] = dataclasses.field(default_factory=dict)  # e.g. physics states, [N, ...]
    cut: Array | None = None
    dropped_reward: Array | None = None
    name: str = dataclasses.field(default="", metadata={"static": True})
    rewarded: bool = dataclasses.field(default=True, metadata={"static": True})
    discrete: bool = dataclasses.field(default=False, metadata={"static": True})
    action_bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = dataclasses.field(
        default=None, metadata={"static": True}
    )
    notes: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})

    @property
    def size(self) -> int:
        """Number of rows ``N``."""
        return self.reward.shape[0]

    @property
    def spec(self) -> Spec:
        return Spec(self.observation.shape[-1], self.action.shape[-1], discrete=self.discrete)


@pytree
class EnvState:
    """One environment's state; ``terminated`` and ``truncated`` are float32 0 or 1, never both 1.

    ``final_observation`` is the observation the last action led to. It differs from ``observation`` only where an
    auto-reset has already put the first observation of the next episode there.
    """

    observation: Array
    reward: Array
    terminated: Array
    truncated: Array
    final_observation: Array
    step: Array  # int32, steps since reset
    key: Key
    inner: PyTree  # physics
    metrics: Metrics = dataclasses.field(default_factory=dict)


class Scene(NamedTuple):
    """An episode as moving capsules, for looking at: NumPy arrays on the host.

    ``ends`` ``[T, G, 2, 2]``: both ends of every capsule at every time, metres, already projected on the picture's
    plane; ``radius`` ``[G]``, metres; ``seconds`` between two times. With ``follow`` the camera keeps the first capsule
    in the middle and a ground is drawn at height 0. ``still`` ``[F, 2, 2]`` are the ends of what does not move.
    """

    ends: Any
    radius: Any
    seconds: float
    follow: bool = False
    still: Any = ()
    still_radius: Any = ()


class Tasks(NamedTuple):
    """What can be asked of one world, for agents that learn before they know the task.

    ``physics(state) -> [..., P]`` is all that the future depends on, of a single, wrapped or vectorised state, and
    ``restore(physics [P]) -> state`` a state of the single environment there. ``reward(next_physics [..., P], name) ->
    [...]`` is what arriving there brings; the dynamics do not depend on the task. ``place(physics [..., P]) ->
    [..., 2]`` are two coordinates, called ``axes``, that exploration should cover within ``extent``, which is ((low,
    high), (low, high)).
    """

    names: tuple[str, ...]
    physics: Callable[[EnvState], Array]
    restore: Callable[[Array], EnvState]
    reward: Callable[[Array, str], Array]
    place: Callable[[Array], Array]
    axes: tuple[str, str]
    extent: tuple[tuple[float, float], tuple[float, float]]


class Levels(NamedTuple):
    """What varies from one episode of a world to another. A level is a pytree of fixed shapes and types, of one
    environment; it lies in ``EnvState.inner``, where ``step`` reads it. ``[L]``: levels stacked.

    ``sample(key) -> level`` is the designer's generator, and domain randomisation: ``env.reset(key)`` equals
    ``reset(k2, sample(k1))`` with ``k1, k2 = split(key)``. ``reset(key, level) -> state``; ``of(state) -> level``, of
    a single, wrapped or vectorised state. ``mutate(key, level, edits)`` makes a static number of small changes.
    ``parts(level) -> {name: int32 [n] or float32 [n] in [-1, 1]}`` is what a generative model sees, ``categories`` the
    number of values of every int part, and ``join(parts) -> level`` the way back, repaired to a valid level.
    ``describe(level) -> {name: scalar}`` is for metrics. ``evaluation`` are held-out levels ``[L]`` by name, NumPy, the
    first name being what a run is judged by; ``dataset(key, count) -> levels`` draws from the distribution that is
    aimed at, which ``sample`` need not know. ``solved(returns, last_reward, terminated)`` tells of finished episodes,
    all ``[...]``, whether they count as solved. ``picture(level) -> uint8 [H, W, 3]``, on the host.
    """

    sample: Callable[[Key], PyTree]
    reset: Callable[[Key, PyTree], EnvState]
    of: Callable[[EnvState], PyTree]
    mutate: Callable[[Key, PyTree, int], PyTree]
    parts: Callable[[PyTree], dict[str, Array]]
    join: Callable[[dict[str, Array]], PyTree]
    categories: dict[str, int]
    describe: Callable[[PyTree], Metrics]
    evaluation: dict[str, PyTree]
    dataset: Callable[[Key, int], PyTree]
    solved: Callable[[Array, Array, Array], Array]
    picture: Callable[[PyTree], Any]


class Env(NamedTuple):
    """``reset(key) -> state`` and ``step(state, action [A]) -> state``, pure, for one environment; callers vmap."""

    reset: Callable[[Key], EnvState]
    step: Callable[[EnvState, Array], EnvState]
    spec: Spec
    name: str = ""
    render: Callable[[list[PyTree]], str] | None = None  # host side: a list of ``inner`` -> an HTML page
    draw: Callable[[list[PyTree]], Scene] | None = None  # host side: a list of ``inner`` -> what our viewer plays
    tasks: Tasks | None = None
    levels: Levels | None = None


class Network(NamedTuple):
    """``init(key) -> params`` and ``apply(params, *inputs) -> outputs``."""

    init: Callable[..., PyTree]
    apply: Callable[..., Any]


class Policy(NamedTuple):
    """Acting over whole episodes, with a memory where there is one; see ``memoryless`` for a plain act function.

    ``start(shape) -> carry`` for episodes side by side (``shape`` is ``()`` for one), then at every step
    ``step(carry, observation [..., O], reward [...], key) -> (action [..., A], carry)``. ``reward`` is the one that the
    step before brought, 0 at first. Every leaf of ``carry`` begins with the axes of ``shape``.
    """

    start: Callable[[tuple[int, ...]], PyTree]
    step: Callable[[PyTree, Array, Array, Key], tuple[Array, PyTree]]


def memoryless(act: Callable[[Array, Key], Array] | Policy) -> Policy:
    """``act(observation, key) -> action`` as a ``Policy`` with an empty memory; a ``Policy`` as it is."""
    if isinstance(act, Policy):
        return act
    return Policy(lambda shape: (), lambda carry, observation, reward, key: (act(observation, key), carry))


class ZeroShot(NamedTuple):
    """What an agent that was trained without rewards can do once there is a task.

    ``infer_z(state, observation [N, O], reward [N]) -> z [D]`` from labelled states: ``observation`` is what a step led
    to, ``reward`` what it brought. ``goal_z(state, goal [O]) -> z [D]`` to reach one state. ``act(state, observation
    [..., O], z [D], key) -> action [..., A]``, greedy. ``policy(state, z [D]) -> Policy`` is how an agent with a memory
    goes about a task over an episode; its ``act`` then is the first step of one.
    """

    infer_z: Callable[[PyTree, Array, Array], Array]
    goal_z: Callable[[PyTree, Array], Array]
    act: Callable[[PyTree, Array, Array, Key], Array]
    policy: Callable[[PyTree, Array], Policy] | None = None


class Played(NamedTuple):
    """``E`` environments on a level each: ``level`` leaves ``[E, ...]``; ``slot`` ``[E]`` int32, where in its buffer
    the curriculum has it, -1 nowhere; the steps ``rows`` ``[T, E, ...]`` and what the agent that acted expected,
    ``value`` of the observations and ``next_value`` of what followed, ``[T, E]``."""

    level: PyTree
    slot: Array
    rows: Transition
    value: Array
    next_value: Array


class Curriculum(NamedTuple):
    """Who chooses the levels: pure functions over a state, so that populations, checkpoints and resuming see nothing
    new.

    ``init(key, hyper) -> state``. ``propose(state, key, hyper, iteration) -> (level, slot)``, as in ``Played``, of
    which the first ``num_envs`` are learned from and ``extra`` more are only scored. ``record(state, played, hyper,
    iteration) -> (state, metrics)`` sees how they went. ``iteration`` is an unbatched int32; the first ``warmup`` ones
    have a negative number, and nothing is learned in them.
    """

    init: Callable[[Key, PyTree], PyTree]
    propose: Callable[[PyTree, Key, PyTree, Array], tuple[PyTree, Array]]
    record: Callable[[PyTree, Played, PyTree, Array], tuple[PyTree, Metrics]]
    extra: int = 0
    warmup: int = 0


class Agent(NamedTuple):
    """Three pure functions, made by ``agents.<name>.make(config, spec)``; and what only some agents have.

    ``init(key, hyper) -> state``; ``update(state, batch, hyper, key, step) -> (state, metrics)`` with ``step`` an
    unbatched int32 counted from the start of training; ``act(state, observation [..., O], hyper, key, explore) ->
    action [..., A]`` with ``explore`` a Python bool.

    ``sample(data, key, batch_size) -> batch`` is how the agent wants its batches drawn; None: uniform transitions.
    ``prepare(data) -> data`` makes of a data set what ``sample`` takes, such as the set and an index of it: once, on
    concrete arrays, by whoever starts a run (the jobs do); None: the data set as it is.
    ``begin(state, data, segment) -> state`` is for what an agent must see of all data before it learns, such as their
    moments: loops call it before the updates of a segment, with its unbatched number; at others than 0 the state stays
    as it is.
    ``replay(buffer, key, batch_size, stride) -> batch`` draws from a replay what ``sample`` draws from a data set, for
    agents that want more than transitions when they are trained on; see ``data.buffers.following`` for ``stride``.
    ``policy(state, hyper, explore) -> Policy`` is how an agent with a memory acts over an episode; its ``act`` then is
    the first step of one. ``zero_shot`` serves any reward after training without one. ``measure(state, batch, hyper,
    key) -> metrics`` is what would cost too much at every update: loops ask for it once per segment. ``kind`` says what
    it learns from: ``offline`` a data set, ``off_policy`` a replay, ``on_policy`` its latest trajectory, ``tokens``
    its latest completions; its module's ``KIND``. ``cycle``, for an agent that does not do the same at every step:
    ``P`` functions like ``update``, of which ``cycle[step % P]`` does at ``step`` what ``update`` does (to rounding)
    without a condition; a loop may run all of them in a row as one body. Empty: ``update`` for every step.
    ``distribution(state, params, observation)`` is what the policy with the actor's parameters ``params`` (those of
    ``state`` or earlier ones) draws its actions from: logits ``[..., A]`` where actions are choices, else the mean and
    log standard deviation ``[..., A]`` of a normal, before any squashing; of agents that can be held to what they were.
    ``q(state, observation [..., O], action [..., A]) -> [...]`` is what its critics make of an action, the least.
    ``beside(data, key, rows) -> extras`` is what an on-policy agent that is held to a data set wants of it beside each
    trajectory ``rows [T, E]``: it finds them in ``batch.extras``.
    ``imitate``, of a token agent, is like ``update`` and learns the one completion of each prompt by heart, which its
    reference then is; its ``act`` takes prompts ``[..., P]`` and gives completions ``[..., T]``. One with ``turns`` 2
    answers every prompt twice: its ``act`` takes those of the second turn as well and tells them by their width.
    ``curriculum(levels, num_envs) -> Curriculum``, of an on-policy agent, chooses the levels of a world that has some;
    it asks for ``value(state, observation [..., O]) -> [...]``, what the agent expects.
    """

    init: Callable[[Key, PyTree], PyTree]
    update: Callable[[PyTree, Transition, PyTree, Key, Array], tuple[PyTree, Metrics]]
    act: Callable[[PyTree, Array, PyTree, Key, bool], Array]
    sample: Callable[[Dataset, Key, int], Transition] | None = None
    policy: Callable[[PyTree, PyTree, bool], Policy] | None = None
    zero_shot: ZeroShot | None = None
    measure: Callable[[PyTree, Transition, PyTree, Key], Metrics] | None = None
    prepare: Callable[[Dataset], PyTree] | None = None
    kind: str = "offline"
    cycle: tuple[Callable[[PyTree, Transition, PyTree, Key, Array], tuple[PyTree, Metrics]], ...] = ()
    replay: Callable[[Any, Key, int, int], Transition] | None = None
    begin: Callable[[PyTree, PyTree, Array], PyTree] | None = None
    beside: Callable[[PyTree, Key, Transition], dict[str, Array]] | None = None
    imitate: Callable[[PyTree, Completions, PyTree, Key, Array], tuple[PyTree, Metrics]] | None = None
    turns: int = 1
    distribution: Callable[[PyTree, PyTree, Array], Any] | None = None
    q: Callable[[PyTree, Array, Array], Array] | None = None
    curriculum: Callable[[Levels, int], Curriculum] | None = None
    value: Callable[[PyTree, Array], Array] | None = None


def policy_of(agent: Agent, state: PyTree, hyper: PyTree, explore: bool = False) -> Policy:
    """How ``agent`` acts in ``state``, with its memory if it has one."""
    if agent.policy is not None:
        return agent.policy(state, hyper, explore)
    return memoryless(lambda observation, key: agent.act(state, observation, hyper, key, explore))


class Paper(NamedTuple):
    """Where an algorithm comes from; every agent module has one as ``PAPER``."""

    title: str
    authors: str
    year: int
    url: str
    deviations: str = ""  # where we differ from the paper or its released code, and why


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a paper does to data before training, and for how long it trains; an agent module's ``PROTOCOL``.

    On D4RL's locomotion tasks where a paper has several; ``note`` says what it does elsewhere. A module without one
    trains on the data as they are. ``data.normalisation`` carries it out.
    """

    normalise: bool = False  # observations standardised over the data set: (x - mean) / (std + eps)
    eps: float = 1e-3
    reward_scale: float | str = 1.0  # a factor, or "returns": 1000 over the range of the episodes' returns
    reward_shift: float = 0.0  # added after scaling
    sparse: tuple[float, float] | None = None  # scale and shift where rewards are 0 before a goal and 1 at it (AntMaze)
    batch_size: int | None = None  # None: no published number
    updates: int | None = None
    rewards: bool = True  # whether it learns from the rewards in the data
    note: str = ""


class Judge(NamedTuple):
    """Evaluation on the host, between segments, where no compiled program can step the world.

    ``measure(states, segment, keys, hypers) -> {name: [M]}`` gets members with a leading axis ``[M]``, their run keys
    and settings alike, and the number of the segment that has ended, and gives one number per member under each of
    the names in ``metrics``. Every random number in it is derived from the member's key and the segment.
    """

    metrics: tuple[str, ...]
    measure: Callable[[PyTree, int, Array, PyTree], dict[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A whole experiment for one member, cut into segments; made by a loop, mapped by ``population.sweep``.

    ``init(key, hyper) -> state`` begins it; that of a loop which goes on with a trained agent is ``init(key, hyper,
    start)``, with the agent's state as ``start``.

    ``train`` runs segment ``index`` (int32): ``train(state, index, key, hyper, data) -> (state, metrics)``, metrics
    being means over the segment. ``evaluate(state, index, key, hyper) -> metrics`` or None. ``key`` is always the
    member's own run key: every random number is derived from it by ``fold_in``, so a resumed run repeats exactly.
    Calling the run executes all segments in one ``scan``, metrics stacked: ``(key, hyper, data) -> (state, history)``.
    ``judge`` evaluates on the host instead, after every segment of a population; calling the run does without.
    """

    init: Callable[..., PyTree]
    train: Callable[[PyTree, Array, Key, PyTree, PyTree], tuple[PyTree, Metrics]]
    evaluate: Callable[[PyTree, Array, Key, PyTree], Metrics] | None
    segments: int
    updates_per_segment: int
    judge: Judge | None = None

    def segment(self, state: PyTree, index: Array, key: Key, hyper: PyTree, data: PyTree) -> tuple[PyTree, Metrics]:
        """Train for one segment, then evaluate."""
        state, metrics = self.train(state, index, key, hyper, data)
        if self.evaluate is not None:
            metrics = {**metrics, **self.evaluate(state, index, key, hyper)}
        return state, metrics

    def __call__(self, key: Key, hyper: PyTree, data: PyTree = None, start: PyTree = None) -> tuple[PyTree, Metrics]:
        def body(state, index):
            return self.segment(state, index, key, hyper, data)

        state = self.init(key, hyper) if start is None else self.init(key, hyper, start)
        return jax.lax.scan(body, state, jnp.arange(self.segments))

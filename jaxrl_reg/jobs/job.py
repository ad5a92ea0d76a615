"""What a kind of run is, as one value: all that training, recording, evaluation and report know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jaxrl_reg.data import Preprocessing
    from jaxrl_reg.jobs.learners import Learner
    from jaxrl_reg.jobs.progress import OnTick, Say
    from jaxrl_reg.types import Agent, Dataset, Env, Key, Policy, PyTree, Run, Spec, TokenSpec, TokenTask


Keep = Callable[[Any, Any], "Policy"]  # state, hyper -> policy
Show = Callable[[Keep, Any, Any, Any], Mapping[str, str]]  # keep, state, hyper, key -> file name -> text


class Axis(NamedTuple):
    """Along what a run goes: ``name`` in words (updates, environment steps), the ``column`` of ``metrics.parquet`` that
    counts it, and how many of it a member does ``per_segment``. A run that goes on from another has so many of it, and
    so many segments, ``behind`` it; ``phase`` is what its rows are called then."""

    name: str
    column: str
    per_segment: int
    behind: int = 0
    segments_behind: int = 0
    phase: str = ""


class Score(NamedTuple):
    """What ranks members. ``metric`` is the column of ``metrics.parquet``, None where nothing is rolled out; ``name``
    what the report calls it; ``baseline`` the name of the rival that it compares with and ``baseline_words`` how it
    calls that. ``references`` are the returns that are 0 and 100 of a normalised score ``eval/score``."""

    metric: str | None = "eval/return"
    name: str = "return"
    baseline: str | None = None
    baseline_words: str = ""
    references: tuple[float, float] | None = None

    @property
    def reported(self) -> str:
        """The metric that a run itself reports: a normalised score is made of its returns afterwards."""
        return "eval/return" if self.metric in (None, "eval/score") else self.metric

    def columns(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics with ``eval/score`` beside ``eval/return`` where there are references."""
        from jaxrl_reg.data import normalised

        metrics = dict(metrics)
        if self.references is not None and "eval/return" in metrics:
            metrics["eval/score"] = normalised(metrics["eval/return"], *self.references)
        return metrics


class Inference(NamedTuple):
    """What an agent that serves tasks knows of each of ``names`` once it has seen ``labelled`` states:
    ``vectors(learner)(state, labelled)`` is ``[T, D]``."""

    names: Sequence[str]
    labelled: Any
    vectors: Callable[[Learner], Callable[[Any, Any], Any]]


class Job(NamedTuple):
    """A run that can be trained, made by ``make(config)`` of a module of ``jobs.kinds``.

    ``learners`` are the agent's settings in groups that share a program, ``rivals`` what is trained beside them on the
    same budget. ``run(learner, episodes)`` gives the agent and what ``population.sweep`` and ``population.race`` train
    with ``data`` as its argument, evaluated on so many episodes (None: as the config says). ``collect(say, on_tick)``
    is there when data must be made first; it returns the job with its data, and ``given(data)`` the job as it would be
    with these. ``keep(learner)(state, hyper)`` is the
    policy that a member leaves, and ``show(keep(learner), state, hyper, key)`` what the report shows of the best one:
    file name -> text. A run that goes on from another has ``start(learner)``, the states ``[H, S, ...]`` that its
    members begin from, and ``history()``, the rows of before. Actions are in the units that the data had before they
    were rescaled, else in [-1, 1], unless ``actions`` says otherwise.
    """

    learners: Sequence[Learner]
    run: Callable[[Learner, int | None], tuple[Agent, Run]]
    axis: Axis
    budget: Callable[[Learner], str]  # in words: 20,000 updates of batch 256
    keep: Callable[[Learner], Keep]
    score: Score = Score()
    rivals: Sequence[Learner] = ()
    world: Env | TokenTask | None = None  # what it acts in
    data: PyTree = None
    about: Mapping[str, Any] = {}  # what the data are; ``dataset`` of summary.json
    preprocessing: Mapping[str, Preprocessing] = {}  # of the data, by the name of the agent that is trained on them
    lines: Sequence[str] = ()  # said before training
    show: Show | None = None
    infer: Inference | None = None  # of an agent that serves tasks
    collect: Callable[[Say, OnTick], Job] | None = None
    given: Callable[[Dataset], Job] | None = None
    start: Callable[[Learner], PyTree] | None = None
    actions: Mapping[str, Sequence[float]] | None = None  # "low" and "high" of the environment's own units
    history: Callable[[], Iterable[dict[str, Any]]] | None = None
    exhibit: str = "The best run, one episode"  # what the report calls what it shows
    sets: Sequence[tuple[str, str]] = ()  # of held-out levels, each with the metric that tells how many are solved
    met: Sequence[tuple[str, str]] = ()  # environments learnt one after another, each with the metric that judges it

    def facts(self) -> dict[str, Any]:
        """What ``summary.json`` says of the kind, so that the report need not know it."""
        from jaxrl_reg.jobs.preprocessing import facts_of

        facts: dict[str, Any] = {"axis": self.axis._asdict(), "score": self.score._asdict(), "exhibit": self.exhibit}
        if self.sets:
            facts["sets"] = [list(one) for one in self.sets]
        if self.met:
            facts["met"] = [list(one) for one in self.met]
        if self.preprocessing:
            facts["preprocessing"] = facts_of(self.preprocessing)
        spec = self.world.spec if self.world is not None else getattr(self.data, "spec", None)
        if spec is not None:
            facts["spec"] = dataclasses.asdict(spec)
            if hasattr(spec, "action_dim") and not spec.discrete:
                facts["actions"] = dict(self.actions or self._bounds(spec))
        return {**facts, "dataset": dict(self.about)} if self.about else facts

    def _bounds(self, spec: Spec) -> dict[str, list[float]]:
        low, high = getattr(self.data, "action_bounds", None) or ((-1.0,) * spec.action_dim, (1.0,) * spec.action_dim)
        return {"low": list(low), "high": list(high)}


def greedy(spec: Spec | TokenSpec, part: Callable[[Any], Any] = lambda state: state) -> Callable[[Learner], Keep]:
    """``Job.keep`` of agents that act greedily, in the units of their environment; ``part(state)`` is the agent's part
    of a member's state."""

    def keep(member: Learner) -> Keep:
        from jaxrl_reg.types import policy_of

        agent = member.make(member.config, spec)
        return lambda state, hyper: policy_of(agent, part(state), hyper)

    return keep


def episode_of(world: Env, title: str) -> Show | None:
    """``Job.show`` of one recorded episode: ``episode.html`` is self-contained and goes into the report,
    ``rollout.html`` is the environment's own viewer. None for an environment that cannot draw."""
    if world.render is None and world.draw is None:
        return None

    def show(act: Keep, state: PyTree, hyper: PyTree, key: Key) -> Mapping[str, str]:
        import jax

        from jaxrl_reg.evaluation import viewer
        from jaxrl_reg.loops.rollout import record

        steps = world.spec.max_episode_steps
        recording = jax.jit(lambda *args: record(world, act(*args[:2]), args[2], steps))(state, hyper, key)
        frames, pages = recording.frames(), {}
        if world.draw is not None:
            pages["episode.html"] = viewer.page(world.draw(frames), title)
        if world.render is not None:
            pages["rollout.html"] = world.render(frames)
        return pages

    return show

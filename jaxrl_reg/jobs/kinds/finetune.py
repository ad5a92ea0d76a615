"""Offline to online: every member of a finished offline run goes on in the environment, its data beside the replay."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from jaxrl_reg.errors import UserError
from jaxrl_reg.jobs import kinds, preprocessing
from jaxrl_reg.jobs.collection import data_lines
from jaxrl_reg.jobs.job import Axis, Job, episode_of, greedy
from jaxrl_reg.jobs.kinds import offline
from jaxrl_reg.jobs.kinds.online import CAPACITY, OnlineConfig, loop_settings
from jaxrl_reg.jobs.learners import SCHEDULES, Learner, learners, make_env
from jaxrl_reg.jobs.settings import NO_ENV, SCALES, JobConfig, SweepConfig, option, seeds_of

if TYPE_CHECKING:
    from jaxrl_reg.data import Preprocessing
    from jaxrl_reg.types import Agent, Array, Env, PyTree, Run

# One update per step, as in the papers; several environments share the cost of a step of physics.
SIZES: dict[str, dict[str, Any]] = {
    "small": {"steps": 20_000, "num_envs": 8, "unroll": 1, "updates_per_iteration": 8},
    "full": {"steps": 1_000_000, "num_envs": 8, "unroll": 1, "updates_per_iteration": 8},
}
POOLED = "pooled"  # a share that is not fixed: every row of data and replay is as likely
SCORED = ("score_random", "score_expert", "normalised", "foreign_scores")  # both phases are, by the same numbers
SHARE = 0.5  # of agents that do not say theirs


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(OnlineConfig):
    """Going on online from a finished offline run, with its agent, settings, seeds and data.

    A number that is None is as ``scale`` says (see ``SIZES``); ``continuing`` makes one from a run directory.
    """

    kind: ClassVar[str] = "finetune"

    run: str = option("", "directory of the offline run")
    dataset: str = option("", "data set or file that is drawn from beside the replay [that of the offline run]")
    refit_statistics: bool = option(
        False, "take statistics of observations and rewards anew on the data set, instead of the policy's own"
    )
    offline_updates: int = option(0, "gradient updates of the offline run, per member")
    offline_segments: int = option(0, "their evaluations")
    offline_fraction: float | str = option(
        None,
        f"share of each batch that is drawn from the data, 0 to below 1; {POOLED}: every row of data and replay is as "
        f"likely [as the agent's paper does, else {SHARE}]",
        metavar="F",
    )
    warmup: int = option(None, "steps before the first update, the agent exploring [one iteration]")

    def presets(self) -> Mapping[str, Any]:
        from jaxrl_reg import agents

        sizes = SIZES[self.scale]
        chosen = {**SCALES[self.scale], **sizes}
        chosen |= {name: value for name in sizes if (value := getattr(self, name)) is not None}
        if self.steps is None:
            unit = (self.segments or chosen["segments"]) * chosen["num_envs"] * chosen["unroll"]
            chosen["steps"] = math.ceil(chosen["steps"] / max(unit, 1)) * unit
        chosen["warmup"] = each = chosen["num_envs"] * chosen["unroll"]
        chosen["capacity"] = min(chosen["steps"] + each + (self.warmup or each), CAPACITY)
        share = getattr(agents.load(self.agent), "OFFLINE_FRACTION", SHARE)
        chosen["offline_fraction"] = POOLED if share is None else share
        return chosen

    def length(self) -> int:
        """Nothing is scheduled over this phase: learning rates that fell to 0 offline are constant here."""
        return 0

    def check(self) -> None:
        share = self.offline_fraction
        if share != POOLED and not (isinstance(share, (int, float)) and 0.0 <= share < 1.0):
            raise UserError(f"offline_fraction={share} is neither a share from 0 to below 1 nor {POOLED}")
        super().check()


Config = FinetuneConfig
WORDS = "fine-tuning in the environment"
PRESETS = {scale: {**SCALES[scale], **SIZES[scale]} for scale in SCALES}


def continuing(directory: str | pathlib.Path, **given: Any) -> FinetuneConfig:
    """The config of going on from the offline run in ``directory``; ``given`` are fields of ``FinetuneConfig``.

    ``settings`` among them join those of the run; the others replace them.

    Raises:
      UserError: for a run that is not offline, not finished, without an environment, or of which settings were stopped
        or moved.
    """
    from jaxrl_reg.jobs.files import finished, load_config

    before = load_config(directory)
    if not isinstance(before, SweepConfig):
        raise UserError(
            f"{directory} is {kinds.load(before.kind).WORDS}; finetune goes on from a run on a data set, or from "
            "one in an environment in another: name that with --env"
        )
    if not finished(directory):
        raise UserError(f"{directory} has not finished; first: jaxrl-reg resume {directory}")
    if before.env == NO_ENV:
        raise UserError(f"{directory} was trained without an environment, so there is none to go on in")
    if before.env.startswith("gymnasium/"):
        raise UserError(f"{before.env} runs on the host and can judge a run, but is not one to go on learning in")
    if before.early_stop is not None:
        raise UserError(
            f"{directory} stopped settings early ({before.early_stop}), so they have not all been trained to the end; "
            "train those that matter without --early-stop"
        )
    if before.evolve:
        raise UserError(
            f"{directory} moved its hyperparameters while it was trained (--evolve), so its slots have no values to "
            "go on with; train a run with those that it came to"
        )
    shared = {field.name: getattr(before, field.name) for field in dataclasses.fields(JobConfig)}
    settings = {**before.settings, **given.pop("settings", {})}
    shared |= {
        "run": os.path.abspath(directory),
        "dataset": dataclasses.replace(before, dataset=given.pop("dataset", before.dataset)).settled().dataset,
        "batch_size": before.batch_size,
        "offline_updates": before.updates,
        "offline_segments": before.segments,
        "segments": None,
    }
    return FinetuneConfig(**{**shared, "settings": settings, **given})


def make(config: FinetuneConfig) -> Job:
    """The job of a config: the states are those of the offline run, and the data too unless others are named.

    What was done to the data of the offline run is done to what is learned from here: the policy keeps its own
    statistics, whatever data are beside it, unless they are asked to be taken anew.

    Raises:
      UserError: for a run or data that are not there any more, or are others, or an agent that cannot go on.
    """
    from jaxrl_reg.io.files import read_json
    from jaxrl_reg.jobs.files import load_config

    before = load_config(config.run)
    assert isinstance(before, SweepConfig)
    facts = read_json(pathlib.Path(config.run) / "summary.json")
    first = offline.reopen(before, facts)
    beside = offline.make(dataclasses.replace(before, dataset=config.dataset))
    known, found = facts["dataset"].get("fingerprint"), beside.about.get("fingerprint")
    if beside.collect is not None:
        raise UserError(f"{facts['dataset']['file']}, the data of {config.run}, is not there; put it back")
    if config.dataset == before.dataset and known not in (None, found):
        raise UserError(
            f"{beside.about['file']} holds other data than {config.run} was trained on; put those back, or name these "
            "with --dataset"
        )
    done = beside.preprocessing if config.refit_statistics else first.preprocessing
    job = _job(config, make_env(config), done)
    refuse_other_programs(first, job)
    words = _statistics(config, done)
    about = {**beside.about, **{name: facts["dataset"][name] for name in SCORED}, "preprocessing": words}
    return job._replace(
        data=beside.data,
        about=about,
        actions=facts.get("actions"),
        score=offline.score_of(about, job),
        lines=[
            *data_lines(beside.about),
            f"goes on from {config.run}, {config.offline_updates:,} updates",
            *(f"{name} is trained on {text}" for name, text in words.items()),
        ],
        start=lambda member: _states(config, before, first, member),
        history=lambda: _history(config),
    )


def reopen(config: FinetuneConfig, facts: Mapping[str, Any]) -> Job:
    """The job of a run that was trained; it needs neither the data nor the offline run."""
    job = _job(config, make_env(config), preprocessing.known(facts))
    return job._replace(score=offline.score_of(facts["dataset"], job))


def run_of(
    member: Learner, config: FinetuneConfig, env: Env, done: Preprocessing | None, episodes: int | None = None
) -> tuple[Agent, Run]:
    """The agent for this environment and its run, evaluated on ``episodes`` episodes.

    ``member`` acts on the environment's own observations; ``done`` is what becomes of rows before they are learned
    from, as of the data.
    """
    import jax.numpy as jnp

    from jaxrl_reg.data import preprocess_batch
    from jaxrl_reg.loops.finetune import finetune
    from jaxrl_reg.loops.online import Start

    agent = member.make(member.config, env.spec)
    share = config.offline_fraction
    run = finetune(
        agent,
        env,
        start=Start(config.offline_updates, config.offline_segments),
        offline_fraction=None if share == POOLED else float(share),
        preprocess=None if done is None else lambda rows: preprocess_batch(rows, done),
        **loop_settings(config, env, episodes),
    )

    def train(state: PyTree, index: Array, *rest: Any) -> tuple[PyTree, dict[str, Any]]:
        state, metrics = run.train(state, index, *rest)
        return state, {**metrics, "env_steps": jnp.float32(config.steps // config.segments) * (index + 1)}

    return agent, dataclasses.replace(run, train=train)


def _job(config: FinetuneConfig, env: Env, done: Mapping[str, Preprocessing]) -> Job:
    """What the job is without its data and its past; its agents preprocess as ``done`` says."""
    from jaxrl_reg.data import describe_preprocessing

    own = done.get(config.agent)
    own = own if own is not None and describe_preprocessing(own) else None  # nothing to do
    students = [preprocessing.wrapped(one, own) for one in learners(config.agent, config)]
    for student in students:
        run_of(student, config, env, own)  # wrong settings show here
    each = config.steps // (config.segments * config.num_envs * config.unroll) * config.updates_per_iteration
    share = POOLED if config.offline_fraction == POOLED else f"{float(config.offline_fraction):g}"
    return Job(
        learners=students,
        world=env,
        run=lambda member, episodes: run_of(member, config, env, own, episodes),
        preprocessing=dict(done),
        axis=Axis("updates", "update", each, config.offline_updates, config.offline_segments, "online"),
        budget=lambda member: (
            f"{config.steps:,} environment steps of {config.num_envs} environments, {config.unroll} at a time, "
            f"{config.updates_per_iteration} updates of batch {config.batch_size} each, share of the data {share}"
        ),
        keep=greedy(env.spec, lambda state: state.agent),
        show=episode_of(env, f"{config.agent} in {config.env}"),
    )


def _statistics(config: FinetuneConfig, done: Mapping[str, Preprocessing]) -> dict[str, str]:
    """What is done to the agent's data, in words, and whose statistics those are; empty where nothing is done."""
    from jaxrl_reg.data import describe_preprocessing

    text = describe_preprocessing(done[config.agent]) if config.agent in done else ""
    whose = "taken anew on these data" if config.refit_statistics else "kept from the offline run"
    return {config.agent: f"{text} ({whose})"} if text else {}


def refuse_other_programs(first: Job, job: Job) -> None:
    """Raises ``UserError`` where a setting would change what a trained state is made of."""
    for old, new in zip(first.learners, job.learners, strict=True):
        for name, value in dataclasses.asdict(new.config).items():
            if name not in SCHEDULES and value != getattr(old.config, name):
                raise UserError(
                    f"{name} is {getattr(old.config, name)} in the agent that was trained and cannot become {value}; "
                    "hyperparameters can be set anew"
                )


def _states(config: FinetuneConfig, before: SweepConfig, first: Job, member: Learner) -> PyTree:
    """The trained members of one program, leaves ``[H, S, ...]``."""
    import jax

    from jaxrl_reg import population

    (old,) = (one for one in first.learners if one.folder == member.folder)
    folder = pathlib.Path(config.run) / "checkpoints" / old.folder
    found = population.restore(folder, first.run(old, None)[1], seeds_of(before), old.hypers)
    if found is None or (found.updates != before.updates).any():
        raise UserError(f"{folder} holds no checkpoint of the end of training; {config.run} cannot be gone on from")
    shape = population.setting_count(old.hypers), before.seeds
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), found.states)


def _history(config: FinetuneConfig) -> Iterator[dict[str, Any]]:
    """The offline run's rows of this agent, which the report's curve begins with."""
    from jaxrl_reg.io.sinks import read_parquet

    rows = read_parquet(pathlib.Path(config.run) / "metrics.parquet")
    rows = rows[(rows["agent"] == config.agent) & (rows["evaluation"] == 0)]
    for row in rows.to_dict("records"):
        yield {**row, "phase": "offline", "env_steps": 0.0}

"""Offline training: a population and a cloning baseline on one data set, which is collected or read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError, need
from jaxrl_reg.jobs import hosted, learnt_rewards, preprocessing, tasks
from jaxrl_reg.jobs.collection import WRITTEN_WITH, collect, data_lines, dataset_path, load_data, summarise
from jaxrl_reg.jobs.job import Axis, Job, Score, episode_of, greedy
from jaxrl_reg.jobs.learners import BASELINE, Learner, learner, learners, make_env
from jaxrl_reg.jobs.settings import COLLECTED, EXPLORED, NO_ENV, SCALES, SweepConfig

if TYPE_CHECKING:
    from jaxrl_reg.jobs.progress import OnTick, Say
    from jaxrl_reg.types import Agent, Dataset, Env, Run, Spec

Config = SweepConfig
WORDS = "training on a data set"
PRESETS = {  # of ``full``, what the agent's paper says goes before
    scale: {name: value for name, value in preset.items() if scale != "full" or name not in ("updates", "batch_size")}
    for scale, preset in SCALES.items()
}


def make(config: SweepConfig) -> Job:
    """The job of a config; its data are read if they are there, else ``collect`` makes them.

    Raises:
      UserError: for a config that cannot be run, or data that do not fit the environment.
    """
    from jaxrl_reg.population import hosts

    if config.env == NO_ENV:
        return _without_world(config)
    if hosted.asked(config):
        return preprocessing.fitted(_on_the_host(config), config)
    env, job = _open(config)
    source = dataset_path(config)
    if source is None or source.is_file():
        return _with_data(config, env, job, load_data(config, env))
    if not hosts.alone():
        raise UserError(
            f"{source} does not exist; make it with one process first: jaxrl-reg collect --env {config.env}"
        )

    need(*WRITTEN_WITH)

    def collected(say: Say, on_tick: OnTick) -> Job:
        collect(config, say=say, on_tick=on_tick)
        return _with_data(config, env, job, load_data(config, env))

    return job._replace(collect=collected, given=lambda data: _with_data(config, env, job, data))


def reopen(config: SweepConfig, facts: Mapping[str, Any]) -> Job:
    """The job of a run that was trained, from what its ``summary.json`` says of the data."""
    if config.env == NO_ENV:
        return _without_world(config)
    done = preprocessing.known(facts)
    if hosted.asked(config):
        return preprocessing.applied(_on_the_host(config), done)
    env, job = _open(config)
    if _serves_tasks(job, env):
        return preprocessing.applied(_given(config, env, job, load_data(config, env)), done)
    return preprocessing.applied(job._replace(score=score_of(facts["dataset"], job)), done)


def score_of(about: Mapping[str, Any], job: Job) -> Score:
    """Normalised where the data set has both references, from what ``summarise`` says of it."""
    baseline = job.rivals[0].name if job.rivals else None
    words = "Behaviour cloning" if baseline else ""
    if not about["normalised"]:
        return Score("eval/return", "return", baseline, words)
    references = float(about["score_random"]), float(about["score_expert"])
    return Score("eval/score", "normalised score", baseline, words, references)


def run_of(
    member: Learner, config: SweepConfig, env: Env | None, episodes: int | None = None, spec: Spec | None = None
) -> tuple[Agent, Run]:
    """The agent for this environment (or for data of this ``spec``) and its training run, evaluated on ``episodes``
    episodes; never without an environment."""
    from jaxrl_reg.evaluation import returns
    from jaxrl_reg.loops.offline import offline

    agent = member.make(member.config, env.spec if env is not None else spec)
    count = config.eval_episodes if episodes is None else episodes
    run = offline(
        agent,
        batch_size=config.batch_size,
        updates=config.updates,
        segments=config.segments,
        evaluate=None if env is None else returns.evaluator(env, count),
    )
    return agent, run


def _open(config: SweepConfig) -> tuple[Env, Job]:
    """The environment, and the job without its data."""
    _refuse(config)
    students = learners(config.agent, config)
    rivals = [] if config.agent == BASELINE else [learner(BASELINE, config, own=False)]
    env = make_env(config)
    for student in students:
        student.make(student.config, env.spec)  # wrong settings show here
    return env, _job(config, students, rivals, env.spec, env)


def _job(
    config: SweepConfig, students: Sequence[Learner], rivals: Sequence[Learner], spec: Spec, env: Env | None
) -> Job:
    """What all jobs of this kind have."""
    return Job(
        learners=students,
        rivals=rivals,
        world=env,
        run=lambda member, episodes: run_of(member, config, env, episodes, spec),
        axis=Axis("updates", "update", config.updates // config.segments),
        budget=lambda member: f"{config.updates:,} updates of batch {config.batch_size}",
        keep=greedy(spec),
        show=None if env is None else episode_of(env, f"{config.agent} in {config.env}"),
    )


def _refuse(config: SweepConfig) -> None:
    from jaxrl_reg import agents

    if agents.load(config.agent).KIND == "on_policy":
        raise UserError(
            f"agent {config.agent!r} learns from its own fresh experience and cannot be trained on a data set"
        )
    learnt_rewards.refuse(config)


def _rewarded(
    config: SweepConfig, data: Dataset, about: Mapping[str, Any]
) -> tuple[Dataset, dict[str, Any], list[str]]:
    """The data with the reward that is trained on, the facts about them with that, and what the run says of them and
    of its settings."""
    data, told = learnt_rewards.applied(data, config)
    said = preprocessing.without_rewards(config.agent, data, about["file"])
    facts = {**about, "notes": [*about["notes"], *told]}
    return data, facts, [*data_lines(about), *told, *said, *_unpublished(config)]


def _without_world(config: SweepConfig) -> Job:
    """Training on a file where there is no simulator: no scores, hence nothing to compare with and nothing to stop."""
    _refuse(config)
    if config.dataset in (*COLLECTED, *EXPLORED):
        raise UserError(f"--env {NO_ENV} trains on data of yours, which {config.dataset} is not: give --dataset FILE")
    for flag, asked in (("--early-stop", config.early_stop is not None), ("--evolve", config.evolve)):
        if asked:
            raise UserError(f"{flag} compares scores, and --env {NO_ENV} gives none")
    students = learners(config.agent, config)
    data = load_data(config, None)
    for student in students:
        student.make(student.config, data.spec)  # wrong settings show here
    about = summarise(data, config, dataset_path(config), None)
    data, about, lines = _rewarded(config, data, about)
    job = _job(config, students, [], data.spec, None)
    job = job._replace(data=data, about=about, score=Score(metric=None), lines=lines, show=None)
    return preprocessing.fitted(job, config)


def _on_the_host(config: SweepConfig) -> Job:
    """Training on a file, judged between segments in an environment that no compiled program can step."""
    _refuse(config)
    students = learners(config.agent, config)
    rivals = [] if config.agent == BASELINE else [learner(BASELINE, config, own=False)]
    world = hosted.world_of(config)
    for student in students:
        student.make(student.config, world.spec)  # wrong settings show here
    data = load_data(config, world)

    def run(member: Learner, episodes: int | None) -> tuple[Agent, Run]:
        agent, run = run_of(member, config, None, episodes, world.spec)
        return hosted.judged(agent, run, world, data, config.eval_episodes if episodes is None else episodes)

    about = summarise(data, config, dataset_path(config), world.spec.max_episode_steps)
    data, about, lines = _rewarded(config, data, about)
    job = _job(config, students, rivals, world.spec, None)
    job = job._replace(data=data, about=about, run=run, actions=world.actions)
    lines = [*lines, hosted.line_of(world, config.eval_episodes)]
    return job._replace(score=hosted.score_of(world, score_of(about, job)), lines=lines)


def _with_data(config: SweepConfig, env: Env, job: Job, data: Dataset) -> Job:
    """The job with its data set, what they are and what is done to them, and the score that they allow."""
    return preprocessing.fitted(_given(config, env, job, data), config)


def _given(config: SweepConfig, env: Env, job: Job, data: Dataset) -> Job:
    about = summarise(data, config, dataset_path(config), env.spec.max_episode_steps)
    data, about, lines = _rewarded(config, data, about)
    job = job._replace(data=data, about=about, score=score_of(about, job), lines=lines, collect=None, given=None)
    return _judged_by_tasks(config, env, data, job) if _serves_tasks(job, env) else job


def _unpublished(config: SweepConfig) -> list[str]:
    """What is said of ``--scale full`` where the agent's paper names no budget."""
    if config.scale != "full":
        return []
    lacks = [name for name in ("updates", "batch_size") if name not in preprocessing.published(config.agent)]
    numbers = ", ".join(f"{name}={getattr(config, name):,}" for name in lacks)
    return [f"the paper of {config.agent} names no budget for data of its own: {numbers}"] if lacks else []


def _serves_tasks(job: Job, env: Env) -> bool:
    """Whether the agent learns without a task and serves any afterwards."""
    first = job.learners[0]
    return first.make(first.config, env.spec).zero_shot is not None


def _judged_by_tasks(config: SweepConfig, env: Env, data: Dataset, job: Job) -> Job:
    """The job of an agent that serves tasks: judged by all of them, each inferred from states of the data, beside a
    rival that is trained and judged on their mean."""
    from jaxrl_reg.loops import zero_shot

    known = tasks.known(env, data)
    world = zero_shot.mean_reward(env, known)
    labelled = tasks.label_rows(env, data, known, config)

    def run(member: Learner, episodes: int | None) -> tuple[Agent, Run]:
        if member.make(member.config, env.spec).zero_shot is None:
            return run_of(member, config, world, episodes)
        agent, run = run_of(member, config, env, episodes)
        count = config.eval_episodes if episodes is None else episodes
        return agent, dataclasses.replace(run, evaluate=zero_shot.evaluation(env, agent, known, labelled, count))

    lines = [line for line in job.lines if line != data_lines(job.about)[0]]
    if not data.rewarded and not (env.tasks is not None and "physics" in data.extras):
        lines.append("no rewards are known from which a task could be inferred: scores say what it does without one")
    judges = f"judged by the mean return over {', '.join(task.name for task in known)}"
    relabelled = zero_shot.mean_relabelled(env, data)
    about = summarise(relabelled, config, dataset_path(config), env.spec.max_episode_steps)
    lines = [data_lines(about)[0], *lines]
    return job._replace(
        data=relabelled,
        about=about,
        score=score_of(about, job),
        lines=[judges, *lines],
        run=run,
        keep=tasks.keeping(env, data, config),
        infer=tasks.inference(env, data, config),
    )

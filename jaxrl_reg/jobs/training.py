"""A sweep: train a population and a baseline, with checkpoints, and write the report; go on with a stopped one."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrl_reg.errors import UserError, need
from jaxrl_reg.jobs.collection import collect, data_line, dataset_path, load_data, summarise
from jaxrl_reg.jobs.files import create_run, default_directory, load_config, now, read_json, refuse_existing, write_json
from jaxrl_reg.jobs.learners import (
    BASELINE,
    Learner,
    known_tasks,
    label_rows,
    learner,
    learners,
    make_env,
    make_run,
    metric_rows,
    parameters,
    word,
)
from jaxrl_reg.jobs.progress import OnTick, Say, Standing, Tick, score_name, silent, with_score
from jaxrl_reg.jobs.settings import SweepConfig, resolve, seeds_of

if TYPE_CHECKING:
    import pandas as pd

    from jaxrl_reg.population import Plan, Result
    from jaxrl_reg.types import Dataset, Env


class Outcome(NamedTuple):
    """What ``sweep`` returns: where everything is, the trained populations, and the table of the report."""

    directory: pathlib.Path
    results: list[Result]  # one per group of settings that share a program
    baseline: Result | None
    table: pd.DataFrame  # without rows after a lean run

    @property
    def result(self) -> Result:
        """The trained population of a sweep whose settings share one program."""
        (only,) = self.results
        return only


def sweep(
    config: SweepConfig,
    *,
    directory: str | pathlib.Path | None = None,
    resume: bool = False,
    lean: bool = False,
    say: Say = silent,
    on_tick: OnTick = silent,
) -> Outcome:
    """Collect the data set if it is not there, train the population and a cloning baseline, evaluate, report.

    Args:
      config: see ``SweepConfig``.
      directory: the run directory; ``runs/<env>-<agent>-<time>`` without it.
      resume: continue a run that was interrupted in ``directory``.
      lean: only the population: no baseline, no recorded episode, no report.
      say: called with one line of text at each stage.
      on_tick: called while a stage makes progress.

    Several processes that have joined (``population.hosts``) call this alike and share the members; the data set must
    be there, and the run directory one that all see. Only process 0 writes files, and only it returns a table.

    Raises:
      UserError: for a config that cannot be run, before anything is written.
      population.Interrupted, KeyboardInterrupt: when stopped; ``resume(directory)`` goes on from the last checkpoint.
    """
    need("pandas")
    import pandas as pd

    from jaxrl_reg.evaluation import report as reporting
    from jaxrl_reg.loops import zero_shot
    from jaxrl_reg.population import hosts

    config = resolve(config)
    students, cloner = learners(config.agent, config), learner(BASELINE, config, own=False)
    env = make_env(config)
    made = [student.make(student.config, env.spec) for student in students]  # wrong settings show here
    serves_tasks = made[0].zero_shot is not None
    path = pathlib.Path(directory) if directory is not None else default_directory(config)
    # Of several processes the first writes the run directory; the others train their members and say nothing.
    writes = hosts.first()
    if not hosts.alone():
        path = pathlib.Path(hosts.from_first(str(path)))
    if not writes:
        say, on_tick = silent, silent
    if not resume and writes:
        refuse_existing(path)
    begun = time.perf_counter()
    source = dataset_path(config)
    data = load_data(config, env) if source is None or source.is_file() else None
    if data is None and not hosts.alone():
        raise UserError(
            f"{source} does not exist; make it with one process first: jaxrl-reg collect --env {config.env}"
        )
    if not resume and writes:
        create_run(path, config, students)
    hosts.gather(0.0)  # the run directory is there
    facts = read_json(path / "summary.json", default={})
    facts.setdefault("wall", {})
    if data is None:
        collect(config, say=say, on_tick=on_tick)
        data = load_data(config, env)
    facts["wall"].setdefault("collect and load the data", time.perf_counter() - begun)
    world = env
    if serves_tasks:
        tasks = known_tasks(env, data)
        say(f"judged by the mean return over {', '.join(task.name for task in tasks)}")
        data, world = zero_shot.mean_relabelled(env, data), zero_shot.mean_reward(env, tasks)
    facts["dataset"] = summarise(data, config, source, env.spec.max_episode_steps)
    if writes:
        write_json(path / "summary.json", facts)
    say(data_line(facts["dataset"]))

    if len(students) > 1:
        _say_groups(students, config, env, data, say)
    baseline = None
    if config.agent != BASELINE and not lean:
        baseline = _train(cloner, config, world, data, path, facts, resume, say, on_tick)
    results = [_train(student, config, env, data, path, facts, resume, say, on_tick) for student in students]
    if not writes:
        return Outcome(path, results, baseline, pd.DataFrame())
    if lean:
        facts["finished"] = now()
        write_json(path / "summary.json", facts)
        return Outcome(path, results, None, pd.DataFrame())

    say("writing the report")
    begun = time.perf_counter()
    _rollout(students, config, env, data, results, path)
    facts["wall"]["record the best member"] = time.perf_counter() - begun
    facts["finished"] = now()
    write_json(path / "summary.json", facts)
    table = reporting.write(path)
    return Outcome(path, results, baseline, table)


def train(config: SweepConfig, **options: Any) -> Outcome:
    """``sweep`` for a single setting: refuses a grid and drawn settings."""
    if config.grid or config.sample:
        raise UserError("train takes one setting: use --set name=value, or the verb sweep for a grid")
    return sweep(config, **options)


def resume(directory: str | pathlib.Path, *, say: Say = silent, on_tick: OnTick = silent) -> Outcome:
    """Continue a run from its newest checkpoint; the numbers are those of an uninterrupted run.

    Raises:
      UserError: if the directory holds no run.
    """
    return sweep(load_config(directory), directory=directory, resume=True, say=say, on_tick=on_tick)


def _train(
    member: Learner,
    config: SweepConfig,
    env: Env,
    data: Dataset,
    path: pathlib.Path,
    facts: dict[str, Any],
    resume: bool,
    say: Say,
    on_tick: OnTick,
) -> Result:
    import numpy as np

    from jaxrl_reg import population
    from jaxrl_reg.io import sinks

    agent, run = make_run(member, config, env, data)
    say(_members_line(member, config, parameters(agent, member)))
    stage = member.label
    plans: list[Plan] = []
    speeds: list[float] = []

    def on_plan(plan: Plan) -> None:
        plans.append(plan)
        say(str(plan))
        on_tick(Tick(stage, 0, config.updates, 0.0, 0.0))
        say(f"traced in {plan.trace_seconds:.1f} s, compiled in {plan.compile_seconds:.1f} s")

    request: dict[str, Any] = {
        "seeds": list(seeds_of(config)),
        "hypers": member.hypers,
        "data": data if agent.prepare is None else agent.prepare(data),
        "placement": config.placement,
        "chunk": config.chunk,
        "directory": path / "checkpoints" / member.folder,
        "resume": resume,
        "on_plan": on_plan,
        "on_note": lambda note: say(f"{stage}: {note}"),
    }
    early_stop = config.early_stop if member.name == config.agent else None
    rule = None if early_stop is None else population.stopping.named(early_stop)
    if not population.hosts.first():
        return population.sweep(run, **request) if rule is None else population.race(run, rule, **request)
    with _sinks(member, config, path) as write:
        standing: dict[tuple[int, int], Standing] = {}

        def record(metrics: Mapping[str, Any], segment: Any, done: int, per_second: float, left: float) -> None:
            """Rows and a tick for metrics ``[H, S]``, of one segment or of one for each setting (``[H]``)."""
            scored = with_score(metrics, facts)
            columns = {name: values[:, :, None] for name, values in scored.items()}
            for row in metric_rows(member, config, columns, first=segment, episodes=config.eval_episodes):
                write(row["update"], row)
                standing[row["setting"], row["seed"]] = _standing(member, row, facts)
            speeds.append(per_second)
            name = score_name(facts)
            score = None
            if name in scored:
                means = np.asarray(scored[name]).mean(axis=1)
                score = float(np.nanmax(means)) if np.isfinite(means).any() else float("nan")
            newest = max((one.updates for one in standing.values()), default=0)
            behind = "waiting" if config.early_stop == "asha" else "stopped"
            members = [
                one._replace(state=behind) if not one.state and one.updates < newest else one
                for one in standing.values()
            ]
            members.sort(key=lambda one: (one.state != "", -one.score if one.score == one.score else 0.0))
            total = run.segments * run.updates_per_segment
            on_tick(Tick(stage, done, total, per_second, left, score, members=members))

        def on_segment(progress: population.Progress) -> None:
            segment, rate = progress.segment - 1, progress.updates_per_second
            record(progress.metrics, segment, progress.updates, rate, progress.eta_seconds)

        def on_round(one: population.Round) -> None:
            each = one.updates // config.seeds // len(one.done)  # updates of a setting, on average
            most = run.segments * run.updates_per_segment * config.seeds * len(one.done)
            left = (most - one.updates) / max(one.updates_per_second, 1e-9)  # if nothing else stops
            record(one.metrics, one.done - 1, each, one.updates_per_second, left)

        begun = time.perf_counter()
        if rule is not None:
            result = population.race(run, rule, on_round=on_round, **request)
            done = result.segments_trained
            say(
                f"{stage}: {int((done < run.segments).sum())} of {done.size} settings stopped early; "
                f"{done.sum() / (done.size * run.segments):.0%} of the updates of the whole sweep"
            )
        else:
            result = population.sweep(run, on_segment=on_segment, **request)
        total = time.perf_counter() - begun

    # A kill between checkpoint and file may have cost rows: the result has them all, and same rows replace each other.
    table = sinks.ParquetSink(path / "metrics.parquet")
    for row in metric_rows(member, config, with_score(result.metrics, facts), episodes=config.eval_episodes):
        table.write(row["update"], row)
    table.close()

    plan = plans[0]
    seconds = max(total - plan.trace_seconds - plan.compile_seconds, 0.0)
    known = facts.setdefault("training", {}).setdefault(stage, {})
    known |= {
        "plan": str(plan),
        "members": plan.members,
        "parameters": parameters(agent, member),
        "trace_seconds": plan.trace_seconds,
        "compile_seconds": plan.compile_seconds,
    }
    if speeds:  # else the checkpoint was already complete
        known["train_seconds"] = known.get("train_seconds", 0.0) + seconds
        known["updates_per_second"] = sorted(speeds)[len(speeds) // 2]
        say(f"{stage}: trained in {seconds:.1f} s, {known['updates_per_second']:,.0f} updates per second")
    write_json(path / "summary.json", facts)
    return result


def _standing(member: Learner, row: Mapping[str, Any], facts: Mapping[str, Any]) -> Standing:
    from jaxrl_reg.population import ALIVE

    label = " ".join(f"{name}={word(row[name])}" for name in member.swept) or member.name
    state = "" if row.get(ALIVE, 1.0) else "diverged"
    return Standing(label, row["seed"], row["update"], row.get(score_name(facts), float("nan")), state)


@contextlib.contextmanager
def _sinks(member: Learner, config: SweepConfig, path: pathlib.Path) -> Iterator[Callable[[int, dict[str, Any]], None]]:
    """A function that hands a row to every sink of the config; they are closed however the block ends."""
    from jaxrl_reg.io import sinks

    opened: list[sinks.Sink] = [sinks.ParquetSink(path / "metrics.parquet")]
    try:
        if config.tensorboard:
            opened.append(sinks.TensorBoardSink(path / "tensorboard", member.swept))
        if config.wandb:
            settings = dataclasses.asdict(config)
            opened.append(sinks.WandbSink(config.wandb, f"{path.name} {member.name}", path, settings, member.swept))

        def write(step: int, row: dict[str, Any]) -> None:
            for sink in opened:
                sink.write(step, row)

        yield write
    finally:
        for sink in opened:
            sink.close()


def _members_line(member: Learner, config: SweepConfig, parameters: int) -> str:
    from jaxrl_reg import population

    settings = population.setting_count(member.hypers)
    what = f"{config.seeds} seeds"
    if member.swept:
        what = f"{settings} settings of {', '.join(member.swept)} x {what}"
    return (
        f"{member.label}: {settings * config.seeds} members = {what}, {parameters:,} parameters each; "
        f"{config.updates:,} updates of batch {config.batch_size}, "
        f"{config.segments} evaluations of {config.eval_episodes} episodes"
    )


def _say_groups(students: Sequence[Learner], config: SweepConfig, env: Env, data: Dataset, say: Say) -> None:
    """What every program of a sweep will take, before the first one is compiled."""
    from jaxrl_reg import population

    lines, compilations, most = [], 0, 0
    for student in students:
        _, run = make_run(student, config, env, data)
        plan = population.outline(
            run,
            seeds=config.seeds,
            hypers=student.hypers,
            data=data,
            placement=config.placement,
            chunk=config.chunk,
        )
        lines.append(f"  {student.label}: {plan}, temporaries apart")
        compilations, most = compilations + plan.compilations, max(most, plan.total_bytes)
    say(
        f"{len(students)} programs one after the other, {compilations} compilations in all, at most "
        f"{population.megabytes(most)} per device at a time:"
    )
    for line in lines:
        say(line)


def _rollout(
    members: Sequence[Learner],
    config: SweepConfig,
    env: Env,
    data: Dataset,
    results: Sequence[Result],
    path: pathlib.Path,
) -> None:
    """One recorded episode of the best seed of the best setting: ``episode.html`` is self-contained and goes into the
    report; ``rollout.html`` is the environment's own viewer. Nothing for an environment that cannot draw."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxrl_reg.evaluation import viewer
    from jaxrl_reg.loops import zero_shot
    from jaxrl_reg.loops.rollout import record as record_episode
    from jaxrl_reg.types import policy_of

    if env.render is None and env.draw is None:
        return
    lasts = [np.nan_to_num(one.metrics["eval/return"][:, :, -1], nan=-np.inf) for one in results]
    group = max(range(len(lasts)), key=lambda i: lasts[i].mean(axis=1).max())
    member, result, last = members[group], results[group], lasts[group]
    setting = int(last.mean(axis=1).argmax())
    seed = int(last[setting].argmax())
    agent = member.make(member.config, env.spec)
    labelled = None
    if agent.zero_shot is not None:  # its own task is the one that the picture shows
        labelled = label_rows(env, data, [zero_shot.own_reward()], config)

    @jax.jit
    def record(state: Any, hyper: Any, key: Any) -> Any:
        policy = policy_of(agent, state, hyper)
        if labelled is not None:
            policy = zero_shot.serve(agent, state, labelled)(jnp.int32(0))
        return record_episode(env, policy, key, env.spec.max_episode_steps)

    recording = record(result.member(setting, seed), result.hyper(setting), jax.random.key(config.seed_offset))
    frames = recording.frames()
    if env.draw is not None:
        (path / "episode.html").write_text(viewer.page(env.draw(frames), f"{member.name} in {config.env}"))
    if env.render is not None:
        (path / "rollout.html").write_text(env.render(frames))

"""The one path of every kind of run: data, job, training of rivals and learners, records, report; and going on."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrl_reg.errors import UserError, need
from jaxrl_reg.io.files import read_json, write_json, write_text
from jaxrl_reg.jobs import kinds, lines
from jaxrl_reg.jobs.extension import longer, take_over
from jaxrl_reg.jobs.files import (
    create_run,
    default_directory,
    load_config,
    now,
    refuse_existing,
    release,
)
from jaxrl_reg.jobs.job import Job
from jaxrl_reg.jobs.learners import Learner, parameters
from jaxrl_reg.jobs.progress import OnTick, Say, Tick, silent
from jaxrl_reg.jobs.recording import Clock, Recorder, check_sinks, sinks_of
from jaxrl_reg.jobs.settings import JobConfig, resolve, seeds_of

if TYPE_CHECKING:
    import pandas as pd

    from jaxrl_reg.population import Generations, Plan, Result


class Outcome(NamedTuple):
    """What ``sweep`` returns: where everything is, the trained populations, and the table of the report."""

    directory: pathlib.Path
    results: list[Result]  # one per group of settings that share a program
    baseline: Result | None  # of the first rival
    table: pd.DataFrame  # without rows after a lean run

    @property
    def result(self) -> Result:
        """The trained population of a sweep whose settings share one program."""
        (only,) = self.results
        return only


class _Session(NamedTuple):
    """What every stage of a run needs beside its job. ``facts`` become ``summary.json``."""

    config: JobConfig
    path: pathlib.Path
    facts: dict[str, Any]
    resume: bool
    say: Say
    on_tick: OnTick

    def save(self) -> None:
        """Write ``summary.json``."""
        write_json(self.path / "summary.json", self.facts)


def sweep(
    config: JobConfig,
    *,
    directory: str | pathlib.Path | None = None,
    resume: bool = False,
    lean: bool = False,
    say: Say = silent,
    on_tick: OnTick = silent,
) -> Outcome:
    """Make the data if they are not there, train the population and its rivals, evaluate, report.

    Args:
      config: of any kind, such as ``SweepConfig`` for training on a data set.
      directory: the run directory; ``runs/<env>-<agent>-<time>`` without it.
      resume: continue a run that was interrupted in ``directory``.
      lean: only the population: no rivals, no recorded episode, no report.
      say: called with one line of text at each stage.
      on_tick: called while a stage makes progress.

    Several processes that have joined (``population.hosts``) call this alike and share the members; the data set must
    be there, and the run directory one that all see. Only process 0 writes files, and only it returns a table.

    Raises:
      UserError: for a config that cannot be run, before anything is written.
      population.Interrupted, KeyboardInterrupt: when stopped; ``resume(directory)`` goes on from the last checkpoint.
    """
    need("pandas", "pyarrow", "orbax", *(() if lean else ("jinja2", "matplotlib")))  # some only once all is trained
    from jaxrl_reg.population import hosts

    writes = hosts.first()  # of several processes the first writes; the others train their members and say nothing
    if not writes:
        say, on_tick = silent, silent
    begun = time.perf_counter()
    config = resolve(config.settled())
    job, session = _begin(config, directory, resume, say, on_tick)
    if job.collect is not None:
        job = job.collect(say, on_tick)
    _same_data(job, session.facts)
    session.facts["wall"].setdefault("collect and load the data", time.perf_counter() - begun)
    budget = job.budget(job.learners[0])
    session.facts.update({"kind": config.kind, "budget": budget, **job.facts()})
    if writes:
        session.save()
        _write_history(job, session.path)
    for line in job.lines:
        say(line)

    if len(job.learners) > 1:
        for line in lines.of_groups(job, config):
            say(line)
    rivals = [] if lean else [_train(member, job, session) for member in job.rivals]
    results = [_train(member, job, session, own=True) for member in job.learners]
    import pandas as pd  # here, not before: it takes half a second, and nothing of it trains

    outcome = Outcome(session.path, results, rivals[0] if rivals else None, pd.DataFrame())
    if not writes:
        return outcome
    if not lean:
        say("writing the report")
        begun = time.perf_counter()
        _remember(job, session, results)
        _exhibit(job, session, results)
        session.facts["wall"]["record the best member"] = time.perf_counter() - begun
    session.facts["finished"] = now()
    session.save()
    return outcome if lean else outcome._replace(table=_report(session.path))


def train(config: JobConfig, **options: Any) -> Outcome:
    """``sweep`` for a single setting: refuses a grid and drawn settings."""
    if config.grid or config.sample:
        raise UserError("train takes one setting: use --set name=value, or the verb sweep for a grid")
    return sweep(config, **options)


def resume(
    directory: str | pathlib.Path,
    *,
    updates: int | None = None,
    steps: int | None = None,
    say: Say = silent,
    on_tick: OnTick = silent,
) -> Outcome:
    """Continue a run from its newest checkpoint; the numbers are those of an uninterrupted run.

    Args:
      directory: of the run.
      updates, steps: a larger budget, of the kind that the run counts; segments stay as long as they are.
      say, on_tick: as for ``sweep``.

    Raises:
      UserError: if the directory holds no run, or one that cannot go on to so many.
    """
    config = load_config(directory)
    for name, number in (("updates", updates), ("steps", steps)):
        if number is not None:
            config = longer(config, name, number)
    return sweep(config, directory=directory, resume=True, say=say, on_tick=on_tick)


def finetune(
    directory: str | pathlib.Path,
    *,
    out: str | pathlib.Path | None = None,
    lean: bool = False,
    say: Say = silent,
    on_tick: OnTick = silent,
    **options: Any,
) -> Outcome:
    """Go on from every member of a finished run, as a run of its own: online from an offline run, or, with ``env``
    among the options, on another task from a run in an environment.

    Args:
      directory: of the run.
      out: directory of the new run; ``runs/<env>-<agent>-<time>`` without it.
      lean, say, on_tick: as for ``sweep``.
      options: fields of ``kinds.finetune.FinetuneConfig``, such as ``steps`` and ``offline_fraction``, or of
        ``kinds.transfer.TransferConfig``, such as ``env``, ``anchor`` and ``anchor_coef``.

    Raises:
      UserError: for a run that cannot be gone on from, or numbers that do not fit.
    """
    config = kinds.load("transfer" if "env" in options else "finetune").continuing(directory, **options)
    return sweep(config, directory=out, lean=lean, say=say, on_tick=on_tick)


def _begin(
    config: JobConfig, directory: str | pathlib.Path | None, resume: bool, say: Say, on_tick: OnTick
) -> tuple[Job, _Session]:
    """The job, and its run directory: whatever is wrong shows before anything is written."""
    from jaxrl_reg.population import hosts

    check_sinks(config)
    path = pathlib.Path(directory) if directory is not None else default_directory(config)
    try:
        if not hosts.alone():
            path = pathlib.Path(hosts.from_first(str(path)))
        new = not resume and hosts.first()
        if new:
            refuse_existing(path)
        facts = read_json(path / "summary.json", default={}) if resume else {}
        job = kinds.of(config).make(config)
        if job.collect is not None and "dataset" in facts:
            raise UserError(
                f"{facts['dataset']['file']}, the data of this run, is not there; put it back, since data collected "
                "anew would be others"
            )
        if resume and hosts.first():
            take_over(path, config, job)
        if new:
            create_run(path, config, job.learners)
    except BaseException:
        if directory is None:
            release(path)
        raise
    hosts.gather(0.0)  # the run directory is there
    facts = read_json(path / "summary.json", default={})
    facts.setdefault("wall", {})
    return job, _Session(config, path, facts, resume, say, on_tick)


def _same_data(job: Job, facts: dict[str, Any]) -> None:
    """Raises ``UserError`` where a run was begun on other data than it is given now."""
    known, found = (about.get("fingerprint") for about in (facts.get("dataset", {}), job.about))
    if known is not None and found is not None and known != found:
        raise UserError(
            f"{job.about['file']} holds other data than this run was begun with (fingerprint {found}, not {known}); "
            "put those back or start a new run"
        )


def _train(member: Learner, job: Job, session: _Session, *, own: bool = False) -> Result:
    """Train one program: all settings and seeds of ``member``, an ``own`` learner of the job or a rival. Every number
    of it is in the checkpoint, the rows and the facts of the session afterwards."""
    from jaxrl_reg import population

    config, say, stage = session.config, session.say, member.label
    agent, run = job.run(member, None)
    early_stop = config.early_stop if own else None
    plans: list[Plan] = []

    def on_plan(plan: Plan) -> None:
        plans.append(plan)
        say(str(plan))
        session.on_tick(Tick(stage, 0, run.segments * job.axis.per_segment, 0.0, 0.0, unit=job.axis.name))
        say(f"traced in {plan.trace_seconds:.1f} s, compiled in {plan.compile_seconds:.1f} s")

    def go(**callbacks: Any) -> Result:
        options = {
            "seeds": list(seeds_of(config)),
            "hypers": member.hypers,
            "data": job.data if agent.prepare is None else agent.prepare(job.data),
            "start": None if job.start is None else job.start(member),
            "placement": config.placement,
            "chunk": config.chunk,
            "directory": session.path / "checkpoints" / member.folder,
            "resume": session.resume,
            "on_plan": on_plan,
            "on_note": lambda note: say(f"{stage}: {note}"),
        }
        if early_stop is None:
            moving = _generations(config) if own else None
            return population.sweep(run, on_segment=callbacks.get("on_segment"), generations=moving, **options)
        rule = population.stopping.named(early_stop)
        return population.race(run, rule, score=job.score.reported, on_round=callbacks.get("on_round"), **options)

    say(lines.of_members(member, job, run, session.config, parameters(agent, member)))
    if not population.hosts.first():
        return go()
    begun, clock = time.perf_counter(), Clock(member, session.path)
    with sinks_of(member, config, session.path) as write:
        recorder = Recorder(member, job, run, config, write, clock, session.on_tick)
        result = go(on_segment=recorder.segment, on_round=recorder.round)
    seconds = max(time.perf_counter() - begun - plans[0].trace_seconds - plans[0].compile_seconds, 0.0)
    if early_stop is not None:
        say(lines.of_stopped(stage, run, result))
    _write_all(recorder, job, session.path, result)
    speed = sorted(clock.speeds)[len(clock.speeds) // 2] if clock.speeds else None  # None: it was complete already
    _note(session.facts, stage, plans[0], parameters(agent, member), seconds, speed)
    if speed is not None:
        rate = speed * job.axis.per_segment / run.updates_per_segment
        session.facts["training"][stage]["per_second"] = rate
        say(f"{stage}: trained in {seconds:.1f} s, {rate:,.0f} {job.axis.name} per second")
    session.save()
    return result


def _write_history(job: Job, path: pathlib.Path) -> None:
    """The rows of the run that this one goes on from, if it does; again where they are there already."""
    from jaxrl_reg.io import sinks

    if job.history is None:
        return
    table = sinks.ParquetSink(path / "metrics.parquet")
    for row in job.history():
        table.write(row[job.axis.column], row)
    table.close()


def _generations(config: JobConfig) -> Generations | None:
    """How the settings of a population move, for one that does."""
    from jaxrl_reg import population

    if not config.evolve:
        return None
    return population.Generations({name: population.parse_range(name, text) for name, text in config.sample.items()})


def _write_all(recorder: Recorder, job: Job, path: pathlib.Path, result: Result) -> None:
    """Every row of a result: a kill between checkpoint and file may have cost some, and same rows replace each
    other."""
    from jaxrl_reg.io import sinks

    table = sinks.ParquetSink(path / "metrics.parquet")
    for row in recorder.rows(result.metrics):
        table.write(row[job.axis.column], row)
    table.close()


def _note(facts: dict[str, Any], stage: str, plan: Plan, count: int, seconds: float, speed: float | None) -> None:
    known = facts.setdefault("training", {}).setdefault(stage, {})
    known |= {
        "plan": str(plan),
        "members": plan.members,
        "parameters": count,
        "trace_seconds": plan.trace_seconds,
        "compile_seconds": plan.compile_seconds,
    }
    if speed is not None:
        known["train_seconds"] = known.get("train_seconds", 0.0) + seconds
        known["updates_per_second"] = speed


def best_member(results: Sequence[Result], metric: str) -> tuple[int, int, int]:
    """Program, setting within it and seed with the best last score: the best seed of the best setting."""
    import numpy as np

    lasts = [np.nan_to_num(one.metrics[metric][:, :, -1], nan=-np.inf) for one in results]
    group = max(range(len(lasts)), key=lambda i: lasts[i].mean(axis=1).max())
    setting = int(lasts[group].mean(axis=1).argmax())
    return group, setting, int(lasts[group][setting].argmax())


def _exhibit(job: Job, session: _Session, results: Sequence[Result]) -> None:
    """What the kind shows of the best member, as files for the report."""
    import jax

    if job.show is None or job.score.metric is None:
        return
    group, setting, seed = best_member(results, job.score.reported)
    result, keep = results[group], job.keep(job.learners[group])
    key = jax.random.key(session.config.seed_offset)
    for name, text in job.show(keep, result.member(setting, seed), result.hyper(setting), key).items():
        write_text(session.path / name, text)


def _remember(job: Job, session: _Session, results: Sequence[Result]) -> None:
    """Keep what agents that serve tasks have inferred while the labelled states are at hand, for ``load_policy``."""
    import jax

    from jaxrl_reg.jobs import tasks

    if job.infer is None:
        return
    for member, result in zip(job.learners, results, strict=True):
        over_members = jax.vmap(jax.vmap(job.infer.vectors(member), (0, None)), (0, None))
        vectors = jax.jit(over_members)(result.state, job.infer.labelled)
        tasks.remember(session.path, member.folder, job.infer.names, jax.device_get(vectors))


def _report(path: pathlib.Path) -> pd.DataFrame:
    from jaxrl_reg.evaluation import report as reporting

    return reporting.write(path)

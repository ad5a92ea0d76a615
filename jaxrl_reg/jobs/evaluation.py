"""What is done with a run afterwards: fresh episodes, tasks it was not trained for, the report once more."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError, need
from jaxrl_reg.io.files import read_json, write_parquet
from jaxrl_reg.jobs import hosted, kinds, preprocessing
from jaxrl_reg.jobs import tasks as tasking
from jaxrl_reg.jobs.collection import load_data
from jaxrl_reg.jobs.files import load_config
from jaxrl_reg.jobs.job import Job
from jaxrl_reg.jobs.learners import Learner, learner, make_env
from jaxrl_reg.jobs.progress import OnTick, Say, Tick, silent
from jaxrl_reg.jobs.recording import metric_rows
from jaxrl_reg.jobs.settings import NO_ENV, JobConfig, seeds_of

if TYPE_CHECKING:
    import pandas as pd

    from jaxrl_reg.loops.zero_shot import Task
    from jaxrl_reg.population import Restored
    from jaxrl_reg.types import Agent, Env, Run


def evaluate(
    directory: str | pathlib.Path, episodes: int | None = None, *, say: Say = silent, on_tick: OnTick = silent
) -> pd.DataFrame:
    """More episodes of every member from its checkpoint, appended to ``metrics.parquet``; rewrites the report.

    Args:
      directory: a run directory.
      episodes: per member; ten times the run's own by default.

    Raises:
      UserError: if the directory holds no run or no checkpoint.
    """
    from jaxrl_reg.evaluation import report as reporting
    from jaxrl_reg.io.sinks import ParquetSink, read_parquet

    path = pathlib.Path(directory)
    config = load_config(path)
    job = kinds.of(config).reopen(config, read_json(path / "summary.json", default={}))
    if job.score.metric is None:
        raise UserError(f"{path} is a run without an environment; there is nothing to roll out")
    episodes = 10 * config.eval_episodes if episodes is None else episodes
    number = 1 + int(read_parquet(path / "metrics.parquet")["evaluation"].max())
    sink = ParquetSink(path / "metrics.parquet")
    for member in [*job.rivals, *job.learners]:
        folder = path / "checkpoints" / member.folder
        if folder.is_dir():
            say(f"evaluating {member.label} on {episodes} {config.trials} per member")
            for row in _evaluate_checkpoint(member, job, config, folder, episodes, number):
                sink.write(row[job.axis.column], row)
        elif member.name == config.agent:
            raise UserError(f"{path} has no checkpoint of {member.label}; continue it with: jaxrl-reg resume {path}")
    sink.close()
    return reporting.write(path)


def zeroshot(
    directory: str | pathlib.Path,
    tasks: Sequence[str] | None = None,
    rewards: Sequence[str] = (),
    *,
    samples: int = 10_000,
    episodes: int = 10,
    say: Say = silent,
    on_tick: OnTick = silent,
) -> pd.DataFrame:
    """Tasks put to a trained population, without any further training; rewrites the report.

    Every member infers a task vector from states of the data, labelled by the task's reward, and acts by it. A run's
    score on a task is the interquartile mean over its episodes. Rows go to ``zeroshot.parquet``, replacing earlier ones
    of the same task.

    Args:
      directory: the run directory of an agent that learns without rewards.
      tasks: names that the environment offers; all of them by default, none if ``rewards`` are given.
      rewards: ``FILE.py:FUNCTION`` each, ``function(observation [O], action [A], next_observation [O]) -> scalar`` in
        JAX.
      samples: labelled states per task.
      episodes: per member and task.

    Returns:
      One row per setting and task (and ``all tasks``): interquartile mean over runs with its 95% interval.

    Raises:
      UserError: if the directory holds no run or no checkpoint, the agent serves no tasks, or a reward does not work.
    """
    need("pandas")
    import numpy as np

    from jaxrl_reg.evaluation import report as reporting

    path = pathlib.Path(directory)
    config = load_config(path)
    for name, value in (("samples", samples), ("episodes", episodes)):
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")
    env, member, agent = _serving(path, config)
    chosen = _chosen(env, tasks, rewards)
    names = [task.name for task in chosen]
    folder = path / "checkpoints" / member.folder
    if not folder.is_dir():
        raise UserError(f"{path} has no checkpoint of {member.label}; continue it with: jaxrl-reg resume {path}")
    data = load_data(config, env)
    labelled = tasking.label_rows(env, data, chosen, config, samples)
    paid = np.asarray(labelled.reward)
    say(f"{paid.shape[1]:,} states of {data.name} labelled for {', '.join(names)}")
    for name, values in zip(names, paid, strict=True):
        if np.ptp(values) == 0:
            say(f"{name}: every one of these states pays {values[0]:g}, which tells the agent nothing")

    _, run = kinds.of(config).run_of(member, config, env)
    restored = restore(member, config, run, folder)
    say(
        f"{len(restored.keys)} members, {len(names)} tasks, {episodes} episodes each, after "
        f"{int(restored.updates.max()):,} updates"
    )
    returns, scores, vectors = _served(agent, member, env, chosen, restored, labelled, episodes, on_tick)
    tasking.remember(path, member.folder, names, vectors.reshape(-1, config.seeds, *vectors.shape[1:]))
    seeds, rows, lost = seeds_of(config), [], _diverged(path, member.name)
    for m, t in np.ndindex(*scores.shape):
        setting, seed = divmod(m, config.seeds)
        rows.append(
            {
                "agent": member.name,
                "member": m,
                "seed": seeds[seed],
                "setting": setting,
                **{name: values[setting] for name, values in member.swept.items()},
                "task": names[t],
                "score": float(scores[m, t]),
                "mean": float(returns[m, t].mean()),
                "behaviour": float(paid[t].mean() * env.spec.max_episode_steps),
                "update": int(restored.updates[setting]),
                "diverged": m in lost,
                "samples": paid.shape[1],
                "episodes": episodes,
            }
        )
    frame = _stored(path / "zeroshot.parquet", rows, names)
    reporting.write(path)
    asked = frame.loc[frame["task"].isin(names), :]  # ``all tasks`` are those of this call; the report has more
    return reporting.task_table(reporting.served(asked, list(member.swept)))


def _serving(path: pathlib.Path, config: JobConfig) -> tuple[Env, Learner, Agent]:
    """World, program and agent of a run that tasks can be put to."""
    if config.env == NO_ENV:
        raise UserError(f"{path} is a run without an environment; there is nothing to roll out")
    if hosted.asked(config):
        raise UserError(f"{config.env} has tasks of its own; more episodes of them: jaxrl-reg evaluate {path}")
    env, member = make_env(config), learner(config.agent, config)
    done = preprocessing.known(read_json(path / "summary.json", default={}))
    member = preprocessing.wrapped(member, done.get(member.name))
    agent = member.make(member.config, env.spec)
    if agent.zero_shot is None:
        raise UserError(
            f"{config.agent} learns one task and can serve no other; train an agent that learns without rewards, such "
            "as sf_laplacian"
        )
    return env, member, agent


def _chosen(env: Env, tasks: Sequence[str] | None, rewards: Sequence[str]) -> list[Task]:
    """The tasks that were asked for, those that the environment offers first."""
    from jaxrl_reg.loops import zero_shot

    chosen = [zero_shot.load_task(text, env) for text in rewards]
    if tasks or not rewards:
        chosen = zero_shot.tasks_of(env, tasks) + chosen
    names = [task.name for task in chosen]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"task {twice} is named twice")
    return chosen


def _served(
    agent: Agent,
    member: Learner,
    env: Env,
    chosen: Sequence[Task],
    restored: Restored,
    labelled: Any,
    episodes: int,
    on_tick: OnTick,
) -> tuple[Any, Any, Any]:
    """Returns ``[M, K, N]`` of every member, task and episode, their interquartile means ``[M, K]``, and the task
    vectors ``[M, K, ...]`` that were acted by."""
    import jax

    from jaxrl_reg import population
    from jaxrl_reg.evaluation import statistics
    from jaxrl_reg.loops import zero_shot

    count, play = len(restored.keys), zero_shot.judge(env, chosen, episodes)

    def one(state_key: Any, shared: Any) -> Any:
        state, key = state_key
        results = play(zero_shot.serve(agent, state, shared), jax.random.fold_in(key, zero_shot.ZERO_SHOT))
        return results["return"], jax.vmap(lambda returns: statistics.iqm(returns[:, None]))(results["return"])

    begun, total = time.perf_counter(), count * len(chosen) * episodes
    on_tick(Tick("zeroshot", 0, total, 0.0, 0.0, unit="episodes"))
    chunk = max(1, min(count, population.EVALUATION_CHUNK // len(chosen)))
    returns, scores = jax.device_get(
        jax.jit(population.over_members(one, chunk))((restored.states, restored.keys), labelled)
    )
    infer = jax.jit(population.over_members(tasking.vectors_of(member, env), chunk))
    vectors = jax.device_get(infer(restored.states, labelled))
    speed = total / (time.perf_counter() - begun)
    on_tick(Tick("zeroshot", total, total, speed, 0.0, float(scores.mean()), "episodes", "return"))
    return returns, scores, vectors


def _stored(path: pathlib.Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> pd.DataFrame:
    """Rows in the place of earlier ones of the same tasks; gives all that are in the file then."""
    need("pandas")
    import pandas as pd

    from jaxrl_reg.io.sinks import read_parquet

    frame = pd.DataFrame(rows)
    if path.exists():
        before = read_parquet(path)
        frame = pd.concat([before[~before["task"].isin(names)], frame], ignore_index=True)
    write_parquet(path, frame)
    return frame


def _diverged(path: pathlib.Path, agent: str) -> set[int]:
    """The members of a run that diverged; their checkpoints are from before."""
    from jaxrl_reg.io.sinks import read_parquet
    from jaxrl_reg.population import ALIVE

    if not (path / "metrics.parquet").exists():
        return set()
    rows = read_parquet(path / "metrics.parquet")
    return set(rows.loc[(rows["agent"] == agent) & (rows.get(ALIVE, 1.0) == 0), "member"].astype(int))


def report(directory: str | pathlib.Path) -> pd.DataFrame:
    """Write the report of a run again from its metrics; returns its table.

    Raises:
      UserError: if the directory holds no run, or one without metrics.
    """
    from jaxrl_reg.evaluation import report as reporting

    load_config(directory)
    return reporting.write(pathlib.Path(directory))


def restore(member: Learner, config: JobConfig, run: Run, folder: pathlib.Path) -> Restored:
    """All members of one program, from their newest checkpoint; a ``UserError`` where there is none."""
    from jaxrl_reg import population

    found = population.restore(folder, run, seeds_of(config), member.hypers)
    if found is None:
        raise UserError(f"{folder} holds no checkpoint; continue the run with: jaxrl-reg resume {folder.parent.parent}")
    return found


def _evaluate_checkpoint(
    member: Learner, job: Job, config: JobConfig, folder: pathlib.Path, episodes: int, number: int
) -> Iterator[dict[str, Any]]:
    """Rows of fresh metrics of every member, as its newest checkpoint has it."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxrl_reg import population

    _, run = job.run(member, episodes)
    restored = restore(member, config, run, folder)

    def one(state_key_hyper: Any, index: Any) -> Any:
        state, key, hyper = state_key_hyper
        assert run.evaluate is not None
        return run.evaluate(state, index, key, hyper)

    # Streams past those of training: an episode is never counted twice.
    index, count = run.segments + number, len(restored.keys)
    if run.judge is not None:
        metrics = run.judge.measure(restored.states, index, restored.keys, restored.hypers)
    else:
        evaluation = jax.jit(population.over_members(one, min(count, population.EVALUATION_CHUNK)))
        metrics = evaluation((restored.states, restored.keys, restored.hypers), jnp.int32(index))
    shape = population.setting_count(member.hypers), config.seeds, 1
    scored = job.score.columns({name: np.asarray(value).reshape(shape) for name, value in metrics.items()})
    done = restored.updates // run.updates_per_segment
    return metric_rows(member, config, job.axis, run, scored, done=done, evaluation=number, episodes=episodes)

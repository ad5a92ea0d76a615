"""Data sets: collected by learning a task, by exploring without one, or read; and what they hold."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError, need, unknown
from jaxrl_reg.io.files import write_bytes
from jaxrl_reg.jobs.collected import (
    COLLECT_ENVS,
    COLLECT_SEGMENTS,
    as_collected,
    collecting_hidden,
    home,
    place,
    provenance,
    whole_steps,
)
from jaxrl_reg.jobs.learners import make_env
from jaxrl_reg.jobs.progress import OnTick, Say, Tick, silent
from jaxrl_reg.jobs.settings import COLLECTED, EXPLORED, SEARCHED, SweepConfig, resolve

if TYPE_CHECKING:
    from jaxrl_reg.envs.adapters.gymnasium import Host
    from jaxrl_reg.population import Plan
    from jaxrl_reg.types import Dataset, Env, Run


COLLECT_STREAM = 7
WRITTEN_WITH = ("h5py", "orbax")  # missed only after the collection otherwise
PLAY_ENVS = 64  # environments side by side when finished policies are played


def dataset_path(config: SweepConfig) -> pathlib.Path | None:
    """Where a data set that is collected here lies; None for any other that ``data.load`` can find.

    Raises:
      UserError: for a name that is neither.
    """
    from jaxrl_reg import data

    if config.dataset in (*COLLECTED, *EXPLORED):
        return place(config, config.dataset)
    if ":" in config.dataset or data.found(config.dataset, config.data_dir) is not None:
        return None
    known = [*COLLECTED, *EXPLORED, *data.names(config.data_dir)]
    if "/" in config.dataset or pathlib.Path(config.dataset).suffix:
        raise UserError(f"data set {config.dataset} does not exist; give a file, or one of {', '.join(known)}")
    if config.dataset not in known:
        raise unknown("data set", config.dataset, known)
    return None


def collect(config: SweepConfig, *, say: Say = silent, on_tick: OnTick = silent) -> pathlib.Path | None:
    """Make the data sets of an environment, unless they are there; returns the file of ``config.dataset``.

    One soft actor-critic run gives them all: its replay up to the medium level, and episodes of the random, the medium
    and the best policy. They are written below ``config.data_dir``, in D4RL's HDF5 layout. The data sets that know no
    task, ``random``, ``rnd``, ``diayn`` and those of a search, come from ``explore``, which trains no expert.

    Raises:
      UserError: if the agent learns nothing in ``config.collect_steps``.
      population.Interrupted: when stopped; the same call goes on from the last checkpoint.
    """
    config = resolve(as_collected(config))
    path = dataset_path(config)
    if path is None or path.is_file():
        return path
    need(*WRITTEN_WITH)
    if home(config).is_dir() and path.parent != home(config):
        say(f"{home(config)} was collected in another way (steps, widths or seed); these data go into {path.parent}")
    if config.dataset in (*EXPLORED, "random"):
        return explore(config, config.dataset, say=say, on_tick=on_tick)
    return _collect(config, path, say, on_tick)


def explore(config: SweepConfig, behavior: str, *, say: Say = silent, on_tick: OnTick = silent) -> pathlib.Path:
    """Collect ``config.collect_steps`` steps without a task, unless that is done; returns the file.

    Args:
      config: environment, steps, network size and seed count; the rest has no say.
      behavior: ``random``, ``rnd`` or ``diayn``, see ``loops.explore``; also the name of the data set. Beside it a
        picture shows where the data have been, for an environment with tasks. Or ``stax``, see ``jobs.searching``.

    Raises:
      UserError: for an unknown behaviour.
      population.Interrupted: when stopped; the same call goes on from the last checkpoint.
    """
    from jaxrl_reg import data
    from jaxrl_reg.evaluation import plots
    from jaxrl_reg.jobs import searching
    from jaxrl_reg.loops.explore import BEHAVIORS, coverage
    from jaxrl_reg.loops.explore import explore as exploring

    if behavior in SEARCHED:
        return searching.search(config, behavior, say=say, on_tick=on_tick)
    if behavior not in BEHAVIORS:
        raise unknown("behavior", behavior, (*BEHAVIORS, "stax"))
    config = resolve(as_collected(dataclasses.replace(config, dataset=behavior)))
    env, path = make_env(config), place(config, behavior)
    steps, hidden = whole_steps(config.collect_steps), collecting_hidden(config)
    exploration = exploring(behavior, env, steps=steps, num_envs=COLLECT_ENVS, segments=COLLECT_SEGMENTS, hidden=hidden)
    if path.is_file():
        say(f"{path} is already there; remove it to collect it again")
        return path
    need(*WRITTEN_WITH, *(("matplotlib",) if env.tasks is not None else ()))
    say(f"exploring {config.env}, {behavior}: {steps:,} steps of {COLLECT_ENVS} environments, no rewards looked at")
    state, _, done = carried_out(exploration.run, exploration.hyper, behavior, config, path, say, on_tick)
    rows = exploration.dataset(state, f"{path.parent.name}-{behavior}")
    rows = references_beside(path, rows, behavior)
    about = {**provenance(config), "behavior": behavior}
    path.parent.mkdir(parents=True, exist_ok=True)
    line = f"wrote {path}: {rows.size:,} rows, {int(rows.last.sum()):,} episodes"
    if env.tasks is not None:
        seen = coverage(env, rows)
        about["coverage"] = seen.fraction
        words = f"{seen.fraction:.0%} of {seen.counts.size} cells of ({', '.join(env.tasks.axes)}) visited"
        picture = plots.visits(
            seen.counts,
            env.tasks.extent,
            env.tasks.axes,
            title=f"{config.env}, {behavior}, {rows.size:,} steps: {words}",
        )
        write_bytes(path.with_suffix(".png"), plots.encode(picture))
        line += f"; {words}, see {path.with_suffix('.png')}"
    data.save(rows, path, about)
    say(line)
    done()
    return path


def carried_out(
    run: Run,
    hyper: Any,
    stage: str,
    config: SweepConfig,
    path: pathlib.Path,
    say: Say,
    on_tick: OnTick,
    metric: str = "train/return",
) -> tuple[Any, Any, Callable[[], None]]:
    """Run a collection for ``path``, or what is left of one that was stopped: its last state, its settings and a
    function that removes the checkpoints once the data are safe. ``metric`` is shown on the way."""
    import shutil

    from jaxrl_reg import population

    steps = whole_steps(config.collect_steps)

    def on_plan(plan: Plan) -> None:
        say(f"traced in {plan.trace_seconds:.1f} s, compiled in {plan.compile_seconds:.1f} s")
        on_tick(Tick(stage, 0, steps, 0.0, 0.0, unit="steps"))

    def on_segment(progress: population.Progress) -> None:
        speed = progress.updates_per_second * steps / (progress.segments * progress.updates / progress.segment)
        done = steps * progress.segment // progress.segments
        score = float(progress.metrics[metric][0, 0])
        on_tick(Tick(stage, done, steps, speed, progress.eta_seconds, score, "steps", metric.split("/")[-1]))

    # A folder of its own for every way to collect, so that another one never meets these checkpoints.
    widths, seed = "-".join(map(str, collecting_hidden(config) or ("default",))), provenance(config)["seed"]
    unfinished = path.parent / f".{stage}-{steps}-{widths}-{seed}"
    result = population.sweep(
        run,
        seeds=[seed],
        hypers=population.grid(hyper),
        placement="map",
        directory=unfinished,
        save_seconds=120.0,
        resume=True,
        on_plan=on_plan,
        on_segment=on_segment,
    )
    return result.member(0, 0), result.hyper(0), lambda: shutil.rmtree(unfinished, ignore_errors=True)


def _collect(config: SweepConfig, path: pathlib.Path, say: Say, on_tick: OnTick) -> pathlib.Path:
    import jax

    from jaxrl_reg import agents, data
    from jaxrl_reg.loops.collect import collect as collect_online
    from jaxrl_reg.loops.collect import d4rl_style

    env, folder, sac = make_env(config), path.parent, agents.load("sac")
    hidden, about = collecting_hidden(config), provenance(config)
    agent_config = sac.Config() if hidden is None else sac.Config(hidden=hidden)
    agent, steps = sac.make(agent_config, env.spec), whole_steps(config.collect_steps)
    extras = None if env.tasks is None else _physics(env)
    collection = collect_online(
        agent, env, steps=steps, num_envs=COLLECT_ENVS, segments=COLLECT_SEGMENTS, extras=extras
    )
    say(f"collecting data in {config.env}: soft actor-critic, {steps:,} steps of {COLLECT_ENVS} environments")
    state, hyper, done = carried_out(collection.run, sac.Hyper(), "collect", config, path, say, on_tick)
    made = d4rl_style(
        agent,
        env,
        state.online.agent,
        hyper,
        collection.replay(state),
        jax.random.fold_in(jax.random.key(about["seed"]), COLLECT_STREAM),
        rows=min(config.collect_steps // 2, 1_000_000),
        num_envs=PLAY_ENVS,
        extras=extras,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for kind, rows in made.items():
        if kind == "random" and (folder / "random.hdf5").is_file():
            say(f"kept {folder}/random.hdf5, which was collected by itself")
            kept = _with_references(data.load(folder / "random.hdf5"), rows.score_random, rows.score_expert)
            data.save(kept, folder / "random.hdf5", {**about, "behavior": "random"})
            continue
        data.save(rows, folder / f"{kind}.hdf5", about)
        say(f"wrote {folder / kind}.hdf5: {rows.size:,} rows, mean return {data.episode_returns(rows).mean():,.1f}")
    done()
    return path


def _physics(env: Env) -> Callable[[Any], dict[str, Any]]:
    """What a collection keeps beside its rows, so that any task can be put to the data afterwards."""
    tasks = env.tasks
    assert tasks is not None
    return lambda state: {"physics": tasks.physics(state)}


def references_beside(path: pathlib.Path, rows: Dataset, behavior: str) -> Dataset:
    """The data set with the reference scores of one that was collected beside it, in the same environment; else with
    the random policy's own, if that is who acted: what an expert scores is not known then."""
    import numpy as np

    from jaxrl_reg import data

    for name in COLLECTED:
        beside = path.with_name(f"{name}.hdf5")
        about = data.metadata(beside) if beside.is_file() else {}
        low, high = (float(about.get(key, "nan")) for key in ("score_random", "score_expert"))
        if np.isfinite([low, high]).all():
            return _with_references(rows, low, high)
    acted = data.behaviour(rows)
    if behavior != "random" or acted.notes:  # parts of episodes are no reference
        return rows
    return _with_references(rows, acted.returns.mean(), float("nan"))


def _with_references(rows: Dataset, low: Any, high: Any) -> Dataset:
    import jax.numpy as jnp

    return dataclasses.replace(rows, score_random=jnp.float32(low), score_expert=jnp.float32(high))


def load_data(config: SweepConfig, env: Env | Host | None) -> Dataset:
    """The data set that ``config`` names, read as it says. Raises ``UserError`` where it does not fit the environment,
    if there is one."""
    from jaxrl_reg import data

    options: dict[str, Any] = {
        "observation_keys": config.observation_keys,
        "action_low": _bound(config.action_low),
        "action_high": _bound(config.action_high),
        "clip_actions": config.clip_actions,
        "max_episode_steps": config.max_episode_steps,
    }
    if env is not None:
        options["time_limit"] = env.spec.max_episode_steps
        options["actions"] = env.spec.action_dim if env.spec.discrete else None
    source = dataset_path(config) or config.dataset
    loaded = data.load(source, directory=config.data_dir, **options)
    lacks = [name for name in (*(config.deconfound or ()), *(config.instruments or ())) if name not in loaded.extras]
    if lacks:  # columns that a reader keeps only if it is asked to
        options["extras"] = (*loaded.extras, *dict.fromkeys(lacks))
        loaded = data.load(source, directory=config.data_dir, **options)
    if env is None:
        return loaded
    if loaded.discrete and not env.spec.discrete:
        raise UserError(
            f"data set {config.dataset} has integer actions, {loaded.spec.action_dim} of them, of a discrete task, but "
            f"{config.env} takes {env.spec.action_dim} continuous ones; if they are continuous all the same, give "
            "their bounds with --action-low and --action-high"
        )
    have, need = loaded.spec, env.spec
    if (have.observation_dim, have.action_dim) != (need.observation_dim, need.action_dim):
        raise UserError(
            f"data set {config.dataset} has {have.observation_dim} observations and {have.action_dim} actions, "
            f"{config.env} has {need.observation_dim} and {need.action_dim}: not the same environment"
        )
    return loaded


def _bound(numbers: tuple[float, ...] | None) -> Any:
    """A bound as readers take it: one number for all actions, or one for each."""
    if numbers is None:
        return None
    return numbers[0] if len(numbers) == 1 else list(numbers)


def summarise(data: Dataset, config: SweepConfig, path: pathlib.Path | None, limit: int | None) -> dict[str, Any]:
    """Plain numbers about a data set; ``returns`` are those of whole episodes: the score of the policy that acted (see
    ``data.behaviour``), none where no rewards are known. ``notes`` say in words what reading did and what to beware of.
    """
    import numpy as np

    from jaxrl_reg import data as datasets

    acted = datasets.behaviour(data, limit)
    low, high = float(data.score_random), float(data.score_expert)
    foreign = _foreign_scores(config.env, low, high)
    return {
        "name": config.dataset,
        "file": str(path) if path is not None else config.dataset,
        "picture": picture_beside(path),
        "fingerprint": datasets.fingerprint(data),
        "rows": data.size,
        "episodes": acted.episodes,
        "cut_episodes": acted.cut,
        "observation": data.spec.observation_dim,
        "action": data.spec.action_dim,
        "terminal_fraction": float(1.0 - np.asarray(data.discount).mean()),
        "rewarded": data.rewarded,
        "score_random": low,
        "score_expert": high,
        "normalised": bool(np.isfinite([low, high]).all() and high > low and not foreign),
        "foreign_scores": foreign,
        "returns": [round(float(value), 4) for value in acted.returns],
        "notes": [*data.notes, *acted.notes],
    }


def _foreign_scores(env: str, low: float, high: float) -> str:
    """Why reference scores do not apply to returns in ``env``, or "": D4RL's hold in MuJoCo's own tasks only."""
    from jaxrl_reg.data.readers import d4rl
    from jaxrl_reg.envs import mjx

    task = d4rl.scored_task(low, high)
    known = mjx.D4RL.get(task, ())
    fitting = [f"mjx/{name}" for name in known]
    if not task or env in fitting or env.lower() in [f"gymnasium/{name}" for name in known]:
        return ""
    return f"its reference scores are D4RL's for {task}, which hold in {' and '.join(fitting) or 'no environment here'}"


def picture_beside(path: pathlib.Path | None) -> str:
    """The picture that was drawn of a collected data set, for reports; "" where there is none."""
    drawn = None if path is None else path.with_name(f"{path.stem.removesuffix('-rewarding')}.png")
    return str(drawn) if drawn is not None and path is not None and path.stem in EXPLORED and drawn.is_file() else ""


def data_line(about: Mapping[str, Any]) -> str:
    """A data set in one line, from its summary."""
    from jaxrl_reg.data import normalised

    line = f"data {about['file']}: {about['rows']:,} rows, {about['episodes']:,} episodes"
    if not about["returns"]:
        return f"{line}, no rewards"
    mean = sum(about["returns"]) / len(about["returns"])
    line += f", mean return {mean:,.1f}"
    if about["normalised"]:
        score = normalised(mean, about["score_random"], about["score_expert"])
        return f"{line} = normalised score {score:.1f}"
    lacks = "it names no reference scores"
    if math.isfinite(about["score_random"]) and not math.isfinite(about["score_expert"]):
        lacks = f"random scores {about['score_random']:,.1f} and no expert's score is known"
    return f"{line}; {about['foreign_scores'] or lacks}, so returns stay as they are"


def data_lines(about: Mapping[str, Any]) -> list[str]:
    """A data set in one line, and one for everything that its reader has to say."""
    return [data_line(about), *(f"data: {note}" for note in about.get("notes", ()))]

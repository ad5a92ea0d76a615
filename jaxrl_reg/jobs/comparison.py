"""Every agent on the same data, or in the same environment, with the same budget."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.io.files import plain
from jaxrl_reg.jobs.files import finished, load_config
from jaxrl_reg.jobs.kinds import OFFLINE, TOKENS, kind_of, load
from jaxrl_reg.jobs.kinds.online import rival_config
from jaxrl_reg.jobs.learners import learner, make_env
from jaxrl_reg.jobs.progress import OnTick, Say, silent
from jaxrl_reg.jobs.settings import COMPARISONS, SCALES, JobConfig, resolve
from jaxrl_reg.jobs.training import sweep

if TYPE_CHECKING:
    import pandas as pd


def compared_agents() -> list[str]:
    """The agents of this package that a comparison trains: those of kind offline that see rewards."""
    from jaxrl_reg import agents
    from jaxrl_reg.types import Spec

    def sees_rewards(module: Any) -> bool:
        return module.make(module.Config(), Spec(2, 2)).zero_shot is None

    modules = {name: agents.load(name) for name in agents.names()}
    return [name for name, module in modules.items() if module.KIND == "offline" and sees_rewards(module)]


def compare(
    config: JobConfig,
    *,
    agents: Sequence[str] = (),
    envs: Sequence[str] = (),
    datasets: Sequence[str] = (),
    directory: str | pathlib.Path,
    say: Say = silent,
    on_tick: OnTick = silent,
) -> pd.DataFrame:
    """Train every agent on every task with the same budget, each with its own defaults and, on data, what
    ``COMPARISONS`` sets for all; one table and figure.

    A task is an environment with a data set, or, for a config of kind online, an environment. Runs lie in
    ``<directory>/<task>/<agent>``, a task being ``<env>-<data set>``. Called again, it skips what is finished and
    resumes what was stopped, so agents can be added to a comparison one by one.

    Args:
      config: the budget; its ``agent``, ``env``, ``dataset`` and ``grid`` are not looked at. Numbers that are None are
        as ``COMPARISONS`` says, then as ``SCALES``. Each agent takes those of the ``settings`` that it has; they come
        before those of ``COMPARISONS``.
      agents: names, or import paths of modules; all offline agents that see rewards if empty.
      envs: names; as ``COMPARISONS`` says if empty.
      datasets: names of data sets, or files; as ``COMPARISONS`` says if empty.
      directory: where runs, ``comparison.md``, ``comparison.csv`` and ``comparison.png`` go.

    Returns:
      One row per agent and task with ``score``, ``low`` and ``high``; see ``evaluation.comparison.table``.

    Raises:
      UserError: for a config that cannot be run, or a directory with runs of another budget, before anything is
        trained.
    """
    from jaxrl_reg.evaluation import comparison

    if config.scale not in SCALES:
        raise unknown("scale", config.scale, SCALES)
    if config.grid or config.sample:
        raise UserError("compare takes no grid: every agent runs with its defaults and --set")
    names = list(dict.fromkeys(agents)) or compared_agents()
    preset = {"envs": (config.env,), "datasets": ()} if config.kind == TOKENS else dict(COMPARISONS[config.scale])
    tasks = tasks_of(config, tuple(envs) or preset["envs"], tuple(datasets) or preset["datasets"])
    common = preset["settings"] if config.kind == OFFLINE else {}
    note = preset["note"] if common else ""
    folder = pathlib.Path(directory)
    planned = _plan(config, names, tasks, preset, common, folder)
    for number, (path, one) in enumerate(planned, 1):
        say(f"{number} of {len(planned)}: {one.agent} on {path.parent.name}")
        begun = (path / "config.json").exists()
        if begun and finished(path):
            continue
        sweep(one, directory=path, resume=begun, lean=True, say=say, on_tick=on_tick)
        comparison.write(folder, note)  # after every run, so that a stopped comparison has its page too
    return comparison.write(folder, note)


def tasks_of(config: JobConfig, envs: Sequence[str], datasets: Sequence[str]) -> dict[str, dict[str, str]]:
    """The tasks of a comparison: name -> what it changes in the config. A name that two would share gets the folder of
    its data set as well.

    Raises:
      UserError: if two tasks cannot be told apart, or there is none.
    """
    if not hasattr(config, "dataset"):
        return {env.replace("/", "-"): {"env": env} for env in envs}
    if not datasets:
        raise UserError("compare needs at least one data set")
    asked = list(dict.fromkeys((env, dataset) for env in envs for dataset in datasets))

    def name(env: str, dataset: str, parts: int) -> str:
        path = pathlib.Path(dataset)
        words = [env.replace("/", "-"), *pathlib.Path(os.path.abspath(path)).parts[-parts:-1], path.stem]
        return "-".join(words).replace(":", "-")

    short = [name(*one, 1) for one in asked]
    names = [one if short.count(one) == 1 else name(*asked[i], 2) for i, one in enumerate(short)]
    for i, one in enumerate(names):
        if one in names[:i]:
            first, second = (asked[j][1] for j in (names.index(one), i))
            raise UserError(f"{first} and {second} would be one column; rename a file or a folder")
    return {one: {"env": env, "dataset": dataset} for one, (env, dataset) in zip(names, asked, strict=True)}


def _plan(
    config: JobConfig,
    names: Sequence[str],
    tasks: Mapping[str, Mapping[str, str]],
    preset: Mapping[str, Any],
    common: Mapping[str, Any],
    folder: pathlib.Path,
) -> list[tuple[pathlib.Path, Any]]:
    """Every run directory with its config, all of the same budget; whatever is wrong shows here."""
    fields = {field.name for field in dataclasses.fields(config)}
    changes = {name: value for name, value in preset.items() if name in fields and getattr(config, name) is None}
    settings = {**common, **config.settings}
    folders = dict(zip(names, _folders(names), strict=True))
    unused, planned = set(config.settings), []
    for name in names:
        kind_of(name, dataset=config.kind == OFFLINE)  # refuses what learns from no data
    for task, where in tasks.items():
        asked = dataclasses.replace(config, **changes, **where, agent=names[0], settings={})
        for name in names:
            known = _settings_of(name)
            own = {key: value for key, value in settings.items() if key in known}
            unused -= set(own)
            one = _of_agent(asked, name, own)
            learner(name, one)  # whatever is wrong with its settings shows before anything is trained
            path = folder / task / folders[name]
            if (path / "config.json").exists() and _budget(load_config(path)) != _budget(one):
                raise UserError(f"{path} holds a run with other numbers; choose another directory with --out")
            planned.append((path, one))
    if unused:
        raise UserError(f"no agent of the comparison has {', '.join(sorted(unused))}")
    world = load(TOKENS).make_task if config.kind == TOKENS else make_env
    for env in dict.fromkeys(where["env"] for where in tasks.values()):
        world(dataclasses.replace(config, env=env))
    return planned


def _of_agent(asked: Any, name: str, settings: Mapping[str, Any]) -> Any:
    """The config of one agent; online, its steps are those of the first agent and its sizes suit how it learns."""
    if asked.kind == OFFLINE:
        return resolve(dataclasses.replace(asked, agent=name, settings=settings).settled())
    if asked.kind == TOKENS:
        return resolve(dataclasses.replace(asked, agent=name, settings=settings))
    first = resolve(asked)
    same = first if name == first.agent else rival_config(first, name)
    return resolve(dataclasses.replace(same, settings=settings, against=None))


def _folders(names: Sequence[str]) -> list[str]:
    """A folder for each agent: the last part of its name, or all of it where two would share that."""
    short = [pathlib.Path(name).stem if name.endswith(".py") else name.rpartition(".")[2] for name in names]
    whole = [re.sub(r"[^\w-]+", "-", name).strip("-") for name in names]
    return [one if short.count(one) == 1 else whole[i] for i, one in enumerate(short)]


def _settings_of(name: str) -> set[str]:
    from jaxrl_reg import agents

    module = agents.load(name)
    return {key for cls in (module.Config, module.Hyper) for key, _, _ in agents.settings(cls)}


def _budget(config: JobConfig) -> dict[str, Any]:
    """What makes two runs comparable: everything but how they were computed and where their data lie."""
    values = plain(dataclasses.asdict(config.settled()))
    return {
        k: v for k, v in values.items() if k not in ("placement", "chunk", "tensorboard", "wandb", "data_dir", "home")
    }

"""Every agent on the same data with the same budget."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.jobs.files import finished, load_config, plain
from jaxrl_reg.jobs.kinds import kind_of
from jaxrl_reg.jobs.learners import learner, make_env
from jaxrl_reg.jobs.progress import OnTick, Say, silent
from jaxrl_reg.jobs.settings import COMPARED, COMPARISONS, SCALES, SweepConfig, resolve
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
    config: SweepConfig,
    *,
    agents: Sequence[str] = (),
    envs: Sequence[str] = (),
    datasets: Sequence[str] = COMPARED,
    directory: str | pathlib.Path,
    say: Say = silent,
    on_tick: OnTick = silent,
) -> pd.DataFrame:
    """Train every agent on every data set with the same budget, each with its own defaults; one table and figure.

    Runs lie in ``<directory>/<env>-<data set>/<agent>``. Called again, it skips what is finished and resumes what was
    stopped, so agents can be added to a comparison one by one.

    Args:
      config: the budget; its ``agent``, ``env``, ``dataset`` and ``grid`` are not looked at. Numbers that are None are
        as ``COMPARISONS`` says, then as ``SCALES``. Each agent takes those of the ``settings`` that it has.
      agents: names, or import paths of modules; all offline agents that see rewards if empty.
      envs: names; as ``COMPARISONS`` says if empty.
      datasets: names of data sets, or files.
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
    preset = dict(COMPARISONS[config.scale])
    envs = tuple(envs) or preset.pop("envs")
    changes = {name: value for name, value in preset.items() if getattr(config, name, 0) is None}
    names = list(dict.fromkeys(agents)) or compared_agents()
    folder, planned = pathlib.Path(directory), []
    if not datasets:
        raise UserError("compare needs at least one data set")
    unused = set(config.settings)
    for env in envs:
        for dataset in datasets:
            task = f"{env.replace('/', '-')}-{pathlib.Path(dataset).stem}"
            for name in names:
                known = _settings_of(name)
                own = {key: value for key, value in config.settings.items() if key in known}
                unused -= set(own)
                one = resolve(
                    dataclasses.replace(config, **changes, env=env, dataset=dataset, agent=name, settings=own)
                )
                kind_of(name, dataset=True)  # refuses what learns from no data
                learner(name, one)  # whatever is wrong with its settings shows before anything is trained
                path = folder / task / name.rpartition(".")[2]
                if (path / "config.json").exists() and _budget(load_config(path)) != _budget(one):
                    raise UserError(f"{path} holds a run with other numbers; choose another directory with --out")
                planned.append((path, one))
    if unused:
        raise UserError(f"no agent of the comparison has {', '.join(sorted(unused))}")
    for env in envs:
        make_env(dataclasses.replace(config, env=env))
    for number, (path, one) in enumerate(planned, 1):
        say(f"{number} of {len(planned)}: {one.agent} on {path.parent.name}")
        begun = (path / "config.json").exists()
        if begun and finished(path):
            continue
        sweep(one, directory=path, resume=begun, lean=True, say=say, on_tick=on_tick)
        comparison.write(folder)  # after every run, so that a stopped comparison has its page too
    return comparison.write(folder)


def _settings_of(name: str) -> set[str]:
    from jaxrl_reg import agents

    module = agents.load(name)
    return {key for cls in (module.Config, module.Hyper) for key, _, _ in agents.settings(cls)}


def _budget(config: SweepConfig) -> dict[str, Any]:
    """What makes two runs comparable: everything but how they were computed and where their data lie."""
    values = json.loads(json.dumps(dataclasses.asdict(config), default=plain))
    return {k: v for k, v in values.items() if k not in ("placement", "chunk", "tensorboard", "wandb", "data_dir")}

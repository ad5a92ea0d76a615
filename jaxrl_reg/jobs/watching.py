"""How the members of a run behave besides their return: ``evaluate RUN --conduct``."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError, need
from jaxrl_reg.io.files import read_json, write_json, write_parquet
from jaxrl_reg.jobs import hosted, kinds
from jaxrl_reg.jobs.evaluation import restore
from jaxrl_reg.jobs.files import load_config
from jaxrl_reg.jobs.progress import OnTick, Say, Tick, silent
from jaxrl_reg.jobs.settings import NO_ENV, seeds_of

if TYPE_CHECKING:
    import pandas as pd

    from jaxrl_reg.jobs.job import Job
    from jaxrl_reg.jobs.settings import JobConfig
    from jaxrl_reg.types import Key, Policy

CONDUCT_STREAM = 11
EPISODES = 64


def world_job(path: pathlib.Path) -> tuple[JobConfig, Job]:
    """The job of a run whose members act in an environment that can be compiled; a ``UserError`` for others."""
    config = load_config(path)
    if config.env == NO_ENV:
        raise UserError(f"{path} is a run without an environment; there is nothing to roll out")
    if hosted.asked(config):
        raise UserError(f"{config.env} is stepped on the host, where episodes are not recorded step by step")
    job = kinds.of(config).reopen(config, read_json(path / "summary.json", default={}))
    if config.kind == "tokens" or not hasattr(job.world, "step"):
        raise UserError(f"{path} is a run of policies that complete prompts; this looks at those that act step by step")
    return config, job


def conduct(
    directory: str | pathlib.Path, episodes: int | None = None, *, say: Say = silent, on_tick: OnTick = silent
) -> pd.DataFrame:
    """Measures of conduct of every member from its checkpoint, and of what was trained beside them.

    Rows go to ``conduct.parquet``; what could not be measured, and why, to ``conduct.json``; the report is written
    again with both. See ``evaluation.observed`` for the measures.

    Args:
      directory: a run directory.
      episodes: per member, twice: as they are and with a push half-way; 64 by default.

    Returns:
      One row per setting and measure: mean over seeds with its 95% interval.

    Raises:
      UserError: if the directory holds no run or no checkpoint, or its world cannot be compiled.
    """
    need("pandas")
    import pandas as pd

    from jaxrl_reg.evaluation import observed
    from jaxrl_reg.evaluation import report as reporting

    path = pathlib.Path(directory)
    config, job = world_job(path)
    episodes = EPISODES if episodes is None else episodes
    world: Any = job.world
    observe = observed.observer(world, episodes, world.spec.max_episode_steps)
    ways = f"{episodes} episodes each, as they are and pushed half-way"
    frame = pd.DataFrame(watched(path, config, job, observe, CONDUCT_STREAM, episodes, "conduct", ways, say, on_tick))
    write_parquet(path / "conduct.parquet", frame)
    write_json(path / "conduct.json", {"missing": observed.missing(observed.names(world)), "episodes": episodes})
    reporting.write(path)
    return reporting.conduct_table(frame, config.agent, swept(path))


def watched(
    path: pathlib.Path,
    config: JobConfig,
    job: Job,
    observe: Callable[[Policy, Key], dict[str, Any]],
    stream: int,
    episodes: int,
    name: str,
    ways: str,
    say: Say,
    on_tick: OnTick,
) -> list[dict[str, Any]]:
    """``observe(policy, key) -> {measure: scalar}`` of every member from its checkpoint: a row per member and measure.

    ``stream`` sets the keys apart from those of other looks at the run; ``name`` and ``ways`` say what is done.

    Raises:
      UserError: there is no checkpoint of the run's own agent.
    """
    import jax

    from jaxrl_reg import population

    rows = []
    for member in [*job.rivals, *job.learners]:
        folder = path / "checkpoints" / member.folder
        if not folder.is_dir():
            if member.name == config.agent:
                raise UserError(
                    f"{path} has no checkpoint of {member.label}; continue it with: jaxrl-reg resume {path}"
                )
            continue
        _, run = job.run(member, None)
        restored, keep = restore(member, config, run, folder), job.keep(member)
        count = len(restored.keys)
        say(f"watching {member.label}: {count} members, {ways}")

        def one(state_key_hyper: Any, shared: Any, keep: Any = keep) -> Any:
            state, key, hyper = state_key_hyper
            return observe(keep(state, hyper), jax.random.fold_in(key, stream))

        on_tick(Tick(name, 0, count * episodes, 0.0, 0.0, unit="episodes"))
        chunk = min(count, max(1, population.EVALUATION_CHUNK // 4))  # whole episodes are kept, not sums
        found = jax.device_get(
            jax.jit(population.over_members(one, chunk))((restored.states, restored.keys, restored.hypers), 0)
        )
        on_tick(Tick(name, count * episodes, count * episodes, 0.0, 0.0, unit="episodes"))
        seeds = seeds_of(config)
        for m in range(count):
            setting, seed = divmod(m, config.seeds)
            about = {
                "agent": member.name,
                "setting": member.first + setting,
                "seed": seeds[seed],
                **{hyper: values[setting] for hyper, values in member.swept.items()},
                "update": int(restored.updates[setting]),
                "episodes": episodes,
            }
            rows += [{**about, "measure": one, "value": float(values[m])} for one, values in found.items()]
    return rows


def swept(path: pathlib.Path) -> list[str]:
    """Names of the hyperparameters of which a run has several values."""
    return list(read_json(path / "config.json").get("swept", []))

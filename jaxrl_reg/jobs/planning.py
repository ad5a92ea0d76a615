"""What a run of any kind would take on an accelerator that one does not have: its programs compiled for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jaxrl_reg.jobs import kinds
from jaxrl_reg.jobs.progress import Say, silent
from jaxrl_reg.jobs.settings import JobConfig, resolve, seeds_of

if TYPE_CHECKING:
    from jaxrl_reg.jobs.job import Job
    from jaxrl_reg.population.forecast import Forecast
    from jaxrl_reg.types import Dataset


class Planned(NamedTuple):
    """One program of a run: whose it is, and what it takes."""

    label: str
    forecast: Forecast


def plan(config: JobConfig, target: str, *, evaluation: bool = True, say: Say = silent) -> list[Planned]:
    """Compile every program of a run for one device of ``target`` (``population.targets.TARGETS``); nothing is trained
    and nothing written.

    Args:
      config: of any kind, as for ``sweep``; where its data set is not collected yet, rows of noise stand for it.
      target: name of the accelerator.
      evaluation: compile the evaluations as well, which takes longest where there is physics.
      say: told what is being compiled, and then what it takes.

    Raises:
      UserError: for an unknown target, one whose compiler is not installed, or a config that cannot be run.
    """
    from jaxrl_reg.population import forecast, targets

    targets.device(target)  # whatever is missing shows before data are read
    config = resolve(config.settled())
    job = kinds.of(config).make(config)
    if job.given is not None:
        noise = _stand_in(config, job)
        say(f"the data set is not collected yet; {noise.size:,} rows of noise stand for it")
        job = job.given(noise)
    data = job.data
    say(forecast.constants(target))
    if config.evolve:
        say(
            f"a population of {config.draws} for each of {config.seeds} seeds; who copies whom is decided between "
            f"{config.segments} segments, which costs a gather of the states each time"
        )
    planned = []
    for member in (*job.learners, *job.rivals):
        agent, run = job.run(member, None)
        say(f"{member.label}: {job.budget(member)}; compiling")
        one = forecast.plan_for(
            run,
            target,
            seeds=list(seeds_of(config)),
            hypers=member.hypers,
            data=data if agent.prepare is None or data is None else agent.prepare(data),
            chunk=config.chunk,
            evaluation=evaluation,
            start=None if job.start is None else job.start(member),
        )
        for line in one.lines():
            say(f"  {line}")
        planned.append(Planned(member.label, one))
    return planned


def _stand_in(config: JobConfig, job: Job) -> Dataset:
    """Rows of noise in the shape of a data set that is not there, as many as would be collected (a million at most).

    Where tasks can be put to the data, every row has the physics of one first state, so that their rewards are finite.
    """
    import jax
    import numpy as np

    from jaxrl_reg.data import from_arrays

    world = job.world
    assert world is not None
    spec, extras = world.spec, {}
    rows = min(int(getattr(config, "collect_steps", 0) or 100_000), 1_000_000)
    random, steps = np.random.default_rng(0), np.arange(rows)
    observation = random.standard_normal((rows, spec.observation_dim), np.float32)
    action = random.uniform(-1.0, 1.0, (rows, spec.action_dim)).astype(np.float32)
    end = steps % spec.max_episode_steps == spec.max_episode_steps - 1
    tasks = world.tasks
    if tasks is not None:
        physics = np.asarray(jax.jit(lambda key: tasks.physics(world.reset(key)))(jax.random.key(0)))
        extras["physics"] = np.tile(physics, (rows, *(1,) * physics.ndim))
    return from_arrays(
        observation, action, observation[:, 0], end, end & False, observation, name="stand-in", extras=extras
    )

"""The data set of a reference policy that an online agent is held to: collected where it is not there, or read."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import TYPE_CHECKING

from jaxrl_reg.errors import UserError, need
from jaxrl_reg.jobs.collection import WRITTEN_WITH, collect, data_lines, dataset_path, load_data, summarise
from jaxrl_reg.jobs.settings import COLLECTED, EXPLORED, SweepConfig, resolve
from jaxrl_reg.jobs.values import word

if TYPE_CHECKING:
    from jaxrl_reg.jobs.job import Job
    from jaxrl_reg.jobs.kinds.online import OnlineConfig
    from jaxrl_reg.jobs.progress import OnTick, Say
    from jaxrl_reg.types import Dataset, Env

TRUE, PROXY = "reward/true", "reward/proxy"


def settled(config: OnlineConfig) -> OnlineConfig:
    """With paths that hold from any directory."""
    changes = {"data_dir": os.path.abspath(os.path.expanduser(config.data_dir))}
    if config.reference is not None and config.reference not in (*COLLECTED, *EXPLORED):
        path = os.path.abspath(os.path.expanduser(config.reference))
        changes |= {"reference": path} if os.path.exists(path) else {}
    return dataclasses.replace(config, **changes)


def held(job: Job, config: OnlineConfig, env: Env) -> Job:
    """The job with the data set that its agent is held to, where it is held to one; else the job as it is.

    Where the world has two rewards, a reference that is collected here is a policy that was trained on the TRUE one:
    someone who means well. What the agent learns from stays the proxy.

    Raises:
      UserError: for a reference that the agent does not take, or that does not fit the world.
    """
    from jaxrl_reg import agents
    from jaxrl_reg.population import hosts

    default = getattr(agents.load(config.agent), "HELD_TO", None)
    if default is None:
        if config.reference is not None:
            raise UserError(
                f"--reference is a data set that an agent such as occupancy_reg is held to, and {config.agent} is held "
                "to none"
            )
        return job
    source = _source(config, env, default)
    path = dataset_path(source)
    if path is None or path.is_file():
        return _given(job, config, source, env, load_data(source, env))
    if not hosts.alone():
        raise UserError(f"{path} does not exist; make it with one process first: {_command(source)}")
    need(*WRITTEN_WITH)

    def collected(say: Say, on_tick: OnTick) -> Job:
        say(f"the reference is not there yet; the same as: {_command(source)}")
        collect(source, say=say, on_tick=on_tick)
        return _given(job, config, source, env, load_data(source, env))

    return job._replace(collect=collected, given=lambda data: job._replace(data=data))


def has_two_rewards(env: Env) -> bool:
    """Whether a world tells of a true reward beside the one that is a proxy for it."""
    import jax

    return {TRUE, PROXY} <= set(jax.eval_shape(env.reset, jax.random.key(0)).metrics)


def _source(config: OnlineConfig, env: Env, default: str) -> SweepConfig:
    """What collects the reference, or reads it."""
    source = SweepConfig(
        env=config.env,
        backend=config.backend,
        env_settings={**config.env_settings, **({"reward": "true"} if has_two_rewards(env) else {})},
        dataset=config.reference or default,
        data_dir=config.data_dir,
        collect_steps=config.collect_steps,
        hidden=config.hidden,
        scale=config.scale,
        seed_offset=config.seed_offset,
        home=config.home,
    )
    return resolve(source.settled())


def _command(source: SweepConfig) -> str:
    words = ["jaxrl-reg collect", f"--env {source.env}"]
    words += [] if source.backend is None else [f"--backend {source.backend}"]
    return " ".join([*words, *(f"--env-set {name}={word(value)}" for name, value in source.env_settings.items())])


def _given(job: Job, config: OnlineConfig, source: SweepConfig, env: Env, data: Dataset) -> Job:
    """The job with its reference: rewards are those that the agent is paid, and their correlation is told."""
    import jax.numpy as jnp

    lines = []
    if TRUE in data.extras and PROXY in data.extras:
        from jaxrl_reg.losses import reward_correlation

        r = float(reward_correlation(data.extras[PROXY], data.extras[TRUE]))
        bound = f"; a bound on the true reward asks for coefficient={math.sqrt(1 - r * r):.2g}" if r > 0 else ""
        lines.append(f"proxy and true reward correlate at {r:.3f} where the reference is{bound}")
        unknown = jnp.float32(jnp.nan)  # the references' scores are of the true reward
        paid = data.extras[f"reward/{config.env_settings.get('reward', 'proxy')}"]
        data = dataclasses.replace(data, reward=paid, score_random=unknown, score_expert=unknown)
    about = summarise(data, source, dataset_path(source), env.spec.max_episode_steps)
    return job._replace(
        data=data, about=about, lines=[*job.lines, *data_lines(about), *lines], collect=None, given=None
    )

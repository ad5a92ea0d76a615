"""Online training: a population that acts in the environment and learns from what it sees, perhaps beside a rival."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from jaxrl_reg.errors import UserError
from jaxrl_reg.jobs import levels, references
from jaxrl_reg.jobs.job import Axis, Job, episode_of, greedy
from jaxrl_reg.jobs.learners import Learner, learner, learners, make_env
from jaxrl_reg.jobs.settings import SCALES, JobConfig, option, resolve

if TYPE_CHECKING:
    from jaxrl_reg.types import Agent, Env, Run

# What a config leaves open beside ``settings.SCALES``, by how the agent learns. A number of steps that is left open is
# rounded up to whole iterations and segments.
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "on_policy": {
        "small": {"steps": 300_000, "num_envs": 32, "unroll": 64},
        "full": {"steps": 50_000_000, "num_envs": 256, "unroll": 256},
    },
    "off_policy": {
        "small": {"steps": 100_000, "num_envs": 16, "unroll": 1, "updates_per_iteration": 4},
        "full": {"steps": 3_000_000, "num_envs": 16, "unroll": 1, "updates_per_iteration": 16},
    },
}
CAPACITY = 1_000_000  # rows of a replay, at most, by default


@dataclasses.dataclass(frozen=True)
class OnlineConfig(JobConfig):
    """A whole sweep in the environment, without a data set. A number that is None is as ``scale`` and the kind of the
    agent say (see ``SIZES``). One iteration is ``unroll`` steps of ``num_envs`` environments, then the updates."""

    kind: ClassVar[str] = "online"
    counts: ClassVar[tuple[str, ...]] = (*JobConfig.counts, "steps", "num_envs", "unroll", "updates_per_iteration")
    budget: ClassVar[str] = "steps"

    agent: str = option("ppo", "agent, see 'jaxrl-reg list agents', or the import path of a module of yours")
    steps: int = option(None, "environment steps per member, all its environments together")
    num_envs: int = option(None, "environments side by side, per member")
    unroll: int = option(None, "steps of each environment per iteration")
    updates_per_iteration: int = option(None, "off-policy: gradient updates per iteration")
    batch_size: int = option(None, "off-policy: rows per update")
    warmup: int = option(None, "off-policy: steps with random actions first [a hundredth of the steps]")
    capacity: int = option(None, "off-policy: rows of the replay [all steps, 1_000_000 at most]")
    reference: str | None = option(
        None,
        "data set that an agent such as occupancy_reg is held to: medium or another that is collected here (of a "
        "policy that means well, where a world has two rewards), or a file [its own, else none]",
        metavar="DATA",
    )
    data_dir: str = option("datasets", "where data sets are kept")
    collect_steps: int = option(None, "environment steps of the agent whose experience becomes the data")
    against: str | None = option(
        None,
        "online agent that is trained beside it on the same budget, or none [dr where the agent chooses levels]",
        metavar="AGENT",
    )
    adversary: str | None = option(
        None,
        "adversary that perturbs what the agent sees and is trained against it in turn, a segment each: sa_rl:0.1 "
        "(ATLA), pa_ad:0.1 or rat:0.1, in standard deviations of each observation; or a RUN whose adversaries, learnt "
        "by evaluate --attack, members are trained under as they are (RUN:rat:0.1: these of several) [none]",
        metavar="NAME:SIZE",
    )
    adversary_target: str | None = option(
        None,
        "what an adversary that is trained in turn shall bring about, as evaluate --target [what the agent loses]",
        metavar="FILE.py:FUNCTION",
    )

    def presets(self) -> Mapping[str, Any]:
        own = {"updates_per_iteration": 1, **SIZES[_learns(self.agent)][self.scale]}
        filled = {name: value for name in own if (value := getattr(self, name)) is not None}
        chosen = {**SCALES[self.scale], **own, **filled}
        if self.steps is None:
            unit = self.segments or chosen["segments"]
            unit *= chosen["num_envs"] * chosen["unroll"]
            chosen["steps"] = math.ceil(chosen["steps"] / max(unit, 1)) * unit
        chosen["warmup"] = chosen["steps"] // 100
        warmup = chosen["warmup"] if self.warmup is None else self.warmup
        chosen["capacity"] = min(chosen["steps"] + warmup, CAPACITY)
        return chosen

    def settled(self) -> OnlineConfig:
        return references.settled(super().settled())

    def length(self) -> int:
        return self.steps // (self.num_envs * self.unroll) * self.updates_per_iteration

    def check(self) -> None:
        """One line with the nearest numbers that divide, if these do not."""
        for name, least in (("batch_size", 1), ("warmup", 0), ("capacity", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)} must be at least {least}")
        each = self.num_envs * self.unroll
        if self.steps % (self.segments * each) == 0:
            return
        unit = self.segments * each
        below, above = self.steps // unit * unit, -(-self.steps // unit) * unit
        near = " or ".join(f"--steps {number}" for number in (below, above) if number)
        fitting = f"--segments {nearest_divisor(self.steps // each, self.segments)}"
        others = f", or keep it with {fitting}" if self.steps % each == 0 else ""
        raise UserError(
            f"steps={self.steps} is not a multiple of segments={self.segments} x num_envs={self.num_envs} x "
            f"unroll={self.unroll} = {unit}; nearest: {near}{others}"
        )


Config = OnlineConfig
WORDS = "training in the environment"
PRESETS = {scale: {**SCALES[scale], **SIZES["on_policy"][scale]} for scale in SCALES}


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of ``number`` that is nearest to ``wanted``, the larger of two."""
    for distance in range(max(number, wanted)):
        for candidate in (wanted + distance, wanted - distance):
            if candidate > 0 and number % candidate == 0:
                return candidate
    return 1


def make(config: OnlineConfig) -> Job:
    """The job of a config.

    Raises:
      UserError: for a config that cannot be run, or an agent or rival that does not learn online.
    """
    env = make_env(config)
    return references.held(_job(config, env), config, env)


def _job(config: OnlineConfig, env: Env) -> Job:
    """The job without the data that its agent may be held to."""
    students, rivals = learners(config.agent, config, spec=env.spec), []
    configs = {config.agent: config}
    chooses = students[0].make(students[0].config, env.spec).curriculum is not None
    against = config.against
    if against is None and chooses and env.levels is not None and config.agent != levels.RIVAL:
        against = levels.RIVAL
    against = None if against == levels.NOBODY else against
    if against is not None:
        if against == config.agent:
            raise UserError(f"--against {against} is the agent itself; name another one")
        configs[against] = rival_config(config, against)
        rivals = [learner(against, configs[against], own=False, spec=env.spec)]
    for member in [*students, *rivals]:
        run_of(member, configs[member.name], env)  # wrong settings show here
    show = episode_of(env, f"{config.agent} in {config.env}")
    return Job(
        learners=students,
        rivals=rivals,
        world=env,
        run=lambda member, episodes: run_of(member, configs[member.name], env, episodes),
        axis=Axis("environment steps", "step", config.steps // config.segments),
        budget=lambda member: _budget(configs[member.name]),
        score=levels.score(env, against),
        keep=greedy(env.spec, lambda state: state.agent),
        show=levels.with_album(show, env, config.segments) if chooses else show,
        sets=levels.sets_of(env),
    )


def reopen(config: OnlineConfig, facts: Mapping[str, Any]) -> Job:
    """The job of a run that was trained."""
    return _job(config, make_env(config))


def run_of(member: Learner, config: OnlineConfig, env: Env, episodes: int | None = None) -> tuple[Agent, Run]:
    """The agent for this environment and its training run, evaluated on ``episodes`` episodes."""
    from jaxrl_reg.loops.levels import levelled
    from jaxrl_reg.loops.online import online

    agent, settings = member.make(member.config, env.spec), loop_settings(config, env, episodes)
    if agent.curriculum is not None:
        levels.check(agent, member.name, env, config.unroll)
        if config.adversary is not None:
            raise UserError(f"--adversary trains against one policy in one world; {member.name} chooses among levels")
        names = ("steps", "num_envs", "segments", "unroll", "evaluate")
        return agent, levelled(agent, env, **{name: settings[name] for name in names})
    if config.adversary is None:
        if config.adversary_target is not None:
            raise UserError("--adversary-target is of an adversary; add --adversary rat:0.1, say")
        return agent, online(agent, env, **settings)
    return agent, _attacked_run(agent, env, config, settings)


def _attacked_run(agent: Agent, env: Env, config: OnlineConfig, settings: dict[str, Any]) -> Run:
    """Training under an adversary: one that learns in turn, or those that another run keeps."""
    from jaxrl_reg.jobs import opponents
    from jaxrl_reg.jobs.adversaries import parse
    from jaxrl_reg.loops.alternating import alternating, under
    from jaxrl_reg.loops.zero_shot import load_task

    assert config.adversary is not None
    if pathlib.Path(config.adversary.split(":")[0]).is_dir():
        if config.adversary_target is not None:
            raise UserError("--adversary-target is of an adversary that learns; those of a run have learnt already")
        found = opponents.one(config.adversary, env.spec)
        return under(agent, env, lambda key: opponents.drawn(found, env.spec, key), **settings)
    ((name, epsilon), *more) = parse(config.adversary, "--adversary")
    if more:
        raise UserError(f"--adversary {config.adversary}: one at a time, such as sa_rl:0.1")
    target = None if config.adversary_target is None else load_task(config.adversary_target, env).reward
    return alternating(agent, env, name, epsilon, target=target, **settings)


def loop_settings(config: Any, env: Env, episodes: int | None) -> dict[str, Any]:
    """What a loop in the environment takes from a config that has its sizes: of an online run or of fine-tuning."""
    from jaxrl_reg.evaluation import returns

    count = config.eval_episodes if episodes is None else episodes
    judged = env.levels is not None
    evaluate = returns.level_evaluator(env, levels.attempts(env, count)) if judged else returns.evaluator(env, count)
    return {
        "steps": config.steps,
        "num_envs": config.num_envs,
        "segments": config.segments,
        "unroll": config.unroll,
        "updates": config.updates_per_iteration,
        "batch_size": config.batch_size,
        "warmup": config.warmup,
        "capacity": config.capacity,
        "evaluate": evaluate,
    }


def rival_config(config: OnlineConfig, name: str) -> OnlineConfig:
    """What a rival is trained with: the same steps and segments. One that learns in another way (from a replay, not
    from its latest trajectory) has the sizes that suit it, as near to its presets as divide."""
    same = dataclasses.replace(config, agent=name, settings={}, grid={}, sample={}, early_stop=None, evolve=False)
    if _learns(name) == _learns(config.agent):
        return same
    open_again = dict.fromkeys(("num_envs", "unroll", "updates_per_iteration", "warmup", "capacity"))
    sizes = dataclasses.replace(same, **open_again).presets()
    each = config.steps // config.segments
    num_envs = nearest_divisor(each, sizes["num_envs"])
    unroll = nearest_divisor(each // num_envs, sizes["unroll"])
    return resolve(dataclasses.replace(same, **{**open_again, "num_envs": num_envs, "unroll": unroll}))


def _learns(name: str) -> str:
    """How an agent learns.

    Raises:
      UserError: if not online.
    """
    from jaxrl_reg import agents

    learns = agents.load(name).KIND
    if learns not in SIZES:
        raise UserError(
            f"agent {name!r} learns from a data set and not in the environment; online agents are of kind on_policy or "
            "off_policy, such as ppo, sac and td3"
        )
    return learns


def _budget(config: OnlineConfig) -> str:
    words = f"{config.steps:,} environment steps of {config.num_envs} environments, {config.unroll} at a time"
    if _learns(config.agent) == "on_policy":
        return words
    return f"{words}, {config.updates_per_iteration} updates of batch {config.batch_size} each"

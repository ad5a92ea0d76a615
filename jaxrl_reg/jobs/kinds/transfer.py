"""From task to task: every member of a run in one environment goes on in another, held to what it was, or not.

The members are those of the run times the strengths of the anchor, each evaluated in the new environment and in every
earlier one, before the first update and after each segment.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from jaxrl_reg.errors import UserError
from jaxrl_reg.jobs import kinds
from jaxrl_reg.jobs.job import Axis, Job, episode_of, greedy
from jaxrl_reg.jobs.kinds.online import SIZES, OnlineConfig, loop_settings, nearest_divisor
from jaxrl_reg.jobs.learners import Learner, learners
from jaxrl_reg.jobs.settings import SCALES, JobConfig, option, seeds_of

if TYPE_CHECKING:
    from jaxrl_reg.types import Agent, Array, Env, Key, Metrics, PyTree, Run, Spec

# Strengths that are tried where none are named: plain fine-tuning first, to see what is lost without.
STRENGTHS = {"l2": "0,0.001,0.01,0.1", "ewc": "0,0.1,1,10", "kl": "0,0.1,1,10"}
FISHER_ROWS = 1024  # states of the earlier world that importance is the mean over
FISHER_ENVS = 4
OF_RUN = ("num_envs", "unroll", "updates_per_iteration", "batch_size")  # what a run goes on with, unless told


@dataclasses.dataclass(frozen=True)
class TransferConfig(OnlineConfig):
    """Going on in another environment from a finished run in one, with its agent, settings and seeds.

    ``continuing`` makes one from a run directory; numbers that are left open are those of that run.
    """

    kind: ClassVar[str] = "transfer"

    run: str = option("", "directory of the run in the earlier environment")
    anchor: str = option(
        "none",
        "with --env: what the policy is held by while it learns the other task: l2 (to its weights), ewc (to those "
        "that matter in the earlier environment), kl (to what it would have done in the states it meets now), "
        "lora:RANK (only adapters of that rank are trained) or none",
        metavar="KIND",
    )
    anchor_coef: str | None = option(
        None,
        "how strongly, 0 for plain fine-tuning: one number, several (0,0.1,1) or log:LOW:HIGH:N; every member of the "
        f"run goes on with each of them [{'; '.join(f'{kind}: {text}' for kind, text in STRENGTHS.items())}]",
        metavar="C,C,...",
    )
    earlier: tuple[Mapping[str, Any], ...] = option((), "env, env_settings and backend of every earlier task, in order")
    behind_updates: int = option(0, "gradient updates of before, per member")
    behind_segments: int = option(0, "their evaluations")

    def check(self) -> None:
        from jaxrl_reg.agents import anchoring

        anchor = anchoring.parse(self.anchor)
        if anchor.kind not in anchoring.SWEPT and self.anchor_coef is not None:
            why = "lora holds by its rank" if anchor.kind == "lora" else "nothing is held without --anchor"
            raise UserError(f"{why}, so leave out --anchor-coef {self.anchor_coef}, or take --anchor l2, ewc or kl")
        strengths(self)
        super().check()


WORLD = ("env", "env_settings", "backend")  # the fields that make an environment
Config = TransferConfig
WORDS = "fine-tuning on another task"
PRESETS = {scale: {**SCALES[scale], **SIZES["on_policy"][scale]} for scale in SCALES}


def strengths(config: TransferConfig) -> tuple[float, ...]:
    """The coefficients of the anchor that every member goes on with; ``(0,)`` for one that has none.

    Raises:
      UserError: for a text that is no number and no range of numbers, or a negative or repeated one.
    """
    from jaxrl_reg.agents import anchoring

    kind = anchoring.parse(config.anchor).kind
    if kind not in anchoring.SWEPT:
        return (0.0,)
    text = STRENGTHS[kind] if config.anchor_coef is None else config.anchor_coef
    try:
        if text.startswith("log:"):
            low, high, count = [*text.split(":")[1:], "4"][:3]
            if not 0 < float(low) < float(high) or int(count) < 2:
                raise ValueError
            ratio = float(high) / float(low)
            values = tuple(float(low) * ratio ** (i / (int(count) - 1)) for i in range(int(count)))
        else:
            values = tuple(float(item) for item in text.split(","))
    except ValueError:
        raise UserError(
            f"anchor_coef={text} is neither numbers (0.1 or 0,0.1,1) nor log:LOW:HIGH:N with 0 < LOW < HIGH"
        ) from None
    if not all(0 <= value < float("inf") for value in values) or len(set(values)) < len(values):
        raise UserError(f"anchor_coef={text} must be different numbers that are at least 0")
    return values


def continuing(directory: str | pathlib.Path, **given: Any) -> TransferConfig:
    """The config of going on from the run in ``directory`` in another environment, ``env`` of ``given``, which are
    fields of ``TransferConfig``; ``settings`` among them join those of the run, the others replace them.

    Raises:
      UserError: for a run that was not trained in an environment, is not finished, or of which settings were stopped
        or moved.
    """
    from jaxrl_reg.jobs.files import finished, load_config

    before = load_config(directory)
    if not isinstance(before, OnlineConfig) or before.kind not in ("online", TransferConfig.kind):
        raise UserError(
            f"{directory} is {kinds.load(before.kind).WORDS}; --env goes on from a run of ppo, sac or td3 that learnt "
            "in an environment"
        )
    if not finished(directory):
        raise UserError(f"{directory} has not finished; first: jaxrl-reg resume {directory}")
    for given_up, flag in ((before.early_stop, "--early-stop"), (before.evolve, "--evolve")):
        if given_up:
            raise UserError(
                f"{directory} stopped or moved settings while it was trained ({flag}), so they are not all trained to "
                "the end with the values they had; train those that matter without"
            )
    shared = {field.name: getattr(before, field.name) for field in dataclasses.fields(JobConfig)} | {"env_settings": {}}
    chain = isinstance(before, TransferConfig)
    if isinstance(before, TransferConfig) and len(strengths(before)) > 1:
        raise UserError(
            f"{directory} holds its policies by several strengths ({before.anchor_coef or STRENGTHS[before.anchor]}); "
            "run it again with the one that is to go on, --anchor-coef C"
        )
    family, env = before.env.partition("/")[0], given.get("env", before.env)
    if env.endswith(".py") and os.path.isfile(env) and not os.path.isfile(os.path.join(before.home or ".", env)):
        given["env"] = os.path.abspath(env)  # a resumed run looks where the first one was started
    if given.get("env", before.env).partition("/")[0] != family:
        shared["backend"] = None
    shared |= {name: getattr(before, name) for name in OF_RUN}
    shared |= {
        "run": os.path.abspath(directory),
        "steps": before.steps,
        "earlier": (*(before.earlier if chain else ()), {name: getattr(before, name) for name in WORLD}),
        "behind_updates": before.length() + (before.behind_updates if chain else 0),
        "behind_segments": before.segments + (before.behind_segments if chain else 0),
    }
    settings = {**before.settings, **given.pop("settings", {})}
    config = TransferConfig(**{**shared, "segments": None, "settings": settings, **given})
    each = config.num_envs * config.unroll
    if config.segments is None and config.steps % each == 0:
        config = dataclasses.replace(config, segments=nearest_divisor(config.steps // each, before.segments))
    return config


def worlds(config: TransferConfig) -> list[Env]:
    """The environments that were learnt before, oldest first, and the new one, last.

    Raises:
      UserError: for an unknown one, one that was learnt last, or one in which a policy of the run cannot act.
    """
    from jaxrl_reg.jobs.learners import make_env

    before = _earlier(config)
    if all(getattr(config, name) == getattr(before[-1], name) for name in WORLD):
        raise UserError(f"{config.where} is what {config.run} has learnt; name another task with --env, --env-set")
    found, new = [make_env(one) for one in before], make_env(config)

    def space(env: Env) -> tuple[int, int, bool]:
        return env.spec.observation_dim, env.spec.action_dim, env.spec.discrete

    def words(env: Env) -> str:
        return f"{space(env)[0]} numbers to see and {space(env)[1]} {'choices' if env.spec.discrete else 'actions'}"

    if space(new) != space(found[-1]):
        raise UserError(
            f"{config.env} has {words(new)}, {before[-1].env} {words(found[-1])}: "
            "a policy of one cannot act in the other"
        )
    return [*found, new]


def _earlier(config: TransferConfig) -> list[TransferConfig]:
    """The config as it would be in each of the earlier environments."""
    return [dataclasses.replace(config, **world) for world in config.earlier]


def make(config: TransferConfig) -> Job:
    """The job of a config: the states that its members begin with are those of the run, once for every strength.

    Raises:
      UserError: for a run that is not there any more, environments that do not fit, or an agent that cannot be held.
    """
    from jaxrl_reg.io.files import read_json
    from jaxrl_reg.jobs.files import load_config
    from jaxrl_reg.jobs.kinds.finetune import refuse_other_programs

    before = load_config(config.run)
    first = kinds.of(before).reopen(before, read_json(pathlib.Path(config.run) / "summary.json"))
    job, envs = _job(config), worlds(config)
    refuse_other_programs(first, job)
    begun: dict[str, PyTree] = {}

    def start(member: Learner) -> PyTree:
        if member.folder not in begun:
            begun[member.folder] = _states(config, before, first, envs, member)
        return begun[member.folder]

    strong = strengths(config)
    held = f"held by {config.anchor}" + (f", strength {', '.join(f'{c:g}' for c in strong)}" if len(strong) > 1 else "")
    return job._replace(
        lines=[f"goes on from {config.run} in {config.where}, {held}"],
        start=start,
        history=lambda: _before(config, job, start),
    )


def reopen(config: TransferConfig, facts: Mapping[str, Any]) -> Job:
    """The job of a run that was trained; it does not need the run that it went on from."""
    return _job(config)


def run_of(
    member: Learner, config: TransferConfig, envs: Sequence[Env], episodes: int | None = None
) -> tuple[Agent, Run]:
    """The agent and its run in the last of ``envs``, evaluated on ``episodes`` episodes of each."""
    from jaxrl_reg.loops.online import Start, online

    agent = member.make(member.config, envs[-1].spec)
    settings = loop_settings(config, envs[-1], episodes)
    settings["evaluate"] = _in_all(envs, config.eval_episodes if episodes is None else episodes)
    behind = Start(config.behind_updates, config.behind_segments)
    return agent, online(agent, envs[-1], start=behind, **settings)


def _in_all(envs: Sequence[Env], episodes: int) -> Any:
    """An evaluator of the last of ``envs`` whose metrics have the returns of the others, numbered from 1, beside."""
    import jax

    from jaxrl_reg.evaluation import returns

    judges = [returns.evaluator(env, episodes) for env in envs]

    def evaluate(act: Any, key: Key) -> Metrics:
        found = dict(judges[-1](act, key))
        for number, judge in enumerate(judges[:-1], 1):
            found[f"return_{number}"] = judge(act, jax.random.fold_in(key, number))["return"]
        return found

    return evaluate


def _job(config: TransferConfig) -> Job:
    """What the job is without its past."""
    envs = worlds(config)
    students = programs(config, envs[0].spec)
    for student in students:
        run_of(student, config, envs)  # wrong settings show here
    metrics = [*(f"eval/return_{number}" for number in range(1, len(envs))), "eval/return"]
    return Job(
        learners=students,
        world=envs[-1],
        run=lambda member, episodes: run_of(member, config, envs, episodes),
        axis=Axis("environment steps", "step", config.steps // config.segments),
        budget=lambda member: f"{config.steps:,} environment steps of {config.num_envs} environments in {config.where}",
        keep=greedy(envs[-1].spec, lambda state: state.agent),
        show=episode_of(envs[-1], f"{config.agent} in {config.where}"),
        met=tuple(zip([one.where for one in (*_earlier(config), config)], metrics, strict=True)),
    )


def programs(config: TransferConfig, spec: Spec | None = None) -> list[Learner]:
    """The agent's settings, held, in groups that share a program; ``spec`` is the environments'."""
    return [_held(one, config) for one in learners(config.agent, config, spec=spec)]


def _held(member: Learner, config: TransferConfig) -> Learner:
    """The settings of one program, each with every strength of the anchor, which varies fastest."""
    import jax.numpy as jnp

    from jaxrl_reg import agents, population
    from jaxrl_reg.agents import anchoring

    module, anchor, strong = agents.load(member.name), anchoring.parse(config.anchor), strengths(config)
    settings, count = population.setting_count(member.hypers), len(strong)
    own = {field.name: getattr(member.hypers, field.name) for field in dataclasses.fields(member.hypers)}
    hypers = anchoring.hyper_of(module)(
        **{name: jnp.repeat(leaf, count) for name, leaf in own.items()},
        anchor_coef=jnp.tile(jnp.asarray(strong, jnp.float32), settings),
    )
    swept = {name: tuple(value for value in values for _ in strong) for name, values in member.swept.items()}
    if anchor.kind in anchoring.SWEPT:
        swept[anchoring.COEFFICIENT] = strong * settings
    return member._replace(
        hypers=hypers,
        swept=swept,
        first=member.first * count,
        make=lambda settings, spec: anchoring.make(module, anchor, settings, spec),
    )


def _states(config: TransferConfig, before: JobConfig, first: Job, envs: Sequence[Env], member: Learner) -> PyTree:
    """What the members of one program begin with, leaves ``[H strengths, S, ...]``."""
    import jax
    import jax.numpy as jnp

    from jaxrl_reg import population
    from jaxrl_reg.agents import anchoring

    (old,) = (one for one in first.learners if one.folder == member.folder)
    trained, run = first.run(old, None)
    folder = pathlib.Path(config.run) / "checkpoints" / old.folder
    found = population.restore(folder, run, seeds_of(before), old.hypers)
    if found is None or (found.updates != run.segments * run.updates_per_segment).any():
        raise UserError(f"{folder} holds no checkpoint of the end of training; {config.run} cannot be gone on from")
    agent, anchor, count = member.make(member.config, envs[-1].spec), anchoring.parse(config.anchor), len(found.keys)

    def importance(given: Any, nothing: Any) -> PyTree:
        state, key, hyper = given
        return anchoring.fisher(trained, state, _visited(trained, envs[-2], state, key, hyper))

    states, weights = found.states.agent, ()
    if anchor.kind == "ewc":
        over_members = population.over_members(importance, 1)  # Jacobians are large
        weights = jax.jit(over_members)((states, found.keys, found.hypers), ())
    rows = jnp.repeat(jnp.arange(count).reshape(-1, config.seeds), len(strengths(config)), axis=0)
    states, weights, keys = jax.tree.map(lambda leaf: leaf[rows], (states, weights, found.keys))

    def begin(hyper: Any, state: PyTree, weights: PyTree, key: Key) -> PyTree:
        return anchoring.begin(agent, state, hyper, jax.random.fold_in(key, config.behind_segments), weights)

    over_seeds = jax.vmap(begin, in_axes=(None, 0, 0, 0))
    return jax.jit(jax.vmap(over_seeds))(member.hypers, states, weights, keys)


def _visited(agent: Agent, env: Env, state: PyTree, key: Key, hyper: PyTree) -> Array:
    """``[N, O]`` observations from whole episodes of a policy that explores, spread evenly over them."""
    import jax
    import jax.numpy as jnp

    from jaxrl_reg.envs import vectorize
    from jaxrl_reg.loops.rollout import rollout

    vector = vectorize(env, FISHER_ENVS)
    begin_key, key = jax.random.split(jax.random.fold_in(key, FISHER_ROWS))
    length = max(env.spec.max_episode_steps, FISHER_ROWS // FISHER_ENVS)

    def act(observation: Array, key: Key) -> Array:
        return agent.act(state, observation, hyper, key, True)

    seen = rollout(vector, act, vector.reset(begin_key), key, length)[1].observation
    seen = seen.reshape(-1, seen.shape[-1])
    return seen[jnp.linspace(0, len(seen) - 1, FISHER_ROWS).astype(int)]


def _before(config: TransferConfig, job: Job, start: Any) -> Iterator[dict[str, Any]]:
    """Rows of every member before its first update, in all environments; both tasks start from these in the report."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxrl_reg import population
    from jaxrl_reg.jobs.recording import metric_rows
    from jaxrl_reg.population.checkpointing import layout

    for member in job.learners:
        _, run = job.run(member, None)
        seeds, settings = list(seeds_of(config)), population.setting_count(member.hypers)
        count = settings * len(seeds)
        keys, hypers = layout(np.asarray(seeds), member.hypers, np.arange(count))

        def one(given: Any, nothing: Any, run: Run = run) -> Metrics:
            state, key, hyper = given
            assert run.evaluate is not None
            return run.evaluate(run.init(key, hyper, state), jnp.int32(-1), key, hyper)

        states = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), start(member))
        chunk = min(count, population.EVALUATION_CHUNK)
        metrics = jax.device_get(jax.jit(population.over_members(one, chunk))((states, keys, hypers), ()))
        shaped = {name: np.asarray(value).reshape(settings, len(seeds), 1) for name, value in metrics.items()}
        yield from metric_rows(member, config, job.axis, run, shaped, episodes=config.eval_episodes, done=0)

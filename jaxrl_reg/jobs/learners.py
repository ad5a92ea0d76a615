"""What a config means: agents with their settings filled in, and an environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.jobs.settings import JobConfig
from jaxrl_reg.jobs.values import coerce, column, looks_like, word

if TYPE_CHECKING:
    from jaxrl_reg.types import Agent, Env, Spec, TokenSpec


BASELINE = "bc"
SCHEDULES = ("decay_steps", "ramp_steps")  # settings of agents that are meant to end with training


class Learner(NamedTuple):
    """An agent module with its settings filled in, those that share a program; leaves of ``hypers`` are ``[H]``."""

    name: str
    config: Any
    hypers: Any
    swept: dict[str, tuple[float | str, ...]]  # what each setting has of everything that is swept, [H]
    make: Callable[[Any, Any], Agent]
    first: int = 0  # number of the first of these settings among all of the sweep
    label: str = ""  # the name, and what sets this program apart from the others of the sweep
    folder: str = ""  # of its checkpoints


def learner(name: str, config: JobConfig, *, own: bool = True, spec: Spec | TokenSpec | None = None) -> Learner:
    """The agent ``name`` under ``config``; with ``own=False`` (a baseline) only the network size is taken from it.

    Raises:
      UserError: as ``learners``, or if the settings need several programs.
    """
    found = learners(name, config, own=own, spec=spec)
    if len(found) > 1:
        raise UserError(f"the settings of {name} need {len(found)} programs; this job takes those of one")
    return found[0]


def learners(name: str, config: JobConfig, *, own: bool = True, spec: Spec | TokenSpec | None = None) -> list[Learner]:
    """The agent ``name`` with the settings of ``config``, in groups that share a program. What is not set is as the
    module's ``defaults(spec)`` has it for a world of this ``spec``, where there is such a function, else the ``Hyper``.

    A swept hyperparameter is traced: all its values share one. A swept setting of the agent (widths, ensemble size)
    changes the program, so each of its values is a group, which compiles separately. Settings are numbered through.

    Raises:
      UserError: for an unknown agent, hyperparameter or setting, or a value of the wrong kind.
    """
    from jaxrl_reg import agents, population

    module = agents.load(name)
    static = {field: default for field, default, _ in agents.settings(module.Config)}
    traced = {field: default for field, default, _ in agents.settings(module.Hyper)}
    kinds = agents.kinds(module.Config)
    fixed: dict[str, Any] = {}
    start = {} if spec is None or not hasattr(module, "defaults") else dict(module.defaults(spec))
    if "hidden" in static and config.hidden is not None:
        fixed["hidden"] = config.hidden
        if isinstance(static.get("actor_hidden"), int):  # of an actor with blocks of one width
            fixed["actor_hidden"] = max(config.hidden)
    for schedule in SCHEDULES:
        if static.get(schedule):
            fixed[schedule] = config.length()
    pairs = getattr(config, "pairs", None)
    if own and pairs is not None:
        if "pairs_file" not in static:
            raise UserError(f"{name} does not learn from pairs, so leave out --pairs; --agent preference does")
        fixed["pairs_file"] = pairs
    for key, value in config.settings.items() if own else ():
        if key in traced:
            start[key] = coerce(key, float, value)
        elif key in static:
            fixed[key] = coerce(key, kinds[key], value)
        else:
            raise unknown(f"hyperparameter or setting of {name}", key, [*traced, *static])
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    points = _points(name, config, traced, kinds) if own else [{}]
    columns = {key: [point[key] for point in points] for key in points[0] if key in static}
    cells = {key: dict(zip(values, column(values), strict=True)) for key, values in columns.items()}
    for point in points:
        groups.setdefault(tuple(point[key] for key in point if key in static), []).append(point)
    made: list[Learner] = []
    first = 0
    for number, members in enumerate(groups.values()):
        apart = {key: value for key, value in members[0].items() if key in static}
        hypers = population.stack(
            [module.Hyper(**{**start, **{k: v for k, v in one.items() if k in traced}}) for one in members]
        )
        swept = {
            key: tuple(cells[key][one[key]] for one in members)
            if key in static
            else tuple(float(value) for value in getattr(hypers, key))
            for key in points[0]
        }
        words = " ".join([name, *(f"{key}={word(value)}" for key, value in apart.items())])
        own_name = re.sub(r"[^\w.-]+", "-", name).strip("-.")  # of an agent that is a file
        folder = own_name if len(groups) == 1 else f"{own_name}-{number}"
        config_of = module.Config(**{**fixed, **apart})
        made.append(Learner(name, config_of, hypers, swept, module.make, first, words, folder))
        first += len(members)
    return [_slots(made, config)] if own and config.evolve else made


def _slots(made: list[Learner], config: JobConfig) -> Learner:
    """The settings as slots of a population that is trained together: what they begin with does not stay theirs."""
    from jaxrl_reg import population

    for key, text in config.sample.items():
        if population.parse_range(key, text).kind == "choice":
            raise UserError(f"--evolve pushes numbers up and down: give {key} as log:LOW:HIGH or lin:LOW:HIGH")
    (only,) = made
    return only._replace(swept={"slot": tuple(float(slot) for slot in range(config.draws))})


def _points(name: str, config: JobConfig, traced: Mapping[str, Any], kinds: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every setting of the sweep as what it gives to everything that is swept: the grid times the drawn ones."""
    import itertools

    from jaxrl_reg import population

    for key in (*config.grid, *config.sample):
        if key not in traced and key not in kinds:
            raise unknown(f"hyperparameter or setting of {name}", key, [*traced, *kinds])
        if key in config.settings:
            raise UserError(f"{key!r} is both swept and fixed; keep one of the two")
        if key in config.grid and key in config.sample:
            raise UserError(f"{key!r} is in the grid and drawn as well; keep one of the two")

    axes = {}
    for key, values in config.grid.items():
        axes[key] = [coerce(key, kinds.get(key, float), value) for value in values]
        if not axes[key]:
            raise UserError(f"{key!r} has no values to sweep; give at least one")
        if len(set(axes[key])) < len(axes[key]):
            raise UserError(f"grid of {key!r} repeats a value: {', '.join(map(word, axes[key]))}")
    crossed = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    if not config.sample:
        return crossed
    ranges = {}
    for key, text in config.sample.items():
        one = population.parse_range(key, text)
        if key in kinds and one.kind != "choice":
            raise UserError(f"{key!r} changes the program and cannot be drawn from a range; give values: {key}=A,B")
        if one.kind == "choice":
            one = one._replace(values=tuple(coerce(key, kinds.get(key, float), value) for value in one.values))
        ranges[key] = one
    drawn = population.draw(ranges, config.draws, design=config.design, seed=config.design_seed)
    return [{**point, **setting} for point in crossed for setting in drawn]


def env_settings(config: JobConfig) -> dict[str, Any]:
    """The settings of a config's environment, each as what its default is; without one, as what it looks like.

    Raises:
      UserError: for an unknown environment, or a value that is not of its setting's kind.
    """
    from jaxrl_reg import envs

    if not config.env_settings:
        return {}
    if "backend" in config.env_settings:
        raise UserError("the physics of an environment are given as --backend, not as --env-set backend")
    defaults = envs.settings(config.env)
    return {
        name: looks_like(value) if (default := defaults.get(name)) is None else coerce(name, type(default), value)
        for name, value in config.env_settings.items()
    }


def make_env(config: JobConfig) -> Env:
    """The environment of a config.

    Raises:
      UserError: for an unknown environment or backend, or a task of tokens.
    """
    from jaxrl_reg import envs
    from jaxrl_reg.types import TokenTask

    backend = {} if config.backend is None else {"backend": config.backend}
    env = envs.make(config.env, **backend, **env_settings(config))
    if isinstance(env, TokenTask):
        raise UserError(
            f"{config.env} asks for whole completions, which {config.agent} does not give; take --agent grpo"
        )
    return env


def parameters(agent: Agent, member: Learner) -> int:
    """Trained parameters of one member; targets and optimiser states are not counted."""
    import jax

    hyper = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), member.hypers)
    state = jax.eval_shape(lambda hyper: agent.init(jax.random.key(0), hyper), hyper)

    def is_model(node: Any) -> bool:
        return hasattr(node, "params") and hasattr(node, "opt_state")

    models = [node.params for node in jax.tree.leaves(state, is_leaf=is_model) if is_model(node)]
    return sum(leaf.size for leaf in jax.tree.leaves(models or state))

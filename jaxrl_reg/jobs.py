"""The main job as library calls: collect a data set, train a population and a baseline, evaluate, report, resume.

``sweep(SweepConfig(env="brax/hopper", agent="rebrac", grid={"actor_bc_coef": (0.01, 0.1)}))`` does everything and
leaves a run directory::

    config.json      everything needed to run it again, with versions and commit
    metrics.parquet  one row per member per evaluation
    summary.json     the data set's summary, plans and timings
    checkpoints/     the newest states of the population and of the baseline
    zeroshot.parquet one row per member and task, once ``zeroshot`` has put tasks to an agent trained without any
    report.html      one self-contained page, beside table.csv, curves.png, profile.png, episode.html and rollout.html

The command line is a thin skin over this module. JAX is imported inside the functions, so importing this is cheap.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrl_reg.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

    from jaxrl_reg.loops.zero_shot import Labelled, Task
    from jaxrl_reg.population import Plan, Result
    from jaxrl_reg.types import Agent, Dataset, Env, Run

FORMAT = 1  # of the run directory
BASELINE = "bc"
COLLECT_ENVS, COLLECT_SEGMENTS, COLLECT_STREAM, LABEL_STREAM = 16, 20, 7, 8
PLAY_ENVS = 64  # environments side by side when finished policies are played
EVALUATION_CHUNK = 256  # members side by side when episodes are rolled out
PLACEMENTS = ("auto", "map", "vmap")
DESIGNS = ("random", "sobol")
STOPPING_RULES = ("asha", "halving", "prediction")
COLLECTED = ("random", "medium", "medium-replay", "medium-expert", "expert")
EXPLORED = ("rnd", "diayn")  # collected without a task

# What a config leaves open. ``small`` answers in minutes on two cores; ``full`` is the published protocol.
SCALES: dict[str, dict[str, Any]] = {
    "small": {
        "seeds": 4,
        "updates": 20_000,
        "batch_size": 256,
        "segments": 10,
        "eval_episodes": 10,
        "hidden": (64, 64),
        "collect_steps": 200_000,
    },
    "full": {
        "seeds": 16,
        "updates": 1_000_000,
        "batch_size": 256,
        "segments": 50,
        "eval_episodes": 20,
        "collect_steps": 3_000_000,
    },
}

# What a comparison of all agents takes instead, so that the small one ends within 40 minutes on two cores: half of it
# goes into compiling 42 programs. An even number of seeds keeps both cores busy. A batch of 128 costs half of 256 and
# teaches as much (TD3+BC comes to 60 on medium-replay in 2,000 updates of either).
COMPARISONS: dict[str, dict[str, Any]] = {
    "small": {
        "envs": ("brax/hopper",),
        "seeds": 4,
        "updates": 2_500,
        "batch_size": 128,
        "segments": 2,
        "eval_episodes": 10,
        "collect_steps": 96_000,
    },
    "full": {
        "envs": ("brax/hopper", "brax/halfcheetah"),
        "seeds": 8,
        "updates": 200_000,
        "segments": 10,
        "hidden": (256, 256),
    },
}
COMPARED = ("medium-replay", "medium-expert")


def _option(default: Any, help: str, **metadata: Any) -> Any:
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata={"help": help, **metadata})
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """A whole sweep. A number that is None is as ``scale`` says (see ``SCALES``); ``resolve`` fills it in."""

    env: str = _option("brax/hopper", "environment, see 'jaxrl-reg list envs'")
    agent: str = _option("rebrac", "agent, see 'jaxrl-reg list agents', or the import path of a module of yours")
    dataset: str = _option(
        "medium-replay",
        "random, medium, medium-replay, medium-expert, expert, rnd or diayn (collected here), or a file",
    )
    grid: Mapping[str, Sequence[Any]] = _option({}, "values of a hyperparameter to sweep; several make a product")
    sample: Mapping[str, str] = _option({}, "range to draw a hyperparameter from; drawn settings multiply the grid")
    draws: int = _option(16, "settings to draw from the ranges of --sample")
    design: str = _option("random", "how they are spread: random or sobol")
    design_seed: int = _option(0, "of the draw; another one gives other settings")
    early_stop: str | None = _option(
        None,
        "stop settings that fall behind, among those of one program: halving (the best third goes on after 1, 3, 9 ... "
        "evaluations), asha (the same without waiting until all have got so far) or prediction (of the final score, "
        "from the settings and the curves so far)",
        metavar="RULE",
    )
    settings: Mapping[str, Any] = _option({}, "fixed value of a hyperparameter or of a setting of the agent")
    scale: str = _option(
        "small", "small (minutes on two cores) or full (the published protocol)", choices=tuple(SCALES)
    )
    seeds: int = _option(None, "training runs per setting")
    seed_offset: int = _option(0, "first seed; another offset gives runs that nobody has looked at")
    updates: int = _option(None, "gradient updates per member")
    batch_size: int = _option(None, "rows per update")
    segments: int = _option(None, "evaluations during training; must divide the updates")
    eval_episodes: int = _option(None, "episodes per evaluation")
    hidden: tuple[int, ...] = _option(None, "widths of the hidden layers, such as 256,256; full: the agent's own")
    backend: str | None = _option(None, "physics of a Brax environment: spring, positional, generalized or mjx")
    data_dir: str = _option("datasets", "where data sets are kept")
    collect_steps: int = _option(None, "environment steps of the agent whose experience becomes the data")
    placement: str = _option("auto", "auto, map (one member after the other) or vmap (side by side)")
    chunk: int | None = _option(None, "members side by side on one device")
    tensorboard: bool = _option(False, "write TensorBoard event files into the run directory")
    wandb: str | None = _option(None, "log to this Weights & Biases project", metavar="PROJECT")


def resolve(config: SweepConfig) -> SweepConfig:
    """The config with every ``None`` that ``scale`` knows replaced by its number.

    Raises:
      UserError: for an unknown scale, or a number that cannot be.
    """
    if config.scale not in SCALES:
        raise unknown("scale", config.scale, SCALES)
    preset = SCALES[config.scale]
    config = dataclasses.replace(
        config, **{name: value for name, value in preset.items() if getattr(config, name) is None}
    )
    for name in ("seeds", "updates", "batch_size", "segments", "eval_episodes", "collect_steps"):
        if getattr(config, name) < 1:
            raise UserError(f"{name}={getattr(config, name)} must be at least 1")
    if config.placement not in PLACEMENTS:
        raise unknown("placement", config.placement, PLACEMENTS)
    if config.design not in DESIGNS:
        raise unknown("design", config.design, DESIGNS)
    if config.early_stop is not None and config.early_stop not in STOPPING_RULES:
        raise unknown("stopping rule", config.early_stop, STOPPING_RULES)
    if config.draws < 1:
        raise UserError(f"draws={config.draws} must be at least 1")
    if config.design_seed < 0:
        raise UserError(f"design_seed={config.design_seed} must not be negative")
    if config.chunk is not None and config.chunk < 1:
        raise UserError(f"chunk={config.chunk} must be at least 1 member")
    if config.seed_offset < 0:
        raise UserError(f"seed_offset={config.seed_offset} must not be negative")
    if config.updates % config.segments:
        near = max(1, round(config.updates / config.segments)) * config.segments
        raise UserError(f"updates={config.updates} is not a multiple of segments={config.segments}; {near} would be")
    if config.hidden is not None and (not config.hidden or min(config.hidden) < 1):
        raise UserError(f"hidden={config.hidden} must be positive widths, such as 256,256")
    return config


class Standing(NamedTuple):
    """How one member stands after its latest evaluation."""

    label: str  # what is swept, as it has it
    seed: int
    updates: int
    score: float
    state: str = ""  # diverged, stopped or waiting (for its promotion)


class Tick(NamedTuple):
    """How far a long stage is. ``per_second`` counts updates (or environment steps) of all members together."""

    stage: str
    done: int
    total: int
    per_second: float
    eta_seconds: float
    score: float | None = None  # mean over seeds, of the best setting
    unit: str = "updates"
    score_name: str = "score"
    members: Sequence[Standing] = ()  # best first, those that have failed or were stopped last


class Outcome(NamedTuple):
    """What ``sweep`` returns: where everything is, the trained populations, and the table of the report."""

    directory: pathlib.Path
    results: list[Result]  # one per group of settings that share a program
    baseline: Result | None
    table: pd.DataFrame  # without rows after a lean run

    @property
    def result(self) -> Result:
        """The trained population of a sweep whose settings share one program."""
        (only,) = self.results
        return only


Say = Callable[[str], None]
OnTick = Callable[[Tick], None]


def _silent(_: Any) -> None:
    return None


# ---------------------------------------------------------------------------------------------------------------------
# What a config means: agent, settings, environment, data set


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


def learner(name: str, config: SweepConfig, *, own: bool = True) -> Learner:
    """The agent ``name`` under ``config``; with ``own=False`` (a baseline) only the network size is taken from it.

    Raises:
      UserError: as ``learners``, or if the settings need several programs.
    """
    found = learners(name, config, own=own)
    if len(found) > 1:
        raise UserError(f"the settings of {name} need {len(found)} programs; this job takes those of one")
    return found[0]


def learners(name: str, config: SweepConfig, *, own: bool = True) -> list[Learner]:
    """The agent ``name`` with the settings of ``config``, in groups that share a program.

    A swept hyperparameter is traced: all its values share one. A swept setting of the agent (widths, ensemble size)
    changes the program, so each of its values is a group, which compiles separately. Settings are numbered through.

    Raises:
      UserError: for an unknown agent, hyperparameter or setting, or a value of the wrong kind.
    """
    from jaxrl_reg import agents, population

    module = agents.load(name)
    if module.KIND == "on_policy":
        raise UserError(f"agent {name!r} learns from its own fresh experience and cannot be trained on a data set")
    static = {field: default for field, default, _ in agents.settings(module.Config)}
    traced = {field: default for field, default, _ in agents.settings(module.Hyper)}
    fixed, start = {}, {}
    if "hidden" in static and config.hidden is not None:
        fixed["hidden"] = config.hidden
        if isinstance(static.get("actor_hidden"), int):  # of an actor with blocks of one width
            fixed["actor_hidden"] = max(config.hidden)
    for schedule in ("decay_steps", "ramp_steps"):  # meant to end with training
        if static.get(schedule):
            fixed[schedule] = config.updates
    for key, value in config.settings.items() if own else ():
        if key in traced:
            start[key] = _coerce(key, 0.0, value)
        elif key in static:
            fixed[key] = _coerce(key, static[key], value)
        else:
            raise unknown(f"hyperparameter or setting of {name}", key, [*traced, *static])
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    points = _points(name, config, traced, static) if own else [{}]
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
            key: tuple(_cell(one[key]) for one in members)
            if key in static
            else tuple(float(value) for value in getattr(hypers, key))
            for key in points[0]
        }
        words = " ".join([name, *(f"{key}={_word(value)}" for key, value in apart.items())])
        folder = name if len(groups) == 1 else f"{name}-{number}"
        config_of = module.Config(**{**fixed, **apart})
        made.append(Learner(name, config_of, hypers, swept, module.make, first, words, folder))
        first += len(members)
    return made


def _points(
    name: str, config: SweepConfig, traced: Mapping[str, Any], static: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Every setting of the sweep as what it gives to everything that is swept: the grid times the drawn ones."""
    import itertools

    from jaxrl_reg import population

    for key in (*config.grid, *config.sample):
        if key not in traced and key not in static:
            raise unknown(f"hyperparameter or setting of {name}", key, [*traced, *static])
        if key in config.settings:
            raise UserError(f"{key!r} is both swept and fixed; keep one of the two")
        if key in config.grid and key in config.sample:
            raise UserError(f"{key!r} is in the grid and drawn as well; keep one of the two")

    axes = {}
    for key, values in config.grid.items():
        axes[key] = [_coerce(key, static.get(key, 0.0), value) for value in values]
        if not axes[key]:
            raise UserError(f"{key!r} has no values to sweep; give at least one")
        if len(set(axes[key])) < len(axes[key]):
            raise UserError(f"grid of {key!r} repeats a value: {', '.join(map(_word, axes[key]))}")
    crossed = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    if not config.sample:
        return crossed
    ranges = {}
    for key, text in config.sample.items():
        one = population.parse_range(key, text)
        if key in static and one.kind != "choice":
            raise UserError(f"{key!r} changes the program and cannot be drawn from a range; give values: {key}=A,B")
        if one.kind == "choice":
            one = one._replace(values=tuple(_coerce(key, static.get(key, 0.0), value) for value in one.values))
        ranges[key] = one
    drawn = population.draw(ranges, config.draws, design=config.design, seed=config.design_seed)
    return [{**point, **setting} for point in crossed for setting in drawn]


def _word(value: Any) -> str:
    """A value as the command line takes it: ``0.1``, ``64x64``, ``gaussian``."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> float | str:
    """A value in a column of the metrics: a number where it is one."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number else _word(value)


def _coerce(name: str, default: Any, value: Any) -> Any:
    """``value``, perhaps from a command line, as the kind of thing that ``default`` is."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number", tuple: "numbers such as 64,64 or 64x64"}
    kind = type(default)
    try:
        if kind is bool:
            return value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]
        if kind is int:
            if float(value) != int(float(value)):
                raise ValueError
            return int(float(value))
        if kind is float:
            return float(value)
        if kind is tuple:
            element = default[0] if default else 0
            if isinstance(value, str) and isinstance(element, int):
                value = value.replace("x", ",")  # in a list of values the comma is taken
            items = value.split(",") if isinstance(value, str) else value
            return tuple(_coerce(name, element, item) for item in items if item != "")
    except (KeyError, ValueError, TypeError, OverflowError):
        raise UserError(f"{name}={value!r} is not {kinds[kind]}") from None
    return None if default is None and value in ("none", "None") else value


def make_env(config: SweepConfig) -> Env:
    """The environment of a config.

    Raises:
      UserError: for an unknown environment or backend.
    """
    from jaxrl_reg import envs

    return envs.make(config.env, **({} if config.backend is None else {"backend": config.backend}))


def _folder(config: SweepConfig) -> pathlib.Path:
    """Where the data sets of this environment and backend are kept."""
    physics = config.backend or ("spring" if config.env.startswith("brax/") else "")
    return pathlib.Path(config.data_dir) / "-".join(filter(None, (config.env.replace("/", "-"), physics)))


def dataset_path(config: SweepConfig) -> pathlib.Path | None:
    """Where a data set that is collected here lies; None for any other that ``data.load`` can find.

    Raises:
      UserError: for a name that is neither.
    """
    from jaxrl_reg import data

    if config.dataset in (*COLLECTED, *EXPLORED):
        return _folder(config) / f"{config.dataset}.hdf5"
    if ":" in config.dataset or pathlib.Path(config.dataset).exists():
        return None
    known = [*COLLECTED, *EXPLORED, *data.names(config.data_dir)]
    if "/" in config.dataset or pathlib.Path(config.dataset).suffix:
        raise UserError(f"data set {config.dataset} does not exist; give a file, or one of {', '.join(known)}")
    if config.dataset not in known:
        raise unknown("data set", config.dataset, known)
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Jobs


def sweep(
    config: SweepConfig,
    *,
    directory: str | pathlib.Path | None = None,
    resume: bool = False,
    lean: bool = False,
    say: Say = _silent,
    on_tick: OnTick = _silent,
) -> Outcome:
    """Collect the data set if it is not there, train the population and a cloning baseline, evaluate, report.

    Args:
      config: see ``SweepConfig``.
      directory: the run directory; ``runs/<env>-<agent>-<time>`` without it.
      resume: continue a run that was interrupted in ``directory``.
      lean: only the population: no baseline, no recorded episode, no report.
      say: called with one line of text at each stage.
      on_tick: called while a stage makes progress.

    Several processes that have joined (``population.hosts``) call this alike and share the members; the data set must
    be there, and the run directory one that all see. Only process 0 writes files, and only it returns a table.

    Raises:
      UserError: for a config that cannot be run, before anything is written.
      population.Interrupted, KeyboardInterrupt: when stopped; ``resume(directory)`` goes on from the last checkpoint.
    """
    import pandas as pd

    from jaxrl_reg.evaluation import report as reporting
    from jaxrl_reg.loops import zero_shot
    from jaxrl_reg.population import hosts

    config = resolve(config)
    students, cloner = learners(config.agent, config), learner(BASELINE, config, own=False)
    env = make_env(config)
    made = [student.make(student.config, env.spec) for student in students]  # wrong settings show here
    serves_tasks = made[0].zero_shot is not None
    path = pathlib.Path(directory) if directory is not None else default_directory(config)
    # Of several processes the first writes the run directory; the others train their members and say nothing.
    writes = hosts.first()
    if not hosts.alone():
        path = pathlib.Path(hosts.from_first(str(path)))
    if not writes:
        say, on_tick = _silent, _silent
    if not resume and writes:
        _refuse(path)
    begun = time.perf_counter()
    source = dataset_path(config)
    data = _load(config, env) if source is None or source.is_file() else None
    if data is None and not hosts.alone():
        raise UserError(
            f"{source} does not exist; make it with one process first: jaxrl-reg collect --env {config.env}"
        )
    if not resume and writes:
        _create(path, config, students)
    hosts.gather(0.0)  # the run directory is there
    facts = _read_json(path / "summary.json", default={})
    facts.setdefault("wall", {})
    if data is None:
        collect(config, say=say, on_tick=on_tick)
        data = _load(config, env)
    facts["wall"].setdefault("collect and load the data", time.perf_counter() - begun)
    world = env
    if serves_tasks:
        tasks = _tasks(env, data)
        say(f"judged by the mean return over {', '.join(task.name for task in tasks)}")
        data, world = zero_shot.mean_relabelled(env, data), zero_shot.mean_reward(env, tasks)
    facts["dataset"] = summarise(data, config, source, env.spec.max_episode_steps)
    if writes:
        _write_json(path / "summary.json", facts)
    say(_data_line(facts["dataset"]))

    if len(students) > 1:
        _say_groups(students, config, env, data, say)
    baseline = None
    if config.agent != BASELINE and not lean:
        baseline = _train(cloner, config, world, data, path, facts, resume, say, on_tick)
    results = [_train(student, config, env, data, path, facts, resume, say, on_tick) for student in students]
    if not writes:
        return Outcome(path, results, baseline, pd.DataFrame())
    if lean:
        facts["finished"] = _now()
        _write_json(path / "summary.json", facts)
        return Outcome(path, results, None, pd.DataFrame())

    say("writing the report")
    begun = time.perf_counter()
    _rollout(students, config, env, data, results, path)
    facts["wall"]["record the best member"] = time.perf_counter() - begun
    facts["finished"] = _now()
    _write_json(path / "summary.json", facts)
    table = reporting.write(path)
    return Outcome(path, results, baseline, table)


def train(config: SweepConfig, **options: Any) -> Outcome:
    """``sweep`` for a single setting: refuses a grid and drawn settings."""
    if config.grid or config.sample:
        raise UserError("train takes one setting: use --set name=value, or the verb sweep for a grid")
    return sweep(config, **options)


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
    say: Say = _silent,
    on_tick: OnTick = _silent,
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
    values = json.loads(json.dumps(dataclasses.asdict(config), default=_plain))
    return {k: v for k, v in values.items() if k not in ("placement", "chunk", "tensorboard", "wandb", "data_dir")}


def collect(config: SweepConfig, *, say: Say = _silent, on_tick: OnTick = _silent) -> pathlib.Path | None:
    """Make the data sets of an environment, unless they are there; returns the file of ``config.dataset``.

    One soft actor-critic run gives them all: its replay up to the medium level, and episodes of the random, the medium
    and the best policy. They are written below ``config.data_dir``, in D4RL's HDF5 layout. The data sets that know no
    task, ``rnd`` and ``diayn``, come from ``explore``.

    Raises:
      UserError: if the agent learns nothing in ``config.collect_steps``.
      population.Interrupted: when stopped; the same call goes on from the last checkpoint.
    """
    config = resolve(config)
    path = dataset_path(config)
    if path is None or path.is_file():
        return path
    if config.dataset in EXPLORED:
        return explore(config, config.dataset, say=say, on_tick=on_tick)
    return _collect(config, path, say, on_tick)


def explore(config: SweepConfig, behavior: str, *, say: Say = _silent, on_tick: OnTick = _silent) -> pathlib.Path:
    """Collect ``config.collect_steps`` steps without a task, unless that is done; returns the file.

    Args:
      config: environment, steps, network size and seed count; the rest has no say.
      behavior: ``random``, ``rnd`` or ``diayn``, see ``loops.explore``; also the name of the data set. Beside it a
        picture shows where the data have been, for an environment with tasks.

    Raises:
      UserError: for an unknown behaviour.
      population.Interrupted: when stopped; the same call goes on from the last checkpoint.
    """
    from jaxrl_reg import data
    from jaxrl_reg.evaluation import plots
    from jaxrl_reg.loops.explore import coverage
    from jaxrl_reg.loops.explore import explore as exploring

    config = resolve(config)
    env, path = make_env(config), _folder(config) / f"{behavior}.hdf5"
    steps = _whole_steps(config)
    exploration = exploring(
        behavior, env, steps=steps, num_envs=COLLECT_ENVS, segments=COLLECT_SEGMENTS, hidden=config.hidden
    )
    if path.is_file():
        say(f"{path} is already there; remove it to collect it again")
        return path
    say(f"exploring {config.env}, {behavior}: {steps:,} steps of {COLLECT_ENVS} environments, no rewards looked at")
    state, _, done = _online(exploration.run, exploration.hyper, behavior, config, say, on_tick)
    rows = exploration.dataset(state, f"{path.parent.name}-{behavior}")
    about = {"env": config.env, "backend": config.backend or "", "collect_steps": steps, "seed": config.seed_offset}
    about["behavior"] = behavior
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
        path.with_suffix(".png").write_bytes(plots.encode(picture))
        line += f"; {words}, see {path.with_suffix('.png')}"
    data.save(rows, path, about)
    say(line)
    done()
    return path


def _whole_steps(config: SweepConfig) -> int:
    """``config.collect_steps``, rounded up to whole segments of a collection."""
    unit = COLLECT_SEGMENTS * COLLECT_ENVS
    return -(-config.collect_steps // unit) * unit


def _online(
    run: Run, hyper: Any, stage: str, config: SweepConfig, say: Say, on_tick: OnTick
) -> tuple[Any, Any, Callable[[], None]]:
    """Run a collection, or what is left of one that was stopped: its last state, its settings and a function that
    removes the checkpoints once the data are safe."""
    import shutil

    from jaxrl_reg import population

    steps = _whole_steps(config)

    def on_plan(plan: Plan) -> None:
        say(f"traced in {plan.trace_seconds:.1f} s, compiled in {plan.compile_seconds:.1f} s")
        on_tick(Tick(stage, 0, steps, 0.0, 0.0, unit="steps"))

    def on_segment(progress: population.Progress) -> None:
        speed = progress.updates_per_second * steps / (progress.segments * progress.updates / progress.segment)
        done = steps * progress.segment // progress.segments
        returns = float(progress.metrics["train/return"][0, 0])
        on_tick(Tick(stage, done, steps, speed, progress.eta_seconds, returns, "steps", "return"))

    # A folder of its own for every way to collect, so that another one never meets these checkpoints.
    widths = "-".join(map(str, config.hidden or ("default",)))
    unfinished = _folder(config) / f".{stage}-{steps}-{widths}-{config.seed_offset}"
    result = population.sweep(
        run,
        seeds=[config.seed_offset],
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
    agent_config = sac.Config() if config.hidden is None else sac.Config(hidden=config.hidden)
    agent, steps = sac.make(agent_config, env.spec), _whole_steps(config)
    extras = None if env.tasks is None else _physics(env)
    collection = collect_online(
        agent, env, steps=steps, num_envs=COLLECT_ENVS, segments=COLLECT_SEGMENTS, extras=extras
    )
    say(f"collecting data in {config.env}: soft actor-critic, {steps:,} steps of {COLLECT_ENVS} environments")
    state, hyper, done = _online(collection.run, sac.Hyper(), "collect", config, say, on_tick)
    made = d4rl_style(
        agent,
        env,
        state.online.agent,
        hyper,
        collection.replay(state),
        jax.random.fold_in(jax.random.key(config.seed_offset), COLLECT_STREAM),
        rows=min(config.collect_steps // 2, 1_000_000),
        num_envs=PLAY_ENVS,
        extras=extras,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for kind, rows in made.items():
        if kind == "random" and (folder / "random.hdf5").is_file():
            say(f"kept {folder}/random.hdf5, which was collected by itself")
            continue
        about = {"env": config.env, "backend": config.backend or "", "collect_steps": steps, "seed": config.seed_offset}
        data.save(rows, folder / f"{kind}.hdf5", about)
        say(f"wrote {folder / kind}.hdf5: {rows.size:,} rows, mean return {data.episode_returns(rows).mean():,.1f}")
    done()
    return path


def _physics(env: Env) -> Callable[[Any], dict[str, Any]]:
    """What a collection keeps beside its rows, so that any task can be put to the data afterwards."""
    tasks = env.tasks
    assert tasks is not None
    return lambda state: {"physics": tasks.physics(state)}


def _load(config: SweepConfig, env: Env) -> Dataset:
    from jaxrl_reg import data

    loaded = data.load(dataset_path(config) or config.dataset, directory=config.data_dir)
    have, need = loaded.spec, env.spec
    if (have.observation_dim, have.action_dim) != (need.observation_dim, need.action_dim):
        raise UserError(
            f"data set {config.dataset} has {have.observation_dim} observations and {have.action_dim} actions, "
            f"{config.env} has {need.observation_dim} and {need.action_dim}: not the same environment"
        )
    return loaded


def evaluate(
    directory: str | pathlib.Path, episodes: int | None = None, *, say: Say = _silent, on_tick: OnTick = _silent
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
    from jaxrl_reg.loops import zero_shot

    path = pathlib.Path(directory)
    config = load_config(path)
    episodes = 10 * config.eval_episodes if episodes is None else episodes
    env, facts = make_env(config), _read_json(path / "summary.json", default={})
    number = 1 + int(read_parquet(path / "metrics.parquet")["evaluation"].max())
    students = learners(config.agent, config)
    student, data, world = students[0], None, env
    if student.make(student.config, env.spec).zero_shot is not None:
        data = _load(config, env)
        world = zero_shot.mean_reward(env, _tasks(env, data))
    sink = ParquetSink(path / "metrics.parquet")
    cloner = [] if config.agent == BASELINE else [learner(BASELINE, config, own=False)]
    for member in [*cloner, *students]:
        folder, own = path / "checkpoints" / member.folder, member.name == config.agent
        if not folder.is_dir():
            if own:
                raise UserError(
                    f"{path} has no checkpoint of {member.label}; continue it with: jaxrl-reg resume {path}"
                )
            continue
        where = env if own else world
        say(f"evaluating {member.label} on {episodes} episodes per member")
        updates, metrics = _evaluate_checkpoint(member, config, where, data, folder, episodes, number)
        metrics = _with_score(metrics, facts)
        for row in _rows(member, config, metrics, updates=updates, evaluation=number, episodes=episodes):
            sink.write(row["update"], row)
    sink.close()
    return reporting.write(path)


def zeroshot(
    directory: str | pathlib.Path,
    tasks: Sequence[str] | None = None,
    rewards: Sequence[str] = (),
    *,
    samples: int = 10_000,
    episodes: int = 10,
    say: Say = _silent,
    on_tick: OnTick = _silent,
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
    import jax
    import numpy as np
    import pandas as pd

    from jaxrl_reg import population
    from jaxrl_reg.evaluation import report as reporting
    from jaxrl_reg.evaluation import statistics
    from jaxrl_reg.io.sinks import read_parquet
    from jaxrl_reg.loops import zero_shot

    path = pathlib.Path(directory)
    config = load_config(path)
    for name, value in (("samples", samples), ("episodes", episodes)):
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")
    env, member = make_env(config), learner(config.agent, config)
    agent = member.make(member.config, env.spec)
    if agent.zero_shot is None:
        raise UserError(
            f"{config.agent} learns one task and can serve no other; train an agent that learns without rewards, such "
            "as sf_laplacian"
        )
    chosen = [zero_shot.load_task(text, env) for text in rewards]
    if tasks or not rewards:
        chosen = zero_shot.tasks_of(env, tasks) + chosen
    names = [task.name for task in chosen]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"task {twice} is named twice")
    folder = path / "checkpoints" / member.folder
    if not folder.is_dir():
        raise UserError(f"{path} has no checkpoint of {member.label}; continue it with: jaxrl-reg resume {path}")
    data = _load(config, env)
    labelled = _labelled(env, data, chosen, config, samples)
    paid = np.asarray(labelled.reward)
    say(f"{paid.shape[1]:,} states of {data.name} labelled for {', '.join(names)}")
    for name, values in zip(names, paid, strict=True):
        if np.ptp(values) == 0:
            say(f"{name}: every one of these states pays {values[0]:g}, which tells the agent nothing")

    _, run = make_run(member, config, env)
    restored = _restore(member, config, run, folder)
    count, play = len(restored.keys), zero_shot.judge(env, chosen, episodes)

    def one(state_key: Any, shared: Any) -> Any:
        state, key = state_key
        results = play(zero_shot.serve(agent, state, shared), jax.random.fold_in(key, zero_shot.ZERO_SHOT))
        return results["return"], jax.vmap(lambda returns: statistics.iqm(returns[:, None]))(results["return"])

    say(f"{count} members, {len(names)} tasks, {episodes} episodes each, after {int(restored.updates.max()):,} updates")
    begun, total = time.perf_counter(), count * len(names) * episodes
    on_tick(Tick("zeroshot", 0, total, 0.0, 0.0, unit="episodes"))
    chunk = max(1, min(count, EVALUATION_CHUNK // len(names)))
    returns, scores = jax.device_get(
        jax.jit(population.over_members(one, chunk))((restored.states, restored.keys), labelled)
    )
    speed = total / (time.perf_counter() - begun)
    on_tick(Tick("zeroshot", total, total, speed, 0.0, float(scores.mean()), "episodes", "return"))

    seeds, rows = seeds_of(config), []
    for m, t in np.ndindex(count, len(names)):
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
                "samples": paid.shape[1],
                "episodes": episodes,
            }
        )
    frame, stored = pd.DataFrame(rows), path / "zeroshot.parquet"
    if stored.exists():
        before = read_parquet(stored)
        frame = pd.concat([before[~before["task"].isin(names)], frame], ignore_index=True)
    partial = stored.with_name(stored.name + ".part")
    frame.to_parquet(partial, index=False)
    partial.replace(stored)
    reporting.write(path)
    asked = frame.loc[frame["task"].isin(names), :]  # ``all tasks`` are those of this call; the report has more
    return reporting.task_table(reporting.served(asked, list(member.swept)))


def report(directory: str | pathlib.Path) -> pd.DataFrame:
    """Write the report of a run again from its metrics; returns its table.

    Raises:
      UserError: if the directory holds no run, or one without metrics.
    """
    from jaxrl_reg.evaluation import report as reporting

    load_config(directory)
    return reporting.write(pathlib.Path(directory))


def resume(directory: str | pathlib.Path, *, say: Say = _silent, on_tick: OnTick = _silent) -> Outcome:
    """Continue a run from its newest checkpoint; the numbers are those of an uninterrupted run.

    Raises:
      UserError: if the directory holds no run.
    """
    return sweep(load_config(directory), directory=directory, resume=True, say=say, on_tick=on_tick)


# ---------------------------------------------------------------------------------------------------------------------
# Run directories


def finished(directory: str | pathlib.Path) -> bool:
    """Whether a run has come to its end, so that there is nothing to resume."""
    load_config(directory)
    return "finished" in _read_json(pathlib.Path(directory) / "summary.json", default={})


def default_directory(config: SweepConfig, root: str | pathlib.Path = "runs") -> pathlib.Path:
    """``runs/<env>-<agent>-<time>``, not yet taken."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{config.env}-{config.agent}-{stamp}".replace("/", "-")
    path, n = pathlib.Path(root) / name, 1
    while path.exists():
        n += 1
        path = pathlib.Path(root) / f"{name}-{n}"
    return path


def load_config(directory: str | pathlib.Path) -> SweepConfig:
    """The config of a run directory.

    Raises:
      UserError: if there is no run, or its ``config.json`` cannot be read.
    """
    path = pathlib.Path(directory) / "config.json"
    if not path.is_file():
        raise UserError(f"{directory} is not a run directory: it has no config.json")
    stored = _read_json(path)
    known = {field.name for field in dataclasses.fields(SweepConfig)}
    values = stored.get("config") if isinstance(stored, dict) else None
    if not isinstance(values, dict) or stored.get("format") != FORMAT or not set(values) <= known:
        raise UserError(f"{path} is not the config of a run of this version; start a new run")
    if values.get("hidden") is not None:
        values["hidden"] = tuple(values["hidden"])
    return SweepConfig(**values)


def _refuse(path: pathlib.Path) -> None:
    if (path / "config.json").exists():
        raise UserError(f"{path} already holds a run; continue it with: jaxrl-reg resume {path}")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; choose a directory with --out")


def _create(path: pathlib.Path, config: SweepConfig, students: Sequence[Learner]) -> None:
    from jaxrl_reg.io import env_info

    stored = {
        "format": FORMAT,
        "config": dataclasses.asdict(config),
        "swept": list(students[0].swept),
        "agent_config": {
            name: value
            for name, value in dataclasses.asdict(students[0].config).items()
            if name not in students[0].swept
        },
        "hypers": {
            field.name: [float(value) for student in students for value in getattr(student.hypers, field.name)]
            for field in dataclasses.fields(students[0].hypers)
        },
        "environment": env_info.describe(),
        "created": _now(),
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
        _write_json(path / "config.json", stored)
    except OSError as error:
        raise UserError(f"cannot write into {path}: {error.strerror or error}") from error


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


_MISSING: Any = object()


def _read_json(path: pathlib.Path, default: Any = _MISSING) -> Any:
    if default is not _MISSING and not path.exists():
        return default
    try:
        return json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} is damaged and cannot be read ({str(error).splitlines()[0]})") from error


def _write_json(path: pathlib.Path, value: Any) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(value, indent=1, default=_plain) + "\n")
    partial.replace(path)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


# ---------------------------------------------------------------------------------------------------------------------
# Training


def make_run(
    member: Learner, config: SweepConfig, env: Env, data: Dataset | None = None, episodes: int | None = None
) -> tuple[Agent, Run]:
    """The agent for this environment and its training run, evaluated on ``episodes`` episodes.

    An agent that serves tasks after training is evaluated on all of them, each inferred from states of ``data``.
    """
    from jaxrl_reg.evaluation import returns
    from jaxrl_reg.loops import zero_shot
    from jaxrl_reg.loops.offline import offline

    agent = member.make(member.config, env.spec)
    episodes = config.eval_episodes if episodes is None else episodes
    run = offline(
        agent,
        batch_size=config.batch_size,
        updates=config.updates,
        segments=config.segments,
        evaluate=returns.evaluator(env, episodes),
    )
    if agent.zero_shot is not None and data is not None:
        tasks = _tasks(env, data)
        labelled = _labelled(env, data, tasks, config)
        run = dataclasses.replace(run, evaluate=zero_shot.evaluation(env, agent, tasks, labelled, episodes))
    return agent, run


def _tasks(env: Env, data: Dataset) -> list[Task]:
    """What an agent that serves tasks is judged by during training: all tasks of the environment, or its own reward
    where it offers none or the data hold no physics to relabel."""
    from jaxrl_reg.loops import zero_shot

    relabelled = env.tasks is not None and "physics" in data.extras
    return zero_shot.tasks_of(env) if relabelled else [zero_shot.own_reward()]


def _labelled(
    env: Env, data: Dataset, tasks: Sequence[Task], config: SweepConfig, samples: int | None = None
) -> Labelled:
    import jax

    from jaxrl_reg.loops import zero_shot

    key = jax.random.fold_in(jax.random.key(config.seed_offset), LABEL_STREAM)
    return zero_shot.relabel(env, data, tasks, key, zero_shot.SAMPLES if samples is None else samples)


def seeds_of(config: SweepConfig) -> range:
    """The seeds of a config; baseline and agent use the same."""
    return range(config.seed_offset, config.seed_offset + config.seeds)


def _train(
    member: Learner,
    config: SweepConfig,
    env: Env,
    data: Dataset,
    path: pathlib.Path,
    facts: dict[str, Any],
    resume: bool,
    say: Say,
    on_tick: OnTick,
) -> Result:
    import numpy as np

    from jaxrl_reg import population
    from jaxrl_reg.io import sinks

    agent, run = make_run(member, config, env, data)
    say(_members_line(member, config, parameters(agent, member)))
    stage = member.label
    plans: list[Plan] = []
    speeds: list[float] = []

    def on_plan(plan: Plan) -> None:
        plans.append(plan)
        say(str(plan))
        on_tick(Tick(stage, 0, config.updates, 0.0, 0.0))
        say(f"traced in {plan.trace_seconds:.1f} s, compiled in {plan.compile_seconds:.1f} s")

    request: dict[str, Any] = {
        "seeds": list(seeds_of(config)),
        "hypers": member.hypers,
        "data": data,
        "placement": config.placement,
        "chunk": config.chunk,
        "directory": path / "checkpoints" / member.folder,
        "resume": resume,
        "on_plan": on_plan,
        "on_note": lambda note: say(f"{stage}: {note}"),
    }
    early_stop = config.early_stop if member.name == config.agent else None
    rule = None if early_stop is None else population.stopping.named(early_stop)
    if not population.hosts.first():
        return population.sweep(run, **request) if rule is None else population.race(run, rule, **request)
    with _sinks(member, config, path) as write:
        standing: dict[tuple[int, int], Standing] = {}

        def record(metrics: Mapping[str, Any], segment: Any, done: int, per_second: float, left: float) -> None:
            """Rows and a tick for metrics ``[H, S]``, of one segment or of one for each setting (``[H]``)."""
            scored = _with_score(metrics, facts)
            columns = {name: values[:, :, None] for name, values in scored.items()}
            for row in _rows(member, config, columns, first=segment, episodes=config.eval_episodes):
                write(row["update"], row)
                standing[row["setting"], row["seed"]] = _standing(member, row, facts)
            speeds.append(per_second)
            name = score_name(facts)
            score = None
            if name in scored:
                means = np.asarray(scored[name]).mean(axis=1)
                score = float(np.nanmax(means)) if np.isfinite(means).any() else float("nan")
            newest = max((one.updates for one in standing.values()), default=0)
            behind = "waiting" if config.early_stop == "asha" else "stopped"
            members = [
                one._replace(state=behind) if not one.state and one.updates < newest else one
                for one in standing.values()
            ]
            members.sort(key=lambda one: (one.state != "", -one.score if one.score == one.score else 0.0))
            total = run.segments * run.updates_per_segment
            on_tick(Tick(stage, done, total, per_second, left, score, members=members))

        def on_segment(progress: population.Progress) -> None:
            segment, rate = progress.segment - 1, progress.updates_per_second
            record(progress.metrics, segment, progress.updates, rate, progress.eta_seconds)

        def on_round(one: population.Round) -> None:
            each = one.updates // config.seeds // len(one.done)  # updates of a setting, on average
            most = run.segments * run.updates_per_segment * config.seeds * len(one.done)
            left = (most - one.updates) / max(one.updates_per_second, 1e-9)  # if nothing else stops
            record(one.metrics, one.done - 1, each, one.updates_per_second, left)

        begun = time.perf_counter()
        if rule is not None:
            result = population.race(run, rule, on_round=on_round, **request)
            done = result.segments_trained
            say(
                f"{stage}: {int((done < run.segments).sum())} of {done.size} settings stopped early; "
                f"{done.sum() / (done.size * run.segments):.0%} of the updates of the whole sweep"
            )
        else:
            result = population.sweep(run, on_segment=on_segment, **request)
        total = time.perf_counter() - begun

    # A kill between checkpoint and file may have cost rows: the result has them all, and same rows replace each other.
    table = sinks.ParquetSink(path / "metrics.parquet")
    for row in _rows(member, config, _with_score(result.metrics, facts), episodes=config.eval_episodes):
        table.write(row["update"], row)
    table.close()

    plan = plans[0]
    seconds = max(total - plan.trace_seconds - plan.compile_seconds, 0.0)
    known = facts.setdefault("training", {}).setdefault(stage, {})
    known |= {
        "plan": str(plan),
        "members": plan.members,
        "parameters": parameters(agent, member),
        "trace_seconds": plan.trace_seconds,
        "compile_seconds": plan.compile_seconds,
    }
    if speeds:  # else the checkpoint was already complete
        known["train_seconds"] = known.get("train_seconds", 0.0) + seconds
        known["updates_per_second"] = sorted(speeds)[len(speeds) // 2]
        say(f"{stage}: trained in {seconds:.1f} s, {known['updates_per_second']:,.0f} updates per second")
    _write_json(path / "summary.json", facts)
    return result


def _standing(member: Learner, row: Mapping[str, Any], facts: Mapping[str, Any]) -> Standing:
    from jaxrl_reg.population import ALIVE

    label = " ".join(f"{name}={_word(row[name])}" for name in member.swept) or member.name
    state = "" if row.get(ALIVE, 1.0) else "diverged"
    return Standing(label, row["seed"], row["update"], row.get(score_name(facts), float("nan")), state)


def parameters(agent: Agent, member: Learner) -> int:
    """Trained parameters of one member; targets and optimiser states are not counted."""
    import jax

    hyper = jax.tree.map(lambda leaf: leaf[0], member.hypers)
    state = jax.eval_shape(agent.init, jax.random.key(0), hyper)

    def is_model(node: Any) -> bool:
        return hasattr(node, "params") and hasattr(node, "opt_state")

    models = [node.params for node in jax.tree.leaves(state, is_leaf=is_model) if is_model(node)]
    return sum(leaf.size for leaf in jax.tree.leaves(models or state))


@contextlib.contextmanager
def _sinks(member: Learner, config: SweepConfig, path: pathlib.Path) -> Iterator[Callable[[int, dict[str, Any]], None]]:
    """A function that hands a row to every sink of the config; they are closed however the block ends."""
    from jaxrl_reg.io import sinks

    opened: list[sinks.Sink] = [sinks.ParquetSink(path / "metrics.parquet")]
    try:
        if config.tensorboard:
            opened.append(sinks.TensorBoardSink(path / "tensorboard", member.swept))
        if config.wandb:
            settings = dataclasses.asdict(config)
            opened.append(sinks.WandbSink(config.wandb, f"{path.name} {member.name}", path, settings, member.swept))

        def write(step: int, row: dict[str, Any]) -> None:
            for sink in opened:
                sink.write(step, row)

        yield write
    finally:
        for sink in opened:
            sink.close()


def score_name(facts: Mapping[str, Any]) -> str:
    """The column that the report judges: the normalised score where the data set has its two references."""
    return "eval/score" if facts.get("dataset", {}).get("normalised") else "eval/return"


def _with_score(metrics: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics with ``eval/score`` beside ``eval/return`` where it can be computed."""
    metrics = dict(metrics)
    about = facts["dataset"]
    if about["normalised"] and "eval/return" in metrics:
        low, high = about["score_random"], about["score_expert"]
        metrics["eval/score"] = 100.0 * (metrics["eval/return"] - low) / (high - low)
    return metrics


def _rows(
    member: Learner,
    config: SweepConfig,
    metrics: Mapping[str, Any],
    *,
    episodes: int | None,
    first: Any = 0,
    updates: Any = None,
    evaluation: int = 0,
) -> Iterator[dict[str, Any]]:
    """One flat row per member and segment that it trained, from metrics ``[H, S, segments]``.

    ``first`` counts segments before, ``updates`` those of the metrics if they are not at the end of their segment; one
    number, or one for each setting.
    """
    import numpy as np

    from jaxrl_reg.population import ALIVE

    seeds, each = seeds_of(config), config.updates // config.segments
    settings, count, length = next(iter(metrics.values())).shape
    before = np.broadcast_to(first, settings)
    trained = np.isfinite(metrics[ALIVE]) if ALIVE in metrics else np.ones((settings, count, length), bool)
    for t in range(length):
        for h in range(settings):
            segment = int(before[h]) + t
            update = (segment + 1) * each if updates is None else int(np.broadcast_to(updates, settings)[h])
            for s in np.flatnonzero(trained[h, :, t]):
                yield {
                    "agent": member.name,
                    "member": (member.first + h) * count + int(s),
                    "seed": seeds[s],
                    "setting": member.first + h,
                    **{name: swept[h] for name, swept in member.swept.items()},
                    "segment": segment,
                    "update": update,
                    "evaluation": evaluation,
                    "episodes": episodes,
                    **{name: float(values[h, s, t]) for name, values in metrics.items()},
                }


def _members_line(member: Learner, config: SweepConfig, parameters: int) -> str:
    from jaxrl_reg import population

    settings = population.setting_count(member.hypers)
    what = f"{config.seeds} seeds"
    if member.swept:
        what = f"{settings} settings of {', '.join(member.swept)} x {what}"
    return (
        f"{member.label}: {settings * config.seeds} members = {what}, {parameters:,} parameters each; "
        f"{config.updates:,} updates of batch {config.batch_size}, "
        f"{config.segments} evaluations of {config.eval_episodes} episodes"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Data, evaluation of a checkpoint, the recorded episode


def summarise(data: Dataset, config: SweepConfig, path: pathlib.Path | None, limit: int) -> dict[str, Any]:
    """Plain numbers about a data set; ``returns`` are those of whole episodes: the score of the policy that acted.

    An episode that ends by neither a terminal state nor the time ``limit`` was cut where its recording ended; its
    return says nothing about the policy, and is left out unless there are no others.
    """
    import numpy as np

    from jaxrl_reg import data as datasets

    returns = datasets.episode_returns(data)
    ends = np.flatnonzero(np.asarray(data.last) > 0)
    whole = (np.asarray(data.discount)[ends] == 0) | (np.asarray(data.step)[ends] + 1 >= limit)
    if whole.any():
        returns = returns[whole]
    low, high = float(data.score_random), float(data.score_expert)
    foreign = _foreign_scores(config.env, low, high)
    return {
        "name": config.dataset,
        "file": str(path) if path is not None else config.dataset,
        "rows": data.size,
        "episodes": int(ends.size),
        "cut_episodes": int((~whole).sum()),
        "observation": data.spec.observation_dim,
        "action": data.spec.action_dim,
        "terminal_fraction": float(1.0 - np.asarray(data.discount).mean()),
        "score_random": low,
        "score_expert": high,
        "normalised": bool(np.isfinite([low, high]).all() and high > low and not foreign),
        "foreign_scores": foreign,
        "returns": [round(float(value), 4) for value in returns],
    }


def _foreign_scores(env: str, low: float, high: float) -> str:
    """Why reference scores do not apply to returns in ``env``, or "": D4RL's hold in MuJoCo's own tasks only."""
    from jaxrl_reg.data.readers import d4rl
    from jaxrl_reg.envs import mjx

    task = d4rl.scored_task(low, high)
    fitting = [f"mjx/{name}" for name in mjx.D4RL.get(task, ())]
    if not task or env in fitting:
        return ""
    return f"its reference scores are D4RL's for {task}, which hold in {' and '.join(fitting) or 'no environment here'}"


def _data_line(about: Mapping[str, Any]) -> str:
    mean = sum(about["returns"]) / len(about["returns"])
    line = f"data {about['file']}: {about['rows']:,} rows, {about['episodes']:,} episodes, mean return {mean:,.1f}"
    if about["normalised"]:
        low, high = about["score_random"], about["score_expert"]
        return f"{line} = normalised score {100 * (mean - low) / (high - low):.1f}"
    return f"{line}; {about['foreign_scores'] or 'it names no reference scores'}, so returns stay as they are"


class _Restored(NamedTuple):
    """Every member of a population as its newest checkpoint has it; leading axis ``[M]``, settings x seeds."""

    updates: Any  # int [H]; a race may have stopped some settings before others
    states: Any
    keys: Any
    hypers: Any


def _restore(member: Learner, config: SweepConfig, run: Run, folder: pathlib.Path) -> _Restored:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxrl_reg import population
    from jaxrl_reg.io import checkpoint

    seeds = np.asarray(seeds_of(config))
    count = population.setting_count(member.hypers) * seeds.size
    setting_of, seed_of = np.divmod(np.arange(count), seeds.size)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds[seed_of]))
    hypers = jax.tree.map(lambda leaf: leaf[setting_of], member.hypers)
    shapes = jax.eval_shape(jax.vmap(run.init), keys, hypers)

    def like(info: dict[str, Any]) -> Any:
        shape = (count, run.segments) if "done" in info else (info["segment"], count)  # of a race, of a sweep
        return shapes, [jax.ShapeDtypeStruct(shape, jnp.float32) for _ in info["metrics"]]

    found = checkpoint.restore(folder, like)
    if found is None:
        raise UserError(f"{folder} holds no checkpoint; continue the run with: jaxrl-reg resume {folder.parent.parent}")
    segment, (states, _), info = found
    segments = np.broadcast_to(info.get("done", segment), population.setting_count(member.hypers))
    return _Restored(segments * run.updates_per_segment, states, keys, hypers)


def _evaluate_checkpoint(
    member: Learner,
    config: SweepConfig,
    env: Env,
    data: Dataset | None,
    folder: pathlib.Path,
    episodes: int,
    number: int,
) -> tuple[Any, dict[str, Any]]:
    """Updates ``[H]`` done by the newest checkpoint, and fresh metrics ``[H, S, 1]`` of every member."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxrl_reg import population

    _, run = make_run(member, config, env, data, episodes)
    restored = _restore(member, config, run, folder)

    def one(state_key_hyper: Any, index: Any) -> Any:
        state, key, hyper = state_key_hyper
        assert run.evaluate is not None
        return run.evaluate(state, index, key, hyper)

    # Streams past those of training: an episode is never counted twice.
    index, count = jnp.int32(run.segments + number), len(restored.keys)
    evaluation = jax.jit(population.over_members(one, min(count, EVALUATION_CHUNK)))
    metrics = evaluation((restored.states, restored.keys, restored.hypers), index)
    shape = population.setting_count(member.hypers), config.seeds, 1
    return restored.updates, {name: np.asarray(value).reshape(shape) for name, value in metrics.items()}


def _say_groups(students: Sequence[Learner], config: SweepConfig, env: Env, data: Dataset, say: Say) -> None:
    """What every program of a sweep will take, before the first one is compiled."""
    from jaxrl_reg import population

    lines, compilations, most = [], 0, 0
    for student in students:
        _, run = make_run(student, config, env, data)
        plan = population.outline(
            run,
            seeds=config.seeds,
            hypers=student.hypers,
            data=data,
            placement=config.placement,
            chunk=config.chunk,
        )
        lines.append(f"  {student.label}: {plan}, temporaries apart")
        compilations, most = compilations + plan.compilations, max(most, plan.total_bytes)
    say(
        f"{len(students)} programs one after the other, {compilations} compilations in all, at most "
        f"{population.megabytes(most)} per device at a time:"
    )
    for line in lines:
        say(line)


def _rollout(
    members: Sequence[Learner],
    config: SweepConfig,
    env: Env,
    data: Dataset,
    results: Sequence[Result],
    path: pathlib.Path,
) -> None:
    """One recorded episode of the best seed of the best setting: ``episode.html`` is self-contained and goes into the
    report; ``rollout.html`` is the environment's own viewer. Nothing for an environment that cannot draw."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxrl_reg.evaluation import viewer
    from jaxrl_reg.loops import zero_shot
    from jaxrl_reg.loops.rollout import record as record_episode
    from jaxrl_reg.types import policy_of

    if env.render is None and env.draw is None:
        return
    lasts = [np.nan_to_num(one.metrics["eval/return"][:, :, -1], nan=-np.inf) for one in results]
    group = max(range(len(lasts)), key=lambda i: lasts[i].mean(axis=1).max())
    member, result, last = members[group], results[group], lasts[group]
    setting = int(last.mean(axis=1).argmax())
    seed = int(last[setting].argmax())
    agent = member.make(member.config, env.spec)
    labelled = None
    if agent.zero_shot is not None:  # its own task is the one that the picture shows
        labelled = _labelled(env, data, [zero_shot.own_reward()], config)

    @jax.jit
    def record(state: Any, hyper: Any, key: Any) -> Any:
        policy = policy_of(agent, state, hyper)
        if labelled is not None:
            policy = zero_shot.serve(agent, state, labelled)(jnp.int32(0))
        return record_episode(env, policy, key, env.spec.max_episode_steps)

    recording = record(result.member(setting, seed), result.hyper(setting), jax.random.key(config.seed_offset))
    frames = recording.frames()
    if env.draw is not None:
        (path / "episode.html").write_text(viewer.page(env.draw(frames), f"{member.name} in {config.env}"))
    if env.render is not None:
        (path / "rollout.html").write_text(env.render(frames))

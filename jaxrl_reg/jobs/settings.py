"""What a job is asked for: its settings, what they default to, and whether they make sense together."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from typing import Self

from jaxrl_reg import foreign
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.jobs.values import word

PLACEMENTS = ("auto", "map", "vmap")
DESIGNS = ("random", "sobol")
STOPPING_RULES = ("asha", "halving", "prediction")
COLLECTED = ("random", "medium", "medium-replay", "medium-expert", "expert")
NO_ENV = "none"  # in the place of an environment: training on a file, nothing rolled out
SEARCHED = ("stax", "stax-rewarding")  # every episode of one search, and those of its rewarding solutions
EXPLORED = ("rnd", "diayn", *SEARCHED)  # collected without a task
# What a config leaves open. ``small`` answers in minutes on two cores; ``full`` is the protocol that the agent's own
# paper has (``preprocessing.published``), and these numbers only where it names none.
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
# What a comparison of all agents takes instead, so that the small one ends within an hour on two cores: half
# of it goes into compiling. An even number of seeds keeps both cores busy, a batch of 128 costs half of 256. Small
# networks bear faster learning rates and target networks, which ``settings`` gives to every agent that has them;
# ``note`` says on the page how they were found.
COMPARISONS: dict[str, dict[str, Any]] = {
    "small": {
        "envs": ("pointmaze",),
        "datasets": ("medium-replay",),
        "seeds": 4,
        "updates": 6_000,
        "batch_size": 128,
        "segments": 2,
        "eval_episodes": 50,
        "collect_steps": 64_000,
        "settings": {
            "actor_learning_rate": 1e-3,
            "critic_learning_rate": 1e-3,
            "value_learning_rate": 1e-3,
            "tau": 0.01,
        },
        "note": "These are for small networks and few updates. IQL was looked at with them once, on seeds 0 and 1 of "
        "another collection; nothing is tuned.",
    },
    "full": {
        "envs": ("brax/hopper", "brax/halfcheetah"),
        "datasets": ("medium-replay", "medium-expert"),
        "seeds": 8,
        "segments": 10,
        "settings": {},
        "note": "",
    },
}


def option(default: Any, help: str, **metadata: Any) -> Any:
    """A field of a config with its help; the parser of the command line is made from these."""
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata={"help": help, **metadata})
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


@dataclasses.dataclass(frozen=True)
class JobConfig:
    """What every kind of run can be asked for; a kind of ``jobs.kinds`` adds its own fields.

    A number that is None is as ``presets`` say; ``resolve`` fills it in and calls ``check``.
    """

    kind: ClassVar[str] = ""  # the module of ``jobs.kinds`` that this config belongs to
    counts: ClassVar[tuple[str, ...]] = ("seeds", "segments", "eval_episodes")  # must be at least 1
    budget: ClassVar[str] = "updates"  # the field that says how long training is
    trials: ClassVar[str] = "episodes"  # what an evaluation counts

    env: str = option(
        "brax/hopper",
        "environment, see 'jaxrl-reg list envs', or one of yours: mine.py; gymnasium/ID: train on a file, judged in "
        "Gymnasium's environment; none: train on a file, without scores",
    )
    agent: str = option("rebrac", "agent, see 'jaxrl-reg list agents', or one of yours: mine.py, mine or lab.mine")
    grid: Mapping[str, Sequence[Any]] = option({}, "values of a hyperparameter to sweep; several make a product")
    sample: Mapping[str, str] = option({}, "range to draw a hyperparameter from; drawn settings multiply the grid")
    draws: int = option(16, "settings to draw from the ranges of --sample")
    design: str = option("random", "how they are spread: random or sobol")
    design_seed: int = option(0, "of the draw; another one gives other settings")
    early_stop: str | None = option(
        None,
        "stop settings that fall behind, among those of one program: halving (the best third goes on after 1, 3, 9 ... "
        "evaluations), asha (the same without waiting until all have got so far) or prediction (of the final score, "
        "from the settings and the curves so far)",
        metavar="RULE",
    )
    evolve: bool = option(
        False,
        "population-based training: the --draws settings of --sample are the slots of a population, one for each seed; "
        "after every evaluation the worst quarter copies the best, and what was drawn is pushed up or down",
    )
    settings: Mapping[str, Any] = option({}, "fixed value of a hyperparameter or of a setting of the agent")
    env_settings: Mapping[str, Any] = option({}, "setting of the environment or task, see 'jaxrl-reg list envs NAME'")
    scale: str = option(
        "small", "small (minutes on two cores) or full (the agent's own published protocol)", choices=tuple(SCALES)
    )
    seeds: int = option(None, "training runs per setting")
    seed_offset: int = option(0, "first seed; another offset gives runs that nobody has looked at")
    segments: int = option(None, "evaluations during training; must divide its length")
    eval_episodes: int = option(None, "episodes per evaluation")
    hidden: tuple[int, ...] = option(None, "widths of the hidden layers, such as 256,256; full: the agent's own")
    backend: str | None = option(None, "physics of a Brax environment: spring, positional, generalized or mjx")
    home: str | None = option(
        None, "where agents and environments of yours are looked for [the working directory]", metavar="DIR"
    )
    placement: str = option("auto", "auto, map (one member after the other) or vmap (side by side)")
    chunk: int | None = option(None, "members side by side on one device")
    tensorboard: bool = option(False, "write TensorBoard event files into the run directory")
    wandb: str | None = option(None, "log to this Weights & Biases project", metavar="PROJECT")

    @property
    def where(self) -> str:
        """The environment with its settings, in words: ``tokens/reverse longest=4``."""
        return " ".join([self.env, *(f"{name}={word(value)}" for name, value in sorted(self.env_settings.items()))])

    def presets(self) -> Mapping[str, Any]:
        """What stands for a field that is None."""
        return SCALES[self.scale]

    def settled(self) -> Self:
        """With paths that hold from any directory; what is open is still open."""
        if self.home:
            foreign.look_in(self.home)
        return dataclasses.replace(self, home=os.path.abspath(os.path.expanduser(self.home or ".")))

    def length(self) -> int:
        """Gradient updates of one member, for what is scheduled over training; of a resolved config."""
        return 0

    def check(self) -> None:
        """Raises ``UserError`` where the fields of this kind do not make sense together; all numbers are filled in."""


@dataclasses.dataclass(frozen=True)
class SweepConfig(JobConfig):
    """A whole sweep on a data set. A number that is None is as ``scale`` says (see ``SCALES``)."""

    kind: ClassVar[str] = "offline"
    counts: ClassVar[tuple[str, ...]] = (*JobConfig.counts, "updates", "batch_size", "collect_steps")

    dataset: str = option(
        "medium-replay",
        "random, medium, medium-replay, medium-expert, expert, rnd, diayn, stax or stax-rewarding, or a file",
    )
    updates: int = option(None, "gradient updates per member")
    batch_size: int = option(None, "rows per update")
    data_dir: str = option("datasets", "where data sets are kept")
    collect_steps: int = option(None, "environment steps of the agent whose experience becomes the data")
    collect_hidden: tuple[int, ...] = option(None, "widths of that agent's hidden layers; as --hidden without it")
    collect_seed: int | None = option(None, "seed of that agent; as --seed-offset without it")
    observation_keys: tuple[str, ...] | None = option(
        None, "which parts of an observation to put side by side, where it has several", metavar="KEY,KEY"
    )
    action_low: tuple[float, ...] | None = option(
        None, "lower bound of the actions in the data, one number or one for each, to rescale them to [-1, 1]"
    )
    action_high: tuple[float, ...] | None = option(None, "upper bound of the actions in the data")
    clip_actions: bool = option(False, "clip actions outside [-1, 1] instead of refusing them")
    max_episode_steps: int | None = option(None, "end longer episodes of the data there, by a time-out")
    pairs: str | None = option(
        None, "Parquet file that says which of two segments of the data is better (docs/preferences.md)", metavar="FILE"
    )
    reward_from_pairs: str | None = option(
        None, "Parquet file of such pairs, to learn a reward from that the agent is trained on", metavar="FILE"
    )
    deconfound: tuple[str, ...] | None = option(
        None,
        "train on rewards without the effect of these further columns of the data, fixed before the action (a season)",
        metavar="NAME,NAME",
    )
    instruments: tuple[str, ...] | None = option(
        None,
        "columns that move what --deconfound names, and the rewards only through it; without them, something unseen "
        "that moves both makes it worse than nothing",
        metavar="NAME,NAME",
    )
    pair_steps: int = option(16, "steps of a segment of --reward-from-pairs; shorter where its episode ends")
    normalise: str = option(
        "auto", "standardise observations: on, off, or auto (as the agent's paper does)", metavar="ON|OFF|AUTO"
    )
    reward_scale: str | None = option(
        None,
        "factor for the rewards that are trained on, returns (1000 over the range of the episodes' returns) or none "
        "[as the agent's paper does]; scores are never scaled",
        metavar="NUMBER",
    )

    def presets(self) -> Mapping[str, Any]:
        from jaxrl_reg.jobs.preprocessing import published

        preset = super().presets()
        return {**preset, **published(self.agent)} if self.scale == "full" else preset

    def settled(self) -> SweepConfig:
        from jaxrl_reg.jobs.collected import as_collected

        dataset = pathlib.Path(self.dataset).expanduser()
        changes = {"data_dir": os.path.abspath(os.path.expanduser(self.data_dir))}
        if self.dataset not in (*COLLECTED, *EXPLORED) and dataset.exists():
            changes["dataset"] = os.path.abspath(dataset)
        if self.pairs is not None:
            changes["pairs"] = os.path.abspath(os.path.expanduser(self.pairs))
        if self.reward_from_pairs is not None:
            changes["reward_from_pairs"] = os.path.abspath(os.path.expanduser(self.reward_from_pairs))
        return as_collected(dataclasses.replace(super().settled(), **changes))

    def length(self) -> int:
        return self.updates

    def check(self) -> None:
        from jaxrl_reg.jobs.preprocessing import check

        check(self.normalise, self.reward_scale)
        for pairs in (self.pairs, self.reward_from_pairs, self.settings.get("pairs_file")):
            if pairs:  # before data are collected for them
                from jaxrl_reg.data import preferences

                preferences.load(pairs)
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise UserError(f"max_episode_steps={self.max_episode_steps} must be at least 1")
        if self.updates % self.segments:
            near = max(1, round(self.updates / self.segments)) * self.segments
            raise UserError(f"updates={self.updates} is not a multiple of segments={self.segments}; {near} would be")


ConfigT = TypeVar("ConfigT", bound=JobConfig)


def resolve(config: ConfigT) -> ConfigT:
    """The config with every ``None`` that its presets know replaced by their number.

    Raises:
      UserError: for an unknown scale, or a number that cannot be.
    """
    if config.scale not in SCALES:
        raise unknown("scale", config.scale, SCALES)
    fields = {field.name for field in dataclasses.fields(config)}
    left_open = {name: value for name, value in config.presets().items() if name in fields}
    config = dataclasses.replace(
        config, **{name: value for name, value in left_open.items() if getattr(config, name) is None}
    )
    for name in config.counts:
        if getattr(config, name) < 1:
            raise UserError(f"{name}={getattr(config, name)} must be at least 1")
    if config.placement not in PLACEMENTS:
        raise unknown("placement", config.placement, PLACEMENTS)
    if config.design not in DESIGNS:
        raise unknown("design", config.design, DESIGNS)
    if config.early_stop is not None and config.early_stop not in STOPPING_RULES:
        raise unknown("stopping rule", config.early_stop, STOPPING_RULES)
    if config.evolve:
        _can_evolve(config)
    if config.draws < 1:
        raise UserError(f"draws={config.draws} must be at least 1")
    if config.chunk is not None and config.chunk < 1:
        raise UserError(f"chunk={config.chunk} must be at least 1 member")
    for name in ("design_seed", "seed_offset"):
        if getattr(config, name) < 0:
            raise UserError(f"{name}={getattr(config, name)} must not be negative")
    if config.hidden is not None and (not config.hidden or min(config.hidden) < 1):
        raise UserError(f"hidden={config.hidden} must be positive widths, such as 256,256")
    if config.env_settings and (config.env == NO_ENV or config.env.startswith("gymnasium/")):
        raise UserError(f"--env-set: environment {config.env!r} takes no settings")
    config.check()
    return config


def _can_evolve(config: JobConfig) -> None:
    if not config.sample:
        raise UserError("--evolve moves what --sample draws: give at least one, such as --sample tau=log:0.001:0.1")
    if config.grid:
        raise UserError("--evolve takes no grid, since its slots copy each other: use --sample and --draws")
    if config.early_stop is not None:
        raise UserError("--evolve and --early-stop exclude each other: either slots copy the best, or they stop")
    if config.draws < 2:
        raise UserError(f"draws={config.draws} is no population; --evolve needs at least 2")
    if config.segments < 2:
        raise UserError(f"segments={config.segments} leaves no time to copy; --evolve needs at least 2")


def seeds_of(config: JobConfig) -> range:
    """The seeds of a config; rivals and agent use the same."""
    return range(config.seed_offset, config.seed_offset + config.seeds)

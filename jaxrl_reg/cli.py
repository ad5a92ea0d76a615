"""The command line ``jaxrl-reg``: parses, calls ``jobs``, prints. Importing it, and ``--help``, does not import JAX."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from jaxrl_reg import jobs
from jaxrl_reg.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

PROG = "jaxrl-reg"
BAD_INPUT, STOPPED = 2, 130
MOST_SHOWN = 16  # members in the live table
TOPICS = ("agents", "envs", "datasets", "hyperparameters")

INTRO = """\
Behaviour-regularised reinforcement learning: seeds x hyperparameters as one compiled program.

commands:
  sweep            collect a data set if needed, train a grid and a cloning baseline, evaluate, report
  train            the same for one setting
  compare          every offline agent on the same data with the same budget, in one table
  collect          only make the data sets of an environment
  evaluate RUN     more episodes from the checkpoints of a run
  zeroshot RUN     put tasks to an agent that was trained without any
  report RUN       write the report of a run again
  resume RUN       continue a run that was stopped
  list [TOPIC]     agents, envs, datasets, hyperparameters [of an agent]
  env              versions, devices and cache, for bug reports

examples:
  jaxrl-reg sweep
  jaxrl-reg sweep --env brax/hopper --agent rebrac --grid actor_bc_coef=0.0,0.01,0.1,1.0 --seeds 16
  jaxrl-reg list hyperparameters rebrac
  jaxrl-reg resume runs/brax-hopper-rebrac-20260101-120000

'jaxrl-reg COMMAND --help' explains the options of a command."""

SWEEP_EXAMPLES = """\
examples:
  jaxrl-reg sweep --env brax/hopper --agent rebrac --grid actor_bc_coef=0.0,0.01,0.1,1.0 --seeds 16
  jaxrl-reg sweep --env pointnav --agent iql --grid expectile=0.7,0.9 --grid inverse_temperature=log:0.5:10:4
  jaxrl-reg sweep --agent td3_bc --dataset medium --set discount=0.995 --set n_critics=4 --scale full
  jaxrl-reg sweep --agent td3_bc --sample bc_coef=log:0.01:10 --sample alpha=lin:0:5 --draws 32 --design sobol
  jaxrl-reg sweep --agent td3_bc --sample bc_coef=log:0.01:10 --draws 27 --early-stop halving
  jaxrl-reg sweep --agent rebrac --grid hidden=64x64,256x256 --grid n_critics=2,4 --sample actor_bc_coef=log:0.001:1

Every hyperparameter can be swept; several --grid make a product. log:LOW:HIGH:N and lin:LOW:HIGH:N give N values;
--sample draws from log:LOW:HIGH, lin:LOW:HIGH or values V,V,... A setting of the agent (widths, number of critics)
can be swept as well: every value of it is a program of its own, and the plan says so before anything runs."""

TRAIN_EXAMPLES = """\
examples:
  jaxrl-reg train --env brax/hopper --agent iql --seeds 8
  jaxrl-reg train --agent rebrac --set actor_bc_coef=0.05 --dataset expert"""

COMPARE_EXAMPLES = """\
examples:
  jaxrl-reg compare
  jaxrl-reg compare --agents td3_bc,prdc,a2pr,iql --datasets medium-replay --seeds 8 --updates 20000
  jaxrl-reg compare --scale full --envs brax/hopper,brax/halfcheetah --out runs/table

Finished runs of the directory are skipped and stopped ones resumed: run the same command again to go on."""

COLLECT_EXAMPLES = """\
examples:
  jaxrl-reg collect --env brax/hopper --backend spring
  jaxrl-reg collect --env pointmaze --behavior rnd --steps 200000
  jaxrl-reg collect --env pointnav --collect-steps 50000 --data-dir ~/datasets"""

ZEROSHOT_EXAMPLES = """\
examples:
  jaxrl-reg zeroshot runs/pointmaze-sf_laplacian-20260101-120000 --task reach_top_left,reach_bottom_right
  jaxrl-reg zeroshot runs/pointmaze-sf_laplacian-20260101-120000 --reward my_rewards.py:far_left --episodes 50

A reward is a function of one step, in JAX:

  def far_left(observation, action, next_observation):
      return next_observation[0] < -0.5"""


# ---------------------------------------------------------------------------------------------------------------------
# Parsing


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see: {self.prog} --help")


def _whole(text: str) -> int:
    """``20_000``, ``20000`` or ``2e4``."""
    try:
        value = float(text)
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")


def _widths(text: str) -> tuple[int, ...]:
    return tuple(_whole(item) for item in text.split(",") if item)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name.strip() and value.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    return name.strip().replace("-", "_"), value.strip()


def _axis(text: str) -> tuple[str, tuple[Any, ...]]:
    """``name=0.1,1`` or ``name=log:0.01:1:5`` or ``name=lin:0:1:3``; what is no number stays as it is (``64x64``)."""
    name, values = _assignment(text)
    try:
        kind, *numbers = values.split(":")
        if kind in ("log", "lin"):
            low, high, count = float(numbers[0]), float(numbers[1]), int(numbers[2])
            if count < 2 or (kind == "log" and min(low, high) <= 0):
                raise ValueError
            steps = [i / (count - 1) for i in range(count)]
            if kind == "lin":
                return name, tuple(low + (high - low) * step for step in steps)
            return name, tuple(low * (high / low) ** step for step in steps)
        return name, tuple(_number(value.strip()) for value in values.split(",") if value.strip())
    except (ValueError, IndexError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not name=number,number,... or name=log:LOW:HIGH:N or name=lin:LOW:HIGH:N"
        ) from None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


_PAIRS = {  # field: flag, what it is called in the help, how it is read
    "grid": ("--grid", "NAME=V,V,...", _axis),
    "sample": ("--sample", "NAME=log:LOW:HIGH", _assignment),
    "settings": ("--set", "NAME=VALUE", _assignment),
}
_TYPES: dict[str, Callable[[str], Any]] = {"int": _whole, "int | None": _whole, "tuple[int, ...]": _widths}
_METAVARS = {"int": "N", "int | None": "N", "tuple[int, ...]": "N,N"}


def _flag(name: str) -> str:
    return _PAIRS[name][0] if name in _PAIRS else "--" + name.replace("_", "-")


def _add_config(
    parser: argparse.ArgumentParser, names: Sequence[str], scales: Mapping[str, Mapping[str, Any]] = jobs.SCALES
) -> None:
    """One option for each of these fields of ``SweepConfig``; only those that are given reach the config."""
    fields = {field.name: field for field in dataclasses.fields(jobs.SweepConfig)}
    for name in names:
        field = fields[name]
        kind, text = str(field.type), field.metadata["help"]
        options: dict[str, Any] = {}
        if name in _PAIRS:
            _, shape, read = _PAIRS[name]
            options = {"action": "append", "metavar": shape, "type": read}
        elif kind == "bool":
            options = {"action": "store_true"}
        else:
            metavar = field.metadata.get("metavar") or _METAVARS.get(kind) or name.upper()
            options = {"type": _TYPES.get(kind, str), "metavar": metavar}
            presets = [f"{scale}: {_show(preset[name])}" for scale, preset in scales.items() if name in preset]
            default = "; ".join(presets) if presets else _show(field.default)
            text += f" [{default}]" if default else ""
        flags = (_flag(name), "--steps") if name == "collect_steps" else (_flag(name),)
        parser.add_argument(*flags, dest=name, default=argparse.SUPPRESS, help=text.replace("%", "%%"), **options)


def _show(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:,}".replace(",", "_") if isinstance(value, int) else str(value)


_COLLECTING = ("env", "backend", "data_dir", "scale", "collect_steps", "hidden", "seed_offset")
_TRAINING = tuple(field.name for field in dataclasses.fields(jobs.SweepConfig))
_SEARCHING = ("grid", "sample", "draws", "design", "design_seed", "early_stop")
_COMPARING = tuple(
    name for name in _TRAINING if name not in ("env", "agent", "dataset", "tensorboard", "wandb", *_SEARCHING)
)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""

    def options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.allow_abbrev = False
        return parser

    top = options(_Parser(prog=PROG, usage=f"{PROG} COMMAND [options]", description=INTRO, add_help=True))
    top.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = top.add_subparsers(dest="verb", metavar="COMMAND", help=argparse.SUPPRESS, parser_class=_Parser)

    def verb(name: str, description: str, examples: str = "", takes: str = "[options]") -> argparse.ArgumentParser:
        usage = f"{PROG} {name} {takes}"
        parser = verbs.add_parser(name, prog=f"{PROG} {name}", usage=usage, description=description, epilog=examples)
        return options(parser)

    for name, description, examples in (
        (
            "sweep",
            "Collect a data set if needed, train a grid and a cloning baseline, evaluate, report.",
            SWEEP_EXAMPLES,
        ),
        ("train", "Train one setting over several seeds, with a cloning baseline, and report.", TRAIN_EXAMPLES),
    ):
        parser = verb(name, description, examples)
        _add_config(parser, [field for field in _TRAINING if name == "sweep" or field not in _SEARCHING])
        parser.add_argument("--out", metavar="DIR", help="run directory [runs/<env>-<agent>-<time>]")
        _add_distributed(parser)
    parser = verb(
        "compare",
        "Train every offline agent on every data set with the same budget and its own defaults; one table, one figure.",
        COMPARE_EXAMPLES,
    )
    parser.add_argument("--agents", type=_names, metavar="A,A", help="agents [every offline one that sees rewards]")
    presets = "; ".join(f"{scale}: {','.join(preset['envs'])}" for scale, preset in jobs.COMPARISONS.items())
    parser.add_argument("--envs", type=_names, metavar="E,E", help=f"environments [{presets}]")
    parser.add_argument(
        "--datasets", type=_names, metavar="D,D", help=f"data sets or files [{','.join(jobs.COMPARED)}]"
    )
    _add_config(parser, _COMPARING, {scale: {**jobs.SCALES[scale], **own} for scale, own in jobs.COMPARISONS.items()})
    parser.add_argument(
        "--out", default="runs/comparison", metavar="DIR", help="directory of the runs [runs/comparison]"
    )
    parser = verb(
        "collect",
        "Train soft actor-critic online and cut its experience into random, medium, medium-replay, expert and "
        "medium-expert data sets; or explore without a task and keep everything.",
        COLLECT_EXAMPLES,
    )
    _add_config(parser, _COLLECTING)
    parser.add_argument(
        "--behavior", default="task", metavar="B", help="task, or without one: random, rnd, diayn [task]"
    )
    for name, description in (
        ("evaluate", "Roll out more episodes from the checkpoints of a run and write its report again."),
        ("report", "Write the report of a run again from its metrics."),
        ("resume", "Continue a run from its newest checkpoint."),
    ):
        parser = verb(name, description, takes="RUN" if name == "report" else "RUN [options]")
        parser.add_argument("run", metavar="RUN", help="run directory")
        if name == "evaluate":
            parser.add_argument("--episodes", type=_whole, metavar="N", help="per member [ten times the run's own]")
        if name == "resume":
            _add_distributed(parser)
    parser = verb(
        "zeroshot",
        "Put tasks to an agent that was trained without rewards: infer each from labelled states of its data, roll out "
        "episodes, report. No further training.",
        ZEROSHOT_EXAMPLES,
        takes="RUN [options]",
    )
    parser.add_argument("run", metavar="RUN", help="run directory")
    parser.add_argument("--task", metavar="NAME,NAME", help="tasks that the environment offers [all]")
    parser.add_argument(
        "--reward", metavar="FILE.py:FUNCTION", action="append", default=[], help="a reward of yours; may be repeated"
    )
    parser.add_argument("--samples", type=_whole, default=10_000, metavar="N", help="labelled states per task [10_000]")
    parser.add_argument("--episodes", type=_whole, default=10, metavar="N", help="per member and task [10]")
    parser = verb("list", "Show what there is, with defaults, meanings and papers.", takes="[TOPIC] [AGENT]")
    parser.add_argument("topic", metavar="TOPIC", nargs="?", help=", ".join(TOPICS))
    parser.add_argument("name", metavar="AGENT", nargs="?", help="for hyperparameters: of this agent only")
    parser.add_argument("--data-dir", default="datasets", metavar="DIR", help="where data sets are kept [datasets]")
    verb("env", "Print versions, devices and cache state for a bug report.", takes="")
    return top


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments as a namespace with ``verb``.

    Raises:
      UserError: for an unknown command or flag (with the nearest known one), or a value that cannot be read.
      SystemExit: after ``--help``.
    """
    parser = build_parser()
    verbs = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction)).choices
    if argv and not argv[0].startswith("-") and argv[0] not in verbs:
        raise unknown("command", argv[0], verbs)
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        verb = verbs[arguments.verb] if arguments.verb else parser
        flags = [flag for action in verb._actions for flag in action.option_strings if flag.startswith("--")]
        flag = next((word for word in rest if word.startswith("-")), None)
        if flag is None:
            raise UserError(f"unexpected argument {rest[0]!r}; see: {verb.prog} --help")
        name = flag.split("=")[0]
        owner = next((other.prog for other in verbs.values() if name in other._option_string_actions), None)
        if owner is not None:
            raise UserError(f"unknown flag {name!r} for {verb.prog}; it belongs to: {owner}")
        # Without the dashes, which every flag shares; a word like none of them is likely to be a hyperparameter.
        if difflib.get_close_matches(name.strip("-"), [known.strip("-") for known in flags], cutoff=0.6):
            raise unknown("flag", name, flags)
        hint = f"a hyperparameter is given as --set {name.strip('-').replace('-', '_')}=VALUE"
        raise UserError(f"unknown flag {name!r}; {hint}; for options see: {verb.prog} --help")
    return arguments


def config_of(arguments: argparse.Namespace) -> jobs.SweepConfig:
    """The ``SweepConfig`` that the command line asks for.

    Raises:
      UserError: if a name is given twice.
    """
    names = [field.name for field in dataclasses.fields(jobs.SweepConfig)]
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    for name in _PAIRS:
        pairs = given.get(name, [])
        seen = [key for key, _ in pairs]
        twice = next((key for key in seen if seen.count(key) > 1), None)
        if twice:
            raise UserError(f"{_flag(name)} {twice} is given twice; put all its values into one")
        if pairs:
            given[name] = dict(pairs)
    return jobs.SweepConfig(**given)


# ---------------------------------------------------------------------------------------------------------------------
# The machine


def prepare() -> None:
    """Settings that JAX reads when its backend starts. What the environment already says is left alone.

    One CPU device per core lets members train side by side; the scheduler flag avoids a standstill of XLA's CPU runtime
    on a busy machine; compiled programs are kept between runs.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_enable_concurrency_optimized_scheduler" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_enable_concurrency_optimized_scheduler=false".strip()
    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    settings: Any = jax.config  # its attributes are made at run time
    if "xla_force_host_platform_device_count" not in flags and settings.jax_num_cpu_devices == -1:
        with contextlib.suppress(RuntimeError):  # the backend is already up
            jax.config.update("jax_num_cpu_devices", cores)
    if settings.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "jaxrl-reg"))


# ---------------------------------------------------------------------------------------------------------------------
# Printing


class Display:
    """Lines, progress bars and a table of members on a terminal; lines only where the output is not one."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn

        self.console = Console(highlight=False, soft_wrap=True) if console is None else console
        self.live = self.console.is_terminal
        self._members: Sequence[jobs.Standing] = ()
        self._tasks: dict[str, Any] = {}
        self._bar = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            console=self.console,
        )
        self._screen = Live(console=self.console, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> Display:
        if self.live:
            self._screen.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._members = ()  # the report has them all
        if self.live:
            self._screen.stop()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        if not self._members:
            return self._bar
        rows = member_rows(self._members, max(3, min(MOST_SHOWN, self.console.height - 8)))
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for i, heading in enumerate(rows[0]):
            table.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
        for row in rows[1:]:
            table.add_row(*row)
        return Group(self._bar, table)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def tick(self, tick: jobs.Tick) -> None:
        if not self.live:
            if tick.done:
                self.say(f"{tick.stage}: {progress_text(tick)}")
            return
        self._members = tick.members
        if tick.stage not in self._tasks:
            self._tasks[tick.stage] = self._bar.add_task(tick.stage, total=tick.total, text="")
        self._bar.update(self._tasks[tick.stage], total=tick.total, completed=tick.done, text=progress_text(tick))
        self._screen.refresh()


def progress_text(tick: jobs.Tick) -> str:
    """``2,000 of 20,000  1,234 updates/s  0:42 left  score 12.3``"""
    if not tick.done:
        return "compiled, first part under way"
    minutes, seconds = divmod(round(tick.eta_seconds), 60)
    left = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
    parts = [f"{tick.done:,} of {tick.total:,}", f"{tick.per_second:,.0f} {tick.unit}/s", f"{left} left"]
    if tick.score is not None:
        parts.append(f"{tick.score_name} {tick.score:,.1f}")
    return "  ".join(parts)


def member_rows(members: Sequence[jobs.Standing], most: int) -> list[list[str]]:
    """The best ``most`` members as rows of text, headings first, and how many there are besides."""
    rows = [["member", "seed", "updates", "score", ""]]
    for one in members[:most]:
        score = f"{one.score:,.1f}" if one.score == one.score else ""
        rows.append([one.label, str(one.seed), f"{one.updates:,}", score, one.state])
    if len(members) > most:
        states = [one.state for one in members[most:]]
        words = [f"{states.count(state)} {state}" for state in ("diverged", "stopped", "waiting") if state in states]
        rows.append([f"and {len(members) - most:,} more" + (f", {', '.join(words)}" if words else ""), "", "", "", ""])
    return rows


def print_table(display: Display, table: pd.DataFrame, directory: pathlib.Path) -> None:
    """The report's table in short, as many columns as the terminal has room for, and where the report is."""
    from jaxrl_reg.evaluation.report import brief

    print_rows(display, brief(table), directory)


def print_rows(display: Display, rows: Sequence[Sequence[str]], directory: pathlib.Path) -> None:
    """Rows of text with the headings first, and where the report is."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    shown, room = 1, display.console.width if display.live else 10_000
    while shown < len(widths) and sum(widths[: shown + 1]) + 2 * shown <= room:
        shown += 1
    for row in rows:
        cells = [f"{row[0]:<{widths[0]}}", *(f"{row[i]:>{widths[i]}}" for i in range(1, shown))]
        display.say("  ".join(cells).rstrip())
    display.say(f"report: {directory / 'report.html'}")


def _columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Left-aligned columns; the last one is wrapped to the terminal."""
    import shutil
    import textwrap

    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    start = len(indent) + sum(width + 2 for width in widths)
    room = max(30, min(shutil.get_terminal_size((110, 20)).columns, 140) - start)
    lines = []
    for row in rows:
        head = indent + "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False))
        for i, line in enumerate(textwrap.wrap(row[-1], room) or [""]):
            lines.append((head if i == 0 else " " * start) + line)
    return "\n".join(line.rstrip() for line in lines)


# ---------------------------------------------------------------------------------------------------------------------
# Commands


@contextlib.contextmanager
def _job(directory: pathlib.Path | None) -> Iterator[Display]:
    """A display for a job; Ctrl-C becomes exit status 130 and, with a run directory, the way to go on."""
    from jaxrl_reg.population import Interrupted

    stopped = False
    with Display() as display:
        try:
            yield display
        except (KeyboardInterrupt, Interrupted):
            stopped = True
    if stopped:
        if directory is not None and (directory / "config.json").exists():
            display.say(f"stopped; go on with: {PROG} resume {shlex.quote(str(directory))}")
        else:
            display.say("stopped; run the same command again to go on")
        raise SystemExit(STOPPED)


def _add_distributed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--distributed",
        nargs="?",
        const="",
        metavar="HOST:PORT,N,I",
        help="share the members between N processes, each started with this command: alone under SLURM, GKE, Cloud TPU "
        "or Open MPI, else with the address of process 0, their number and that of this one",
    )


def _join(given: str | None) -> None:
    """Become one of several processes, before JAX is used."""
    if given is None:
        return
    from jaxrl_reg.population import hosts

    if not given:
        return hosts.join()
    address, *numbers = given.split(",")
    if ":" not in address or len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        raise UserError(f"--distributed takes HOST:PORT,N,I such as 10.0.0.1:1234,2,0, not {given!r}")
    hosts.join(address, *map(int, numbers))


def _sweep(arguments: argparse.Namespace) -> None:
    _join(arguments.distributed)
    config = config_of(arguments)
    directory = pathlib.Path(arguments.out) if arguments.out else jobs.default_directory(config)
    with _job(directory) as display:
        call = jobs.train if arguments.verb == "train" else jobs.sweep
        outcome = call(config, directory=directory, say=display.say, on_tick=display.tick)
    if not outcome.table.empty:  # else another process has it
        print_table(display, outcome.table, outcome.directory)


def _compare(arguments: argparse.Namespace) -> None:
    from jaxrl_reg.evaluation.comparison import cell

    config, directory = config_of(arguments), pathlib.Path(arguments.out)
    given = {name: getattr(arguments, name) for name in ("agents", "envs", "datasets") if getattr(arguments, name)}
    with _job(None) as display:
        table = jobs.compare(config, **given, directory=directory, say=display.say, on_tick=display.tick)
    rows = [(row["agent"], row["task"], cell(row)) for row in table.to_dict("records")]
    display.say(_columns(rows))
    display.say(f"table: {directory / 'comparison.md'}")


def _collect(arguments: argparse.Namespace) -> None:
    config, behavior = config_of(arguments), arguments.behavior
    with _job(None) as display:
        if behavior == "task":
            path = jobs.collect(config, say=display.say, on_tick=display.tick)
        else:
            path = jobs.explore(config, behavior, say=display.say, on_tick=display.tick)
    if path is not None:
        display.say(f"data sets: {path.parent}")


def _evaluate(arguments: argparse.Namespace) -> None:
    with _job(None) as display:
        table = jobs.evaluate(arguments.run, arguments.episodes, say=display.say, on_tick=display.tick)
    print_table(display, table, pathlib.Path(arguments.run))


def _zeroshot(arguments: argparse.Namespace) -> None:
    from jaxrl_reg.evaluation.report import brief_tasks

    names = None if arguments.task is None else [name.strip() for name in arguments.task.split(",") if name.strip()]
    with _job(None) as display:
        table = jobs.zeroshot(
            arguments.run,
            names,
            arguments.reward,
            samples=arguments.samples,
            episodes=arguments.episodes,
            say=display.say,
            on_tick=display.tick,
        )
    print_rows(display, brief_tasks(table), pathlib.Path(arguments.run))


def _report(arguments: argparse.Namespace) -> None:
    table = jobs.report(arguments.run)
    print_table(Display(), table, pathlib.Path(arguments.run))


def _resume(arguments: argparse.Namespace) -> None:
    _join(arguments.distributed)
    directory = pathlib.Path(arguments.run)
    if jobs.finished(directory):
        print(f"{directory} has already finished")
        return _report(arguments)
    with _job(directory) as display:
        outcome = jobs.resume(directory, say=display.say, on_tick=display.tick)
    if not outcome.table.empty:  # else another process has it
        print_table(display, outcome.table, outcome.directory)


def _list(arguments: argparse.Namespace) -> None:
    topic = arguments.topic
    if topic is not None and topic not in TOPICS:
        raise unknown("topic", topic, TOPICS)
    if arguments.name is not None and topic != "hyperparameters":
        raise UserError(f"only 'list hyperparameters' takes a name, not 'list {topic}'")
    if topic in (None, "agents"):
        _list_agents()
    if topic in (None, "envs"):
        _list_envs()
    if topic in (None, "datasets"):
        _list_datasets(arguments.data_dir)
    if topic == "hyperparameters":
        _list_hyperparameters(arguments.name)
    if topic is None:
        print(f"hyperparameters\n  {PROG} list hyperparameters [AGENT]")


def _list_agents() -> None:
    from jaxrl_reg import agents

    rows = []
    for name in agents.names():
        module = agents.load(name)
        rows.append((name, module.KIND, f"{module.PAPER.title} ({module.PAPER.authors}, {module.PAPER.year})"))
    print("agents\n" + _columns(rows))


def _list_envs() -> None:
    from jaxrl_reg import envs

    print("envs\n" + _columns([(name,) for name in envs.names()]))


def _list_datasets(directory: str) -> None:
    print(
        "datasets, collected in any environment on first use\n"
        + _columns([(name,) for name in (*jobs.COLLECTED, *jobs.EXPLORED)])
    )
    found = sorted(pathlib.Path(directory).rglob("*.hdf5")) if pathlib.Path(directory).is_dir() else []
    rows = [(str(path), f"{path.stat().st_size / 2**20:.1f} MiB") for path in found]
    print(f"files in {directory}\n" + (_columns(rows) if rows else "  none yet"))


def _list_hyperparameters(name: str | None) -> None:
    from jaxrl_reg import agents

    for agent in agents.names() if name is None else [name]:
        module = agents.load(agent)
        paper = module.PAPER
        print(f"{agent}: {paper.title} ({paper.authors}, {paper.year}) {paper.url}")
        for kind, cls in (("swept with --grid, fixed with --set", module.Hyper), ("fixed with --set", module.Config)):
            rows = [(field, _default(value), text) for field, value, text in agents.settings(cls)]
            if rows:
                print(f" {kind}\n" + _columns(rows, indent="   "))
        if paper.deviations:
            print(_columns([("", f"differs from the paper: {paper.deviations}")], indent=""))


def _default(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _env(_: argparse.Namespace) -> None:
    from jaxrl_reg.io import env_info

    print("\n".join(env_info.lines(env_info.describe())))


_CALLS = {
    "sweep": _sweep,
    "train": _sweep,
    "collect": _collect,
    "compare": _compare,
    "evaluate": _evaluate,
    "zeroshot": _zeroshot,
    "report": _report,
    "resume": _resume,
    "list": _list,
    "env": _env,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 2 for bad input (one line on stderr), 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = parse(argv)
        if arguments.version:
            from jaxrl_reg import __version__

            print(f"{PROG} {__version__}")
            return 0
        if arguments.verb is None:
            build_parser().print_help()
            return 0
        if arguments.verb != "report":  # needs no backend
            prepare()
        _CALLS[arguments.verb](arguments)
        sys.stdout.flush()  # what is left in the buffer: here a closed pipe can still be caught
    except UserError as error:
        print(f"{PROG}: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except SystemExit as stop:
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:  # | head
        sys.stderr.close()
        return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""How words of the command line become values, and options fields of the configs of ``jobs``."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxrl_reg import foreign, jobs
from jaxrl_reg.errors import UserError

# Kinds of runs that sweep and train start; kinds with a verb of their own are not here.
TRAINED = ("offline", "online", "tokens")
SHARED = tuple(field.name for field in dataclasses.fields(jobs.JobConfig))
SEARCHING = ("grid", "sample", "draws", "design", "design_seed", "early_stop", "evolve")


class Verb(NamedTuple):
    """A command: how it is listed, what its help says, its options and what it does with them."""

    name: str
    takes: str  # what follows its name, in the usage
    summary: str  # one line of the list of commands
    description: str
    options: Callable[[argparse.ArgumentParser], None]
    call: Callable[[argparse.Namespace], None]
    examples: str = ""


def whole(text: str) -> int:
    """``20_000``, ``20000`` or ``2e4``."""
    try:
        value = float(text)
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")


def _widths(text: str) -> tuple[int, ...]:
    return tuple(whole(item) for item in text.split(",") if item)


def numbers(text: str) -> tuple[float, ...]:
    """``0.5`` or ``-1,2e-3``."""
    try:
        return tuple(float(item) for item in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, nor numbers such as -1,-2") from None


def names(text: str) -> tuple[str, ...]:
    """``iql,td3_bc``"""
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
    "env_settings": ("--env-set", "NAME=VALUE", _assignment),
}
_TYPES: dict[str, Callable[[str], Any]] = {
    "int": whole,
    "int | None": whole,
    "tuple[int, ...]": _widths,
    "float | str": _number,
    "tuple[float, ...] | None": numbers,
    "tuple[str, ...] | None": names,
}
_METAVARS = {"int": "N", "int | None": "N", "tuple[int, ...]": "N,N", "tuple[float, ...] | None": "X,X"}


def _flag(name: str) -> str:
    return _PAIRS[name][0] if name in _PAIRS else "--" + name.replace("_", "-")


def fields_of(kind: str) -> dict[str, dataclasses.Field[Any]]:
    """The fields of the config of a kind of run, by name."""
    return {field.name: field for field in dataclasses.fields(jobs.kinds.load(kind).Config)}


def own_fields(kind: str) -> list[str]:
    """The fields that a kind of run adds to those that all have."""
    return [name for name in fields_of(kind) if name not in SHARED]


def add_config(
    parser: Any,
    names: Sequence[str],
    scales: Mapping[str, Mapping[str, Any]] = jobs.SCALES,
    *,
    kind: str = jobs.kinds.OFFLINE,
) -> None:
    """One option for each of these fields of the config of a kind; only those that are given reach the config."""
    fields = fields_of(kind)
    for name in names:
        field = fields[name]
        shape, text = str(field.type), field.metadata["help"]
        options: dict[str, Any] = {}
        if name in _PAIRS:
            _, metavar, read = _PAIRS[name]
            options = {"action": "append", "metavar": metavar, "type": read}
        elif shape == "bool":
            options = {"action": "store_true"}
        else:
            metavar = field.metadata.get("metavar") or _METAVARS.get(shape) or name.upper()
            options = {"type": _TYPES.get(shape, str), "metavar": metavar}
            presets = [f"{scale}: {_show(preset[name])}" for scale, preset in scales.items() if name in preset]
            default = "; ".join(presets) if presets else _show(field.default)
            text += f" [{default}]" if default else ""
        parser.add_argument(
            *_flags(name), dest=name, default=argparse.SUPPRESS, help=text.replace("%", "%%"), **options
        )


def add_kinds(parser: argparse.ArgumentParser) -> None:
    """The options that only some kinds of runs have, a group for each kind."""
    known: set[str] = set()  # an option that several kinds have stands in the group of the first
    for kind in TRAINED:
        module = jobs.kinds.load(kind)
        group = parser.add_argument_group(module.WORDS)
        names = [name for name in own_fields(kind) if name not in known]
        known |= set(names)
        add_config(group, names, module.PRESETS, kind=kind)


def _flags(name: str) -> tuple[str, ...]:
    return (_flag(name),)


def _show(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:,}".replace(",", "_") if isinstance(value, int) else str(value)


def kind_of(arguments: argparse.Namespace) -> str:
    """The kind of run that a command line of ``sweep`` or ``train`` means.

    Raises:
      UserError: for an option that belongs to another kind.
    """
    named = hasattr(arguments, "dataset")
    agent = getattr(arguments, "agent", jobs.SweepConfig.agent)
    kind = jobs.kind_of(agent, dataset=named)
    refuse_others(arguments, kind, f"{agent} means")
    return kind


def refuse_others(arguments: argparse.Namespace, kind: str, why: str) -> None:
    """Raises ``UserError`` for an option that another kind of run has and this one has not."""
    known = fields_of(kind)
    for other in TRAINED:
        for name in own_fields(other):
            if name not in known and hasattr(arguments, name):
                words = {one: jobs.kinds.load(one).WORDS for one in (other, kind)}
                raise UserError(f"{_flag(name)} belongs to {words[other]}, and {why} {words[kind]} here")


def config_of(arguments: argparse.Namespace, kind: str | None = None) -> Any:
    """The config that the command line asks for, of a kind of run; by default that which the verb means.

    Raises:
      UserError: if a name is given twice, or an option belongs to another kind.
    """
    if getattr(arguments, "home", None):
        foreign.look_in(arguments.home)
    if kind is None:
        kind = kind_of(arguments) if arguments.verb in ("sweep", "train", "plan") else jobs.kinds.OFFLINE
    return jobs.kinds.load(kind).Config(**values_of(arguments, fields_of(kind)))


def values_of(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """What was given of these fields.

    Raises:
      UserError: if a name is given twice.
    """
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    for name in _PAIRS:
        pairs = given.get(name, [])
        seen = [key for key, _ in pairs]
        twice = next((key for key in seen if seen.count(key) > 1), None)
        if twice:
            raise UserError(f"{_flag(name)} {twice} is given twice; put all its values into one")
        if pairs:
            given[name] = dict(pairs)
    return given

"""How words of the command line become values, and options fields of ``SweepConfig``."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxrl_reg import jobs
from jaxrl_reg.errors import UserError

PROG = "jaxrl-reg"
TRAINING = tuple(field.name for field in dataclasses.fields(jobs.SweepConfig))
SEARCHING = ("grid", "sample", "draws", "design", "design_seed", "early_stop")


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
}
_TYPES: dict[str, Callable[[str], Any]] = {"int": whole, "int | None": whole, "tuple[int, ...]": _widths}
_METAVARS = {"int": "N", "int | None": "N", "tuple[int, ...]": "N,N"}


def _flag(name: str) -> str:
    return _PAIRS[name][0] if name in _PAIRS else "--" + name.replace("_", "-")


def add_config(
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

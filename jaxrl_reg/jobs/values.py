"""Values of hyperparameters and settings: from the words of a command line, and back into words."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any

from jaxrl_reg.errors import UserError

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "numbers such as 64,64 or 64x64",
}


def coerce(name: str, kind: Any, value: Any) -> Any:
    """``value``, perhaps from a command line, as ``kind``: the annotation of its field, such as ``float | None``.

    Raises:
      UserError: for a value that is not of that kind, naming the kind.
    """
    choices = typing.get_args(kind) if _is_union(kind) else (kind,)
    if type(None) in choices:
        if value is None or str(value).lower() == "none":
            return None
        choices = tuple(one for one in choices if one is not type(None))
    for one in choices:
        try:
            return _read(one, value)
        except (KeyError, ValueError, TypeError, OverflowError):
            continue
    known = [_KINDS.get(typing.get_origin(one) or one, getattr(one, "__name__", str(one))) for one in choices]
    if type(None) in typing.get_args(kind):
        known.append("none")
    raise UserError(f"{name}={word(value)!r} is not {' or '.join(known)}")


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _read(kind: Any, value: Any) -> Any:
    """``value`` as one plain kind; raises what ``coerce`` catches."""
    if kind is bool:
        return value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]
    if kind is int:
        if float(value) != int(float(value)):
            raise ValueError
        return int(float(value))
    if kind is float:
        number = float(value)
        if number != number:
            raise ValueError
        return number
    if (typing.get_origin(kind) or kind) is tuple:
        element = (*typing.get_args(kind), int)[0]
        if isinstance(value, str) and element is int:
            value = value.replace("x", ",")  # in a list of values the comma is taken
        items = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
        return tuple(_read(element, item) for item in items if item != "")
    return value


def looks_like(value: Any) -> Any:
    """``value``, perhaps from a command line, as the number, the truth value or the word that it looks like."""
    for kind in (int, float, bool):
        try:
            return _read(kind, value)
        except (KeyError, ValueError, TypeError, OverflowError):
            continue
    return value


def word(value: Any) -> str:
    """A value as the command line takes it: ``0.1``, ``64x64``, ``gaussian``, ``none``."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def column(values: Sequence[Any]) -> list[float] | list[str]:
    """Values as a column of the metrics: numbers where all of them are, else words."""
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values]
    return [word(value) for value in values]

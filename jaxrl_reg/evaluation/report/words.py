"""Numbers and settings as words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxrl_reg.evaluation.report.estimates import Estimate


def decimals(values: Sequence[float]) -> int:
    """How many decimals tell scores of this size apart without pretending more."""
    largest = max((abs(value) for value in values if np.isfinite(value)), default=0.0)
    return 0 if largest >= 1000 else 1 if largest >= 10 else 2 if largest >= 1 else 3


def number(value: float, places: int, sign: bool = False) -> str:
    """``1,234``, ``56.7`` or ``+8.9``, with a real minus sign."""
    return f"{value:{'+' if sign else ''},.{places}f}".replace("-", "\N{MINUS SIGN}")


def interval(estimate: Estimate, places: int) -> str:
    """``[12.3, 45.6]``"""
    return f"[{number(estimate.low, places)}, {number(estimate.high, places)}]"


def labelled(hypers: Mapping[str, Any]) -> str:
    """``actor_bc_coef=0.1, hidden=64x64``"""
    return ", ".join(f"{name}={text_of(value)}" for name, value in hypers.items())


def missing(value: Any) -> bool:
    """Whether a cell of a table holds nothing."""
    return value is None or (isinstance(value, float) and np.isnan(value))


def seconds(value: float) -> str:
    """``0.42 s``, ``12.3 s``, ``4 min 05 s`` or ``2 h 03 min``."""
    if value < 100:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def text_of(value: Any) -> str:
    """A setting or a fact as text: ``0.1``, ``256, 256``, ``10,000``."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}={text_of(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(item) for item in value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    return str(value)

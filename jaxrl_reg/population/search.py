"""Settings drawn from ranges, for searches that a grid would make too large: at random, or spread evenly (Sobol)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.population.grid import stack

HyperT = TypeVar("HyperT")
DESIGNS = ("random", "sobol")


class Range(NamedTuple):
    """Where one hyperparameter is drawn from.

    ``kind`` is ``lin`` (uniform from ``values[0]`` to ``values[1]``), ``log`` (uniform in the logarithm, likewise) or
    ``choice`` (one of ``values``, each as likely).
    """

    kind: str
    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        """The value at quantile ``u`` in [0, 1); numbers to four digits, so that a table shows what was used."""
        if self.kind == "choice":
            return self.values[int(u * len(self.values))]
        low, high = self.values
        # The ends are kept exactly: rounding may lead beyond them.
        value = low + (high - low) * u if self.kind == "lin" else low * (high / low) ** u
        return float(min(max(float(f"{value:.4g}"), low), high))


def parse_range(name: str, text: str) -> Range:
    """``log:0.01:10`` or ``lin:0:1``, or values to choose from, ``0.1,1,10``; values stay words where they are none.

    Raises:
      UserError: for a text that is none of these, or ends out of order.
    """
    kind, *ends = text.split(":")
    if kind not in ("lin", "log"):
        values = tuple(dict.fromkeys(value.strip() for value in text.split(",") if value.strip()))
        if not values or ends:
            raise UserError(f"{name}={text!r} is not log:LOW:HIGH, lin:LOW:HIGH or value,value,...")
        return Range("choice", values)
    try:
        low, high = (float(end) for end in ends)
    except ValueError:
        raise UserError(f"{name}={text!r} needs two numbers: {kind}:LOW:HIGH") from None
    if not low < high < float("inf") or (kind == "log" and low <= 0):
        needs = "0 < LOW < HIGH" if kind == "log" else "LOW < HIGH"
        raise UserError(f"{name}={text!r} needs {needs}, both finite")
    return Range(kind, (low, high))


def unit_points(count: int, dimensions: int, design: str = "random", seed: int = 0) -> np.ndarray:
    """``[count, dimensions]`` points of the unit cube.

    The first points of a larger call are those of a smaller one, so a search can be widened without redoing it.

    Args:
      count: at least 1.
      dimensions: at least 1.
      design: ``random`` (independent) or ``sobol`` (Owen-scrambled Sobol points, which leave no large holes).
      seed: another seed gives other points.

    Raises:
      UserError: for an unknown design, or a count or dimension below 1.
    Source: Sobol, 1967; scrambled by Owen, 1998 (``scipy.stats.qmc``). Random search: Bergstra and Bengio, 2012.
    """
    if design not in DESIGNS:
        raise unknown("design", design, DESIGNS)
    if count < 1 or dimensions < 1:
        raise UserError(f"{count} points in {dimensions} dimensions: both must be at least 1")
    if design == "random":
        return np.random.default_rng(seed).random((count, dimensions))
    from scipy.stats import qmc

    power = int(np.ceil(np.log2(count)))  # Sobol points are balanced in powers of two; the rest is cut off
    return qmc.Sobol(dimensions, rng=np.random.default_rng(seed)).random_base2(power)[:count]


def draw(ranges: Mapping[str, Range], count: int, *, design: str = "random", seed: int = 0) -> list[dict[str, Any]]:
    """Up to ``count`` different settings, each a value for every name; fewer where choices repeat themselves.

    Raises:
      UserError: as ``unit_points``, or without any range.
    """
    if not ranges:
        raise UserError("give at least one range to draw settings from")
    settings: dict[tuple, dict[str, Any]] = {}
    for point in unit_points(count, len(ranges), design, seed):
        setting = {name: one.at(float(u)) for (name, one), u in zip(ranges.items(), point, strict=True)}
        settings.setdefault(tuple(setting.values()), setting)
    return list(settings.values())


def sample(hyper: HyperT, count: int, *, design: str = "random", seed: int = 0, **ranges: Range | str) -> HyperT:
    """Settings drawn from ranges; other leaves are repeated.

    Args:
      hyper: the setting to start from, every leaf a scalar.
      count: settings to draw.
      design: ``random`` or ``sobol``.
      seed: of the draw, not of training.
      ranges: hyperparameter name to a ``Range``, or its text as ``parse_range`` takes it.

    Returns:
      The same type, every leaf float32 ``[H]`` with ``H`` at most ``count``.

    Raises:
      UserError: for a name that ``hyper`` does not have, or a range that is none.

    Example:
      ``sample(td3_bc.Hyper(), 16, design="sobol", bc_coef="log:0.01:10", discount="lin:0.95:0.999")``
    """
    names: Sequence[str] = [field.name for field in dataclasses.fields(hyper)]  # type: ignore[arg-type]
    found = {}
    for name, one in ranges.items():
        if name not in names:
            raise unknown("hyperparameter", name, names)
        found[name] = parse_range(name, one) if isinstance(one, str) else one
        for word in found[name].values:
            try:
                float(word)
            except ValueError:
                raise UserError(f"{name}={word!r} is not a number") from None
    points = draw(found, count, design=design, seed=seed)
    numbers = [{name: float(value) for name, value in point.items()} for point in points]
    return stack([dataclasses.replace(hyper, **point) for point in numbers])  # type: ignore[type-var]

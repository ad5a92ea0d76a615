"""From values per seed to a verdict: paired differences, their intervals, one line that says it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness.claim import Claim
from jaxrl_reg.errors import UserError

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
    """Mean paired advantage of the method over a rival and its Student-t confidence interval over seeds."""

    rival: str
    mean: float
    low: float
    high: float
    holds: bool


def paired_difference(method: Sequence[float], rival: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95% Student-t interval of ``method - rival`` over paired seeds; infinite for one seed."""
    from scipy import stats

    difference = np.asarray(method, float) - np.asarray(rival, float)
    mean = float(difference.mean())
    if difference.size < 2:
        return mean, -np.inf, np.inf
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, difference.size - 1) * difference.std(ddof=1) / np.sqrt(difference.size)
    return mean, mean - float(half), mean + float(half)


def advantages(claim: Claim, values: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """By rival ``[seeds]``: how much better the method is, in the metric's unit.

    Raises:
      UserError: an arm has no values.
    """
    missing = [arm for arm in (claim.method, *claim.rivals) if arm not in values]
    if missing:
        raise UserError(f"the experiment returned no values for {', '.join(missing)}")
    sign, method = 1.0 if claim.higher_is_better else -1.0, np.asarray(values[claim.method], float)
    return {rival: sign * (method - np.asarray(values[rival], float)) for rival in claim.rivals}


def judge(claim: Claim, values: Mapping[str, Sequence[float]]) -> list[Difference]:
    """The paired differences to every rival, and whether each clears the margin. NaN never holds."""
    found = []
    for rival, points in advantages(claim, values).items():
        mean, low, high = paired_difference(points, np.zeros_like(points))
        found.append(Difference(rival, mean, low, high, bool(low > claim.margin)))
    return found


def summary_line(
    name: str, claim: Claim, values: Mapping[str, Sequence[float]], differences: list[Difference], power: Any = None
) -> str:
    """The last line of a run; the difference shown is the one to the closest rival. ``power`` is a ``Power``."""
    verdict = "holds" if all(d.holds for d in differences) else "fails"
    closest = min(differences, key=lambda d: d.low)
    return (
        f"{name}: {verdict}  {claim.method} {np.mean(values[claim.method]):.4g}  "
        f"{closest.rival} {np.mean(values[closest.rival]):.4g}  "
        f"difference {closest.mean:.4g} [{closest.low:.4g}, {closest.high:.4g}]"
        + ("" if power is None else f"  power {power.product:.3f} with {power.n} seeds")
    )

"""From values per seed to a verdict: paired differences, their intervals, one line that says it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

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


def judge(claim: Claim, values: dict[str, Sequence[float]]) -> list[Difference]:
    """The paired differences to every rival, and whether each clears the margin. NaN never holds."""
    missing = [arm for arm in (claim.method, *claim.rivals) if arm not in values]
    if missing:
        raise UserError(f"the experiment returned no values for {', '.join(missing)}")
    sign = 1.0 if claim.higher_is_better else -1.0
    differences = []
    for rival in claim.rivals:
        mean, low, high = paired_difference(sign * np.asarray(values[claim.method]), sign * np.asarray(values[rival]))
        differences.append(Difference(rival, mean, low, high, bool(low > claim.margin)))
    return differences


def summary_line(name: str, claim: Claim, values: dict[str, Sequence[float]], differences: list[Difference]) -> str:
    """The last line that a run prints; the difference shown is the one to the closest rival."""
    verdict = "holds" if all(d.holds for d in differences) else "fails"
    closest = min(differences, key=lambda d: d.low)
    return (
        f"{name}: {verdict}  {claim.method} {np.mean(values[claim.method]):.4g}  "
        f"{closest.rival} {np.mean(values[closest.rival]):.4g}  "
        f"difference {closest.mean:.4g} [{closest.low:.4g}, {closest.high:.4g}]"
    )

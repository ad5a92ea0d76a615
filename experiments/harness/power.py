"""How sure a claim is to come out again: the chance that a fresh group of seeds clears the margin.

A claim holds against one rival where ``mean - t s / sqrt(n) > margin``, for the mean and standard deviation ``s`` of n
paired differences and ``t`` the 0.975 quantile of Student's distribution. With normal differences of mean ``mu`` and
standard deviation ``sigma`` that is a noncentral t beyond ``t``, with noncentrality ``(mu - margin) sqrt(n) / sigma``.
``mu`` and ``sigma`` are taken from all seeds run so far.

Against several rivals the chance of clearing all lies between two numbers that hold whatever the dependence: one minus
the sum of the chances to fail (Bonferroni), and the smallest chance. The product is a lower bound where the differences
rise and fall together; they share the method's values, but nothing makes sure of it. Numbers of seeds are therefore
chosen by the first; the product is what is shown.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.harness.claim import Claim
from experiments.harness.statistics import CONFIDENCE, advantages

WANTED = 0.95
MOST = 10_000  # more seeds are not asked for
NODES = 96  # of the integrals over variances
OUTLIER = 0.01  # a seed further out than one group in a hundred has it, if differences were normal


@dataclasses.dataclass(frozen=True)
class Power:
    """The chance that ``n`` fresh seeds hold, from ``seen`` seeds.

    ``product`` of the chances against each rival in ``rivals``; ``at_least`` holds whatever their dependence.
    ``assured`` is the same bound with what ``seen`` seeds leave open about means and spreads taken into account.
    ``alone`` names a seed that lies so far out that the normal approximation, and the number, should not be trusted.
    """

    n: int
    seen: int
    product: float
    at_least: float
    assured: float
    rivals: dict[str, float]
    alone: dict[str, int]


def clearing(mean: float, deviation: float, margin: float, n: int, known: int | None = None) -> float:
    """The chance that the interval of ``n`` fresh differences lies above ``margin``.

    Args:
      mean: of a difference, metric's unit.
      deviation: its standard deviation. 0: the chance is 0 or 1.
      margin: metric's unit.
      n: fresh seeds. Fewer than 2 have no interval, and never clear it.
      known: from how many seeds ``mean`` and ``deviation`` are estimated; the chance is then averaged over what they
        may be instead (flat prior on mean and log deviation). None: they are exact.
    Returns:
      scalar in [0, 1]; 0 where mean or deviation are not finite.
    """
    if n < 2 or not np.isfinite([mean, deviation]).all():
        return 0.0
    if deviation == 0.0:
        return float(mean > margin)
    if known is None:
        return float(_noncentral((mean - margin) * np.sqrt(n) / deviation, 1.0, n))
    if known < 2:
        return 0.0
    from scipy import stats

    at, weights = _nodes()
    deviations = deviation * np.sqrt((known - 1) / stats.chi2.ppf(at, known - 1))
    # The mean of n fresh differences about the known mean: variance (1 / n + 1 / known) instead of 1 / n.
    return float(weights @ _noncentral((mean - margin) * np.sqrt(n) / deviations, np.sqrt(1.0 + n / known), n))


def _noncentral(shift: np.ndarray | float, spread: float, n: int) -> np.ndarray:
    """P((shift + spread Z) / sqrt(V / (n - 1)) > t) of Z normal, V chi-square; ``shift [...]``."""
    from scipy import special, stats

    at, weights = _nodes()
    bound = stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * np.sqrt(stats.chi2.ppf(at, n - 1) / (n - 1))
    return special.ndtr((np.asarray(shift)[..., None] - bound) / spread) @ weights


@functools.cache
def _nodes() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    at, weights = np.polynomial.legendre.leggauss(NODES)
    return (at + 1.0) / 2.0, weights / 2.0


def power(claim: Claim, values: Mapping[str, Sequence[float]], n: int, seeds: Sequence[int] = ()) -> Power:
    """The power of ``claim`` with ``n`` fresh seeds, from the values of all ``seeds`` run so far."""
    found, sure, alone = {}, {}, {}
    seen = len(values[claim.method])
    for rival, points in advantages(claim, values).items():
        with np.errstate(invalid="ignore"):  # an infinite difference has no spread
            spread = float(points.std(ddof=1)) if seen > 1 else np.nan
        found[rival] = clearing(float(points.mean()), spread, claim.margin, n)
        sure[rival] = clearing(float(points.mean()), spread, claim.margin, n, seen)
        far = outlier(points)
        if far is not None:
            alone[rival] = int(seeds[far]) if len(seeds) else far
    at_least, assured = (max(0.0, 1.0 - sum(1.0 - p for p in each.values())) for each in (found, sure))
    return Power(n, seen, float(np.prod(list(found.values()))), at_least, assured, found, alone)


def needed(claim: Claim, values: Mapping[str, Sequence[float]], wanted: float = WANTED) -> int | None:
    """The fewest seeds with ``Power.at_least`` of ``wanted``; None if ``MOST`` are too few."""

    def enough(n: int) -> bool:
        return power(claim, values, n).at_least >= wanted

    low, high = 1, 2
    while not enough(high):
        if high >= MOST:
            return None
        low, high = high, min(2 * high, MOST)
    while high - low > 1:  # the power rises with n wherever it is above one half
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def outlier(points: np.ndarray) -> int | None:
    """Index of the point that Grubbs' test rejects, if any: one seed then decides about mean and spread."""
    from scipy import stats

    n = len(points)
    if n < 3 or not np.isfinite(points).all() or points.std() == 0.0:
        return None
    away = np.abs(points - points.mean()) / points.std(ddof=1)
    t = stats.t.ppf(1.0 - OUTLIER / (2 * n), n - 2)
    critical = (n - 1) / np.sqrt(n) * np.sqrt(t**2 / (n - 2 + t**2))
    return int(away.argmax()) if away.max() > critical else None


def curve(claim: Claim, values: Mapping[str, Sequence[float]], sizes: Sequence[int]) -> list[str]:
    """Lines of a table: by margin, ``Power.at_least`` of each number of seeds, and the number that 0.95 needs.

    Margins: the claim's own, none, and quarters of the mean difference to the closest rival.
    """
    closest = min(float(points.mean()) for points in advantages(claim, values).values())
    quarters = [part * closest for part in (0.25, 0.5, 0.75)] if closest > 0 else []
    margins = sorted({float(f"{margin:.3g}") for margin in (0.0, *quarters)} | {claim.margin})
    lines = [f"{'margin':>10} " + "".join(f"{f'n = {n}':>9}" for n in sizes) + "   seeds needed"]
    for margin in margins:
        asked = dataclasses.replace(claim, margin=margin)
        chances = "".join(f"{power(asked, values, n).at_least:9.3f}" for n in sizes)
        enough = needed(asked, values)
        mark = "  <- the claim's margin" if margin == claim.margin else ""
        lines.append(f"{margin:>10.4g} {chances}   {enough or f'over {MOST:,}'}{mark}")
    return lines

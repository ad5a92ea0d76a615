"""The power of a claim: against simulation, a number worked out by hand, and where no normal distribution helps."""

import numpy as np
import pytest
from scipy import stats

from experiments.harness import Claim, robust
from experiments.harness.power import clearing, curve, needed, outlier, power
from experiments.harness.statistics import judge

CLAIM = Claim("ours is better", "https://example.org", "ours", ("theirs", "other"), None, "score", margin=0.5)
DRAWS = 20_000


def group(rng, n, means=(1.0, 1.2), spread=0.5, shared=0.4):
    """Values of a claim for ``n`` seeds; both differences share the noise of the method."""
    ours = shared * rng.normal(size=n)
    theirs = [-mean - spread * rng.normal(size=n) for mean in means]
    return {"ours": ours.tolist(), "theirs": theirs[0].tolist(), "other": theirs[1].tolist()}


@pytest.mark.parametrize(("n", "mean", "margin"), [(5, 1.0, 0.5), (8, 0.9, 0.5), (3, 2.0, 0.0)])
def test_the_chance_is_that_of_simulated_groups_of_seeds(n, mean, margin):
    points = mean + 0.6 * np.random.default_rng(n).normal(size=(DRAWS, n))
    low = points.mean(1) - stats.t.ppf(0.975, n - 1) * points.std(1, ddof=1) / np.sqrt(n)
    assert clearing(mean, 0.6, margin, n) == pytest.approx((low > margin).mean(), abs=4 * 0.5 / np.sqrt(DRAWS))


def test_two_seeds_by_hand():
    """n = 2: P(D > c |E|) of independent normals D ~ N(m, 1), E ~ N(0, 1), c = t_.975(1) = 12.7062.

    Without a shift, D and E have a uniform angle, and the wedge D > c |E| is arctan(1 / c) / pi of the circle: 0.025.
    """
    assert clearing(0.5, 3.0, 0.5, 2) == pytest.approx(np.arctan(1 / 12.706204736) / np.pi, abs=1e-4)
    assert clearing(0.5, 3.0, 0.5, 2) == pytest.approx(0.025, abs=1e-4)


@pytest.mark.parametrize(("n", "shift"), [(2, 3.0), (5, 2.776), (20, 1.0), (50, 4.0)])
def test_it_is_the_noncentral_t(n, shift):
    known = stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, shift)
    assert clearing(shift / np.sqrt(n), 1.0, 0.0, n) == pytest.approx(known, abs=2e-4)


def test_what_few_seeds_leave_open_is_counted():
    """The chance that the next group clears, over draws of the group that mean and spread were taken from.

    The prior is flat in mean and log deviation, so the prediction is exact over repetitions when all else is too: the
    next mean lies above the first with a chance of one half, whatever the parameters.
    """
    rng = np.random.default_rng(0)
    assert clearing(1.0, 0.4, 0.5, 6, known=6) < clearing(1.0, 0.4, 0.5, 6)
    assert clearing(1.0, 0.4, 0.5, 6, known=10**6) == pytest.approx(clearing(1.0, 0.4, 0.5, 6), abs=1e-3)
    first, sigma = 5, 0.4 * np.sqrt(4 / rng.chisquare(4, DRAWS))
    mean = 1.0 + sigma / np.sqrt(first) * rng.normal(size=DRAWS)
    points = mean[:, None] + sigma[:, None] * rng.normal(size=(DRAWS, 6))
    low = points.mean(1) - stats.t.ppf(0.975, 5) * points.std(1, ddof=1) / np.sqrt(6)
    assert clearing(1.0, 0.4, 0.5, 6, known=first) == pytest.approx((low > 0.5).mean(), abs=0.015)


def test_the_chance_against_all_rivals_is_between_its_bounds():
    rng = np.random.default_rng(1)
    seen = group(rng, 4_000)
    found = power(CLAIM, seen, 8)
    held = np.mean([all(d.holds for d in judge(CLAIM, group(rng, 8))) for _ in range(2_000)])
    assert found.at_least <= found.product <= min(found.rivals.values())
    assert found.product - 0.04 < held < min(found.rivals.values()) + 0.04
    assert 0.3 < found.product < 0.95  # neither bound is trivial here
    apart = {**seen, "other": (2 * np.asarray(seen["ours"]) - np.asarray(seen["theirs"])).tolist()}
    assert power(CLAIM, apart, 8).at_least == 0.0  # the two differences are opposite: never both


def test_seeds_needed_rise_with_the_margin_and_reach_the_power():
    seen = group(np.random.default_rng(2), 12)
    counts = []
    for margin in (0.0, 0.2, 0.4, 0.6):
        claim = Claim("", "", "ours", ("theirs", "other"), None, "", margin=margin)
        counts.append(needed(claim, seen))
        assert power(claim, seen, counts[-1]).at_least >= 0.95 > power(claim, seen, counts[-1] - 1).at_least
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    assert needed(Claim("", "", "ours", ("theirs",), None, "", margin=5.0), seen) is None
    lines = curve(CLAIM, seen, (5, 10))
    assert f"{power(CLAIM, seen, 10).at_least:.3f}" in next(line for line in lines if "claim's margin" in line)


def test_values_without_mean_or_spread_have_a_power_of_0_or_1():
    def one(ours, n=5):
        values = {"ours": ours, "theirs": [0.0] * len(ours), "other": [-1.0] * len(ours)}
        return power(CLAIM, values, n)

    assert one([np.nan, 1.0, 1.0]).product == 0.0
    assert one([np.inf, 1.0, 1.0]).product == 0.0
    assert one([1.0, 1.0, 1.0]).product == one([1.0, 1.0, 1.0]).at_least == 1.0
    assert one([0.4, 0.4, 0.4]).product == 0.0
    assert one([1.0]).product == 0.0  # one seed has no spread
    assert one([1.0, 1.1, 1.2], n=1).product == 0.0


def test_a_seed_that_decides_alone_is_named():
    """Draws of infinite variance: their mean is no steadier than one of them, so the number must not be trusted."""
    rng = np.random.default_rng(3)
    named = [outlier(rng.standard_cauchy(20)) is not None for _ in range(200)]
    normal = [outlier(rng.normal(size=20)) is not None for _ in range(400)]
    assert np.mean(named) > 0.6
    assert np.mean(normal) < 0.03
    values = {"ours": [1.0, 1.1, 0.9, 1.0, 9.0, 1.05], "theirs": [0.0] * 6, "other": [0.0] * 6}
    assert power(CLAIM, values, 5, range(100, 106)).alone == {"theirs": 104, "other": 104}


def test_robust_metrics_do_not_follow_one_part():
    parts = np.array([[1.0, 2.0, 3.0, 1e6], [-1e6, 2.0, 4.0, 5.0]])
    np.testing.assert_allclose(robust.interquartile_mean(parts), [2.5, 3.0])
    assert np.isnan(robust.interquartile_mean(np.array([[1.0, np.nan, 2.0, 3.0]]))).all()
    np.testing.assert_allclose(robust.log_share(np.array([1e-9, 0.5, 50.0]), 5.0, 1e-3), [-3.0, -1.0, 1.0])
    np.testing.assert_allclose(robust.clipped(np.array([np.nan, -2.0, 0.3, 7.0]), 0.0, 1.0), [0.0, 0.0, 0.3, 1.0])

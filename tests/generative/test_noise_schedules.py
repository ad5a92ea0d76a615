import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import generative as g
from jaxrl_reg.generative import schedules

LOW, HIGH = 0.05, 20.0
GRIDS = {
    "karras": g.karras,
    "exponential": g.exponential,
    "polyexponential": functools.partial(g.polyexponential, rho=1.5),
    "linear": g.linear,
    "variance_exploding": g.variance_exploding,
}


def test_grids_run_from_the_largest_level_to_the_smallest_and_then_to_zero():
    made = jax.jit(lambda: {(name, n): GRIDS[name](n, LOW, HIGH) for name in GRIDS for n in (1, 2, 7)})()
    for (name, steps), sigmas in made.items():
        assert sigmas.shape == (steps + 1,)
        assert sigmas[-1] == 0
        assert np.all(np.diff(sigmas) < 0), name
        np.testing.assert_allclose(sigmas[0], HIGH, rtol=1e-5)
        if steps > 1:
            np.testing.assert_allclose(sigmas[-2], LOW, rtol=1e-4)  # an exponent that runs past 1 would end below


def test_grids_match_their_formulas():
    i = np.arange(6) / 5
    roots = HIGH ** (1 / 5) + i * (LOW ** (1 / 5) - HIGH ** (1 / 5))
    t = np.linspace(1, 1e-3, 6)
    geometric = np.geomspace(HIGH, LOW, 6)
    wanted = {
        "karras": roots**5,
        "exponential": geometric,
        "variance_exploding": geometric,
        "variance_preserving": np.sqrt(np.exp(19.9 * t**2 / 2 + 0.1 * t) - 1),
        "polyexponential": np.exp((1 - i) ** 1.5 * np.log(HIGH / LOW) + np.log(LOW)),
        "flow_times": np.linspace(1, 0, 6),
    }
    made = jax.jit(
        lambda: {
            "karras": g.karras(6, LOW, HIGH, rho=5.0)[:-1],
            "exponential": g.exponential(6, LOW, HIGH)[:-1],
            "variance_exploding": g.variance_exploding(6, LOW, HIGH)[:-1],
            "variance_preserving": g.variance_preserving(6)[:-1],
            "polyexponential": g.polyexponential(6, LOW, HIGH, 1.5)[:-1],
            "flow_times": g.flow_times(5),
        }
    )()
    for name, levels in wanted.items():
        np.testing.assert_allclose(made[name], levels, rtol=2e-3 if name == "variance_preserving" else 2e-5)


def test_improved_ddpm_matches_the_recursion():
    u = np.zeros(1001)
    for j in range(1000, 0, -1):
        before, now = (math.sin(math.pi / 2 * k / (1000 * 1.008)) ** 2 for k in (j - 1, j))
        u[j - 1] = math.sqrt((u[j] ** 2 + 1) / max(before / now, 1e-3) - 1)
    inside = u[(u >= 0.0064) & (u <= 81.0)]
    expected = inside[np.round(np.arange(9) * (len(inside) - 1) / 8).astype(int)]
    np.testing.assert_allclose(jax.jit(lambda: g.improved_ddpm(9))()[:-1], expected, rtol=1e-3)


def test_limits_may_be_traced_and_grids_are_never_half_precision():
    grids = jax.jit(lambda high: [grid(5, LOW, high) for grid in GRIDS.values()])
    for half, single in zip(grids(np.float16(10.0)), grids(np.float32(10.0)), strict=True):
        assert half.dtype == jnp.float32
        np.testing.assert_array_equal(half, single)


@pytest.mark.parametrize("grid", [g.karras, g.linear, g.flow_times])
def test_a_grid_without_steps_is_refused(grid):
    with pytest.raises(ValueError, match="at least one step"):
        grid(0)


def test_linear_betas_keep_their_terminal_noise_at_every_length():
    published = np.linspace(1e-4, 0.02, 1000)
    betas, ends = jax.jit(
        lambda: (g.linear_betas(1000), [g.vp_coefficients(g.linear_betas(n))[0][-1] for n in (50, 100, 1000)])
    )()
    np.testing.assert_allclose(betas, published, rtol=1e-5)
    assert all(alpha**2 < 1e-4 for alpha in ends)  # unscaled, 100 steps would leave 0.36
    with pytest.raises(ValueError, match="vp_betas"):
        g.linear_betas(20)


def test_cosine_betas_reproduce_the_cosine():
    betas = jax.jit(lambda: g.cosine_betas(50))()
    assert betas.shape == (50,)
    alpha, sigma = jax.jit(g.vp_coefficients)(betas)
    alpha, sigma = np.asarray(alpha), np.asarray(sigma)
    u = np.arange(1, 50) / 50
    wanted = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(alpha[:-1] ** 2, wanted, rtol=2e-3)  # the last beta is capped
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, rtol=1e-6)
    assert betas[-1] == pytest.approx(0.999)


def test_vp_betas_match_the_published_formula():
    t = np.arange(1, 6)
    wanted = 1 - np.exp(-0.1 / 5 - (10 - 0.1) * (2 * t - 1) / (2 * 5**2))
    np.testing.assert_allclose(g.vp_betas(5), wanted, rtol=1e-5)


def test_vp_sigmas_visit_every_level_downwards():
    betas = g.vp_betas(5)
    alpha_bar = np.cumprod(1 - np.asarray(betas, np.float64))
    wanted = np.sqrt((1 - alpha_bar) / alpha_bar)[::-1]
    np.testing.assert_allclose(g.vp_sigmas(betas), [*wanted, 0.0], rtol=1e-4)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normal_cdf(x):
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def truncated(cdf, low, high):
    return lambda x: (cdf(x) - cdf(low)) / (cdf(high) - cdf(low))


DENSITIES = {
    "log_normal": (schedules.log_normal, lambda x: normal_cdf((np.log(x) + 1.2) / 1.2)),
    "log_logistic": (
        functools.partial(schedules.log_logistic, sigma_min=0.1, sigma_max=1.0),
        truncated(lambda x: sigmoid((np.log(x) - math.log(0.5)) / 0.5), 0.1, 1.0),
    ),
    "log_uniform": (schedules.log_uniform, truncated(np.log, 0.002, 80.0)),
    "tangent": (schedules.tangent, truncated(lambda x: np.arctan(x / 0.5), 0.002, 80.0)),
    "uniform_time": (schedules.uniform_time, lambda x: x),
    "logit_normal_time": (schedules.logit_normal_time, lambda x: normal_cdf(np.log(x / (1 - x)) + 0.4)),
}


def test_densities_follow_their_distribution_functions():
    drawn = jax.jit(lambda key: {name: density(key, (4000,)) for name, (density, _) in DENSITIES.items()})
    for name, draws in drawn(jax.random.key(0)).items():
        _, cdf = DENSITIES[name]
        gap = np.abs(cdf(np.sort(np.asarray(draws, np.float64))) - (np.arange(4000) + 0.5) / 4000).max()
        assert gap < 1.95 / math.sqrt(4000), name  # Kolmogorov and Smirnov at 0.1%

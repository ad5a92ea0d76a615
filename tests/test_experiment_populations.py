"""What the experiments on early stopping and hypergradients rest on: their arithmetic, not their claims."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.arms import over_devices
from experiments.population import maid_offline, performance_prediction
from jaxrl_reg.transforms import solve_lower


def test_the_lower_problem_of_mixed_sources_has_the_bounds_that_are_claimed_and_its_solution():
    theta, ends = jnp.array([0.5, -1.0, 0.2, -0.3]), jnp.array([20.0, -20.0, -20.0, -20.0])

    @jax.jit
    def numbers(key):
        problem, value = maid_offline.offline(key, 3, 2, 40, 80)
        x, known = problem.zero + 0.3, problem.constants(theta)

        def slope(flat, theta):
            return jax.grad(lambda x: problem.lower(x, theta))(flat.reshape(x.shape)).ravel()

        apart = jax.random.normal(key, x.shape).ravel()
        mixed = [jax.jacfwd(slope, argnums=1)(x.ravel() + step, theta) for step in (0.0, apart)]
        change = jnp.linalg.norm(mixed[1] - mixed[0], ord=2) / jnp.linalg.norm(apart)
        curves = jnp.linalg.eigvalsh(jax.jacfwd(slope)(x.ravel(), theta))
        upper = jax.hessian(lambda flat: problem.upper(flat.reshape(x.shape)))(x.ravel())
        solved, _, _ = solve_lower(problem.lower, theta, x, known, 1e-5, 2_000)
        tried = jax.vmap(problem.objective)(3.0 * jax.random.normal(key, (200, 4))).min()
        found = problem.upper(solved), problem.objective(theta), problem.objective(problem.best), tried
        return known, curves, change, jnp.linalg.eigvalsh(upper)[-1], found, (value(ends), value(ends[::-1]))

    known, curves, change, upper, (solved, exact, best, tried), (good, bad) = numbers(jax.random.key(0))
    np.testing.assert_allclose([known.strong_convexity, known.smoothness], [curves[0], curves[-1]], rtol=1e-4)
    np.testing.assert_allclose(known.upper_smoothness, upper, rtol=1e-4)
    assert 0.1 * known.mixed_lipschitz < change < known.mixed_lipschitz
    np.testing.assert_allclose(solved, exact, atol=1e-4)
    assert best <= tried + 1e-5
    assert good > bad  # cloning the best source against cloning the worst


def test_a_grid_is_walked_from_neighbour_to_neighbour():
    points = np.asarray(maid_offline.snake(np.array([-1.0, 0.0, 1.0]), 4))
    assert len({tuple(p) for p in points.tolist()}) == len(points) == 81
    np.testing.assert_array_equal(np.abs(np.diff(points, axis=0)).sum(axis=1), 1.0)


def test_a_replay_judges_by_the_other_half_and_counts_what_was_spent():
    seen = np.linspace(-1.0, 0.0, 30)[:, None] + np.linspace(-0.1, 0.0, 9)
    other = seen + np.linspace(1.0, 2.0, 30)[:, None]
    order = np.random.default_rng(0).permutation(30)
    found = performance_prediction.replayed(seen[order], other[order], np.linspace(-1.0, 1.0, 30)[order, None])
    assert found["whole sweep"] == (2.0, 1.0, 0.0)
    score, share, false = found["halving"]  # 30, 10 and 4 settings for 1, 2 and 6 segments more
    assert (score, false) == (2.0, 0.0)
    assert share == pytest.approx((30 + 20 + 24) / 270)
    assert found["fewer settings"][1] == int(found["prediction"][1] * 30) / 30


def test_the_best_of_few_is_the_mean_over_all_choices():
    rng = np.random.default_rng(0)
    seen, other = rng.normal(size=(2, 7, 3))
    chosen = [list(some) for some in itertools.combinations(range(7), 3)]
    scores = [other[some, -1][seen[some, -1].argmax()] for some in chosen]
    false = [(seen[:, -1] > seen[some, -1].max()).sum() / 4 for some in chosen]
    np.testing.assert_allclose(performance_prediction.best_of_few(seen, other, 3), [np.mean(scores), np.mean(false)])
    assert performance_prediction.best_of_few(seen, other, 7) == (other[seen[:, -1].argmax(), -1], 0.0)


def test_members_split_over_devices_are_all_there_and_in_order():
    numbers, rows = jnp.arange(5.0), jnp.arange(15.0).reshape(5, 3)
    found = over_devices(lambda member: {"sum": member[0] + member[1].sum()}, (numbers, rows))
    np.testing.assert_allclose(found["sum"], numbers + rows.sum(axis=1))

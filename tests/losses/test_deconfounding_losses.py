"""Confounders of logged rewards: golden numbers, which estimate is right where, and what weak instruments do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses

X = jnp.array([[1.0, 0], [0, 1], [1, 1], [0, 0], [2, 1]])
C, Z = jnp.array([[0.5], [1], [2], [0], [1]]), jnp.array([[0.0], [1], [2], [0], [0.5]])
Y = jnp.array([2, 3, 6, 0.2, 4.5])
GOLDEN = {  # effect and rewards without it
    "marginal": (2.895453, [3.158181, 2.710455, 2.815001, 2.805908, 4.210455]),
    "joint": (2.230433, [2.892173, 2.776957, 3.546524, 2.20739, 4.276957]),
    "instrument": (2.24151, [2.896604, 2.775849, 3.534339, 2.217359, 4.275849]),
}


@jax.jit
def estimated(y, c, x, z, weight=None, ridge=1e-3):
    """The three estimates, by name."""
    return {
        "marginal": losses.confounder_effect(y, c, weight=weight, ridge=ridge),
        "joint": losses.confounder_effect(y, c, x, weight=weight, ridge=ridge),
        "instrument": losses.confounder_effect(y, c, x, z, weight, ridge),
    }


def logged(rows=4000, hidden=1.5, seed=0):
    """Content that pays 1 for its first column, a confounder of true effect 2 that it moves, and a hidden cause."""
    rng = np.random.default_rng(seed)
    z, u, x = rng.normal(size=(rows, 1)), rng.normal(size=rows), rng.normal(size=(rows, 2))
    c = z[:, 0] + u + x[:, 0] + 0.3 * rng.normal(size=rows)
    y = x[:, 0] + 2.0 * c + hidden * u
    return [jnp.asarray(part, jnp.float32) for part in (y, c[:, None], x, z)]


def test_golden_numbers():
    found = estimated(Y, C, X, Z, ridge=2e-7)
    for name, (effect, without) in GOLDEN.items():
        np.testing.assert_allclose(found[name], [effect], rtol=1e-5)
        np.testing.assert_allclose(losses.deconfounded_reward(Y, C, found[name]), without, rtol=1e-5)


def test_each_estimate_is_right_where_it_should_be_and_only_there():
    seen, blind = estimated(*logged(hidden=0.0)), estimated(*logged())
    assert float(seen["joint"][0]) == pytest.approx(2, abs=0.01)
    assert float(seen["marginal"][0]) == pytest.approx(2 + 1 / 3.09, abs=0.05)  # takes a part of the merit away
    assert float(blind["instrument"][0]) == pytest.approx(2, abs=0.1)
    assert float(blind["joint"][0]) == pytest.approx(2 + 1.5 / 2.09, abs=0.05)  # the hidden cause is held against it


def test_rows_of_weight_zero_are_held_out():
    y, c, x, z = logged(200)
    weight = jnp.asarray(np.arange(200) < 120, jnp.float32)
    spoilt = jnp.where(weight > 0, y, 1e3)
    weighted, alone = estimated(spoilt, c, x, z, weight), estimated(y[:120], c[:120], x[:120], z[:120])
    for name in GOLDEN:
        np.testing.assert_allclose(weighted[name], alone[name], rtol=1e-4)
    held_out = losses.deconfounded_reward(y, c, weighted["joint"], weight)
    np.testing.assert_allclose(held_out, y - (c - c[:120].mean())[:, 0] * weighted["joint"], rtol=1e-4, atol=1e-5)


def test_data_carry_no_gradient():
    def total(y, c, x, z):
        return sum(effect.sum() for effect in estimated(y, c, x, z).values()) + losses.first_stage_f(c[:, 0], z)

    for gradient in jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(Y, C, X, Z):
        np.testing.assert_array_equal(gradient, 0)


def test_fewer_instruments_than_confounders_identify_nothing():
    with pytest.raises(ValueError, match="2 confounders, 1 instruments"):
        losses.confounder_effect(Y, jnp.hstack([C, Z]), X, Z)


def test_what_does_not_vary_has_no_effect_and_leaves_rewards_as_they_are():
    found = estimated(Y, jnp.full_like(C, 3.0), X, Z)
    for effect in found.values():
        np.testing.assert_array_equal(effect, [0.0])
    np.testing.assert_array_equal(losses.deconfounded_reward(Y, jnp.full_like(C, 3.0), jnp.array([5.0])), Y)
    np.testing.assert_array_equal(estimated(Y, C, X, jnp.ones_like(Z), ridge=1e-2)["marginal"].shape, (1,))


def test_the_first_stage_by_least_squares():
    _, c, x, z = logged(300)
    z = jnp.hstack([z, jnp.asarray(np.random.default_rng(1).normal(size=(300, 1)), jnp.float32)])

    def left(*columns):
        columns = np.hstack([np.ones((300, 1)), *columns])
        rest = np.asarray(c) - columns @ np.linalg.lstsq(columns, np.asarray(c), rcond=None)[0]
        return np.square(rest).sum()

    expected = (left(x) - left(x, z)) / 2 / (left(x, z) / (300 - 2 - 2 - 1))
    np.testing.assert_allclose(losses.first_stage_f(c[:, 0], z, x), expected, rtol=1e-4)
    noise = jnp.asarray(np.random.default_rng(2).normal(size=(300, 1)), jnp.float32)
    assert float(losses.first_stage_f(c[:, 0], noise, x)) < 10 < expected
    assert np.isfinite(losses.first_stage_f(c[:, 0], c, x))
    assert float(losses.first_stage_f(jnp.ones(300), z, x)) == 0


def test_an_orthogonal_direction_pays_the_best_that_is_uncorrelated():
    y, c, x, _ = logged(500)
    features = jnp.hstack([x, jnp.asarray(np.random.default_rng(3).normal(size=(500, 2)), jnp.float32)])
    found = losses.orthogonal_direction(features, y, c, 1e-6)
    a, b = np.asarray(features, np.float64), np.asarray(c[:, 0], np.float64)
    a, b = a - a.mean(axis=0), b - b.mean()
    assert abs((a @ found * b).mean()) < 1e-4
    # By a basis of what is uncorrelated with the confounder, in which plain least squares are the answer.
    basis = np.linalg.svd((a.T @ b)[None])[2][1:].T
    expected = basis @ np.linalg.lstsq(a @ basis, np.asarray(y) - np.asarray(y).mean(), rcond=None)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)

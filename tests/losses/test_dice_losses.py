"""Distribution correction: closed forms, the three ways to add its gradients, and the traps of its scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses
from jaxrl_reg.transforms import orthogonal_combine

Y = np.linspace(-6.0, 6.0, 49)


def test_conjugates_are_the_largest_value_over_density_ratios():
    ratio = np.linspace(0.0, 40.0, 400_001)[:, None]
    brute = (ratio * Y[::8] - (ratio - 1) ** 2).max(0)
    np.testing.assert_allclose(losses.pearson_conjugate(Y[::8]), brute, atol=1e-5)
    ratio = np.maximum(ratio[ratio[:, 0] <= 5], 1e-30)
    brute = (ratio * Y[::8] - ratio * np.log(ratio)).max(0)
    np.testing.assert_allclose(losses.reverse_kl_conjugate(Y[::8], 5.0), brute, atol=1e-5)


def test_conjugates_by_hand():
    np.testing.assert_allclose(losses.pearson_conjugate(jnp.array([0.0, 2.0, -2.0, -9.0])), [0.0, 3.0, -1.0, -1.0])
    np.testing.assert_allclose(losses.reverse_kl_conjugate(jnp.array([1.0, 0.0])), [1.0, np.exp(-1)], rtol=1e-6)
    # The tangent at slope 2 begins at y = 1 + ln 2, where exp(y - 1) = 2.
    np.testing.assert_allclose(losses.reverse_kl_conjugate(jnp.array([4.0 + np.log(2.0)]), 2.0), [8.0], rtol=1e-6)


def test_the_ratio_is_the_slope_of_the_conjugate():
    def slope(function):
        return jax.vmap(jax.grad(function))(jnp.asarray(Y, jnp.float32))

    np.testing.assert_allclose(losses.pearson_weight(Y, 1e9), slope(losses.pearson_conjugate), atol=1e-6)
    capped = slope(lambda y: losses.reverse_kl_conjugate(y, 3.0))
    np.testing.assert_allclose(losses.reverse_kl_weight(Y, 3.0), capped, rtol=1e-5)


def test_the_published_weight_drops_rows_that_the_ratio_keeps():
    y = jnp.array([-3.0, -1.0, 0.0, 1.0, 500.0])
    np.testing.assert_allclose(losses.pearson_weight(y, 100.0), [0.0, 0.5, 1.0, 1.5, 100.0])
    np.testing.assert_allclose(losses.sparse_weight(y, 100.0), [0.0, 0.0, 0.0, 1.0, 100.0])


def test_extreme_residuals_are_finite():
    y = jnp.array([-1e30, -1e9, 1e9, 1e30])
    for function in (losses.reverse_kl_conjugate, jax.vmap(jax.grad(losses.reverse_kl_conjugate))):
        assert np.isfinite(function(y)).all()
    assert np.isfinite(losses.pearson_conjugate(y[1:3])).all()
    np.testing.assert_array_equal(losses.reverse_kl_weight(y, 100.0), [0.0, 0.0, 100.0, 100.0])


LAM, GAMMA = 0.7, 0.9
PHI, NEXT, REWARD, DISCOUNT = (
    np.random.default_rng(0).normal(size=shape) for shape in ((32, 5), (32, 5), (32,), (32,))
)
DISCOUNT = (DISCOUNT > -1).astype(float)


def gradients(theta, target, eta=1.0):
    """Linear, forward and backward gradients of a linear value ``phi @ theta``."""

    def parts(theta):
        arguments = PHI @ theta, NEXT @ theta, PHI @ target, NEXT @ target, REWARD, DISCOUNT, GAMMA, LAM, eta
        return jnp.stack([part.mean() for part in losses.v_dice_losses(*arguments)])

    return jax.jacrev(parts)(theta)


def by_hand(theta, target, eta=1.0):
    forward = REWARD + GAMMA * DISCOUNT * (NEXT @ target) - PHI @ theta
    backward = REWARD + GAMMA * DISCOUNT * (NEXT @ theta) - PHI @ target
    ratio_f, ratio_b = (np.maximum(y / 2 + 1, 0)[:, None] for y in (forward, backward))
    return np.stack(
        [
            (1 - LAM) * PHI.mean(0),
            LAM * (ratio_f * -PHI).mean(0),
            LAM * eta * (ratio_b * GAMMA * DISCOUNT[:, None] * NEXT).mean(0),
        ]
    )


def test_each_part_moves_its_own_value_and_no_gradient_reaches_the_targets():
    theta, target = np.random.default_rng(1).normal(size=(2, 5))
    np.testing.assert_allclose(gradients(theta, target, 0.3), by_hand(theta, target, 0.3), atol=1e-5)
    through_target = jax.grad(
        lambda t: sum(
            part.sum()
            for part in losses.v_dice_losses(
                PHI @ theta, NEXT @ theta, PHI @ t, NEXT @ t, REWARD, DISCOUNT, GAMMA, LAM, 1.0
            )
        )
    )(jnp.asarray(target, jnp.float32))
    np.testing.assert_array_equal(through_target, np.zeros(5))


def test_forward_plus_backward_with_online_targets_is_the_true_gradient():
    theta = np.random.default_rng(2).normal(size=5)

    def whole(theta):
        y = REWARD + GAMMA * DISCOUNT * (NEXT @ theta) - PHI @ theta
        return np.mean((1 - LAM) * (PHI @ theta) + LAM * np.where(y > -2, y**2 / 4 + y, -1.0))

    moves = 1e-5 * np.eye(5)
    expected = [(whole(theta + m) - whole(theta - m)) / 2e-5 for m in moves]
    np.testing.assert_allclose(gradients(theta, theta).sum(0), expected, atol=1e-5)


def test_the_linear_part_is_not_projected():
    linear, forward, backward = gradients(*np.random.default_rng(3).normal(size=(2, 5)))
    step = linear + orthogonal_combine(forward, backward).gradient
    assert float((step - linear) @ forward) == pytest.approx(float(forward @ forward), rel=1e-5)
    assert abs(float(step @ forward - forward @ forward)) > 1e-2  # projecting the sum would make this 0


def test_at_the_minimum_the_mean_ratio_is_one_minus_lambda_over_lambda():
    """One state that leads to an end: then V shifts until the mean slope balances the linear part."""
    rewards = jnp.array([0.0, 1.0, 3.0, 4.0])
    zeros = jnp.zeros(4)
    for lam in (0.5, 0.7, 0.9):

        def loss(v, lam=lam):
            parts = losses.v_dice_losses(v + zeros, zeros, zeros, zeros, rewards, zeros, 0.9, lam, 0.0)
            return sum(parts).mean()

        v = jax.lax.fori_loop(0, 400, lambda _, v: v - jax.grad(loss)(v), jnp.float32(0.0))
        ratio = losses.pearson_weight(rewards - v, 1e9)
        assert float(ratio.mean()) == pytest.approx((1 - lam) / lam, abs=1e-4)
        # The published weight is 2 (ratio - 1): for lambda = 0.9 it has vanished on every row.
        assert bool((losses.sparse_weight(rewards - v, 100.0) > 0).any()) == (lam < 0.9)


def test_twins_against_one_target_are_mapped_not_broadcast():
    twins, row = jnp.ones((2, 4)), jnp.zeros(4)
    with pytest.raises(ValueError, match="v_dice_losses: "):
        losses.v_dice_losses(twins, twins, row, row, row, row, 0.9, 0.5, 1.0)
    mapped = jax.vmap(losses.v_dice_losses, in_axes=(0, 0, *[None] * 7))
    assert [part.shape for part in mapped(twins, twins, row, row, row, row, 0.9, 0.5, 1.0)] == [(2, 4)] * 3

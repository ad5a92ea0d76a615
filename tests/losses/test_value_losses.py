"""Targets and value losses: numbers by hand, and what their minima are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses


def test_td_target_bootstraps_through_a_time_out_but_not_a_termination():
    found = losses.td_target(jnp.array([1.0, 1.0]), jnp.array([1.0, 0.0]), jnp.array([10.0, 10.0]), 0.9)
    np.testing.assert_allclose(found, [10.0, 1.0])


def test_targets_by_hand():
    reward, discount = jnp.array([1.0]), jnp.array([1.0])
    next_q = jnp.array([[6.0], [4.0], [5.0]])
    assert losses.clipped_double_q_target(reward, discount, next_q, 0.5)[0] == 3.0  # 1 + 0.5 * 4
    assert losses.soft_td_target(reward, discount, next_q, jnp.array([-2.0]), 0.5, 0.5)[0] == 3.5  # 1 + 0.5 (4 + 1)
    assert losses.soft_td_target(reward, discount, next_q, jnp.array([-2.0]), 0.5, 0.0)[0] == 3.0
    action, data = jnp.array([[0.0, 1.0]]), jnp.array([[1.0, -1.0]])
    # ||a' - a||^2 = 1 + 4 summed over dimensions: 1 + 0.5 (4 - 0.1 * 5)
    np.testing.assert_allclose(losses.rebrac_target(reward, discount, next_q, action, data, 0.5, 0.1), [2.75])
    np.testing.assert_allclose(losses.rebrac_target(reward, discount * 0, next_q, action, data, 0.5, 0.1), [1.0])


def test_targets_let_gradients_through_so_that_residual_methods_can_use_them():
    assert jax.grad(losses.td_target, argnums=2)(1.0, 1.0, 2.0, 0.9) == pytest.approx(0.9)


def test_squared_errors_have_no_half_and_the_ensemble_is_summed():
    assert losses.squared_td_error(jnp.array([1.0]), jnp.array([4.0]))[0] == 9.0
    predictions = jnp.array([[1.0, 2.0], [3.0, 5.0]])
    np.testing.assert_allclose(losses.ensemble_td_error(predictions, jnp.array([2.0, 2.0])), [2.0, 9.0])


def test_huber_is_quadratic_then_linear_with_bounded_gradient():
    prediction = jnp.array([0.5, -0.5, 3.0, 1.0, 1e30])
    value = losses.huber_loss(prediction, jnp.zeros(5), 1.0)
    np.testing.assert_allclose(value, [0.125, 0.125, 2.5, 0.5, 1e30])
    gradient = jax.grad(lambda p: losses.huber_loss(p, jnp.zeros(5), 1.0).sum())(prediction)
    np.testing.assert_allclose(gradient, [0.5, -0.5, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(losses.huber_loss(prediction, jnp.zeros(5), 0.0), np.zeros(5))


def test_expectile_punishes_too_low_a_prediction_more_when_above_one_half():
    np.testing.assert_allclose(losses.expectile_loss(jnp.array([2.0, -2.0, 0.0]), expectile=0.75), [3.0, 1.0, 0.0])
    q = jnp.array([0.0, 1.0, 4.0])
    candidates = jnp.linspace(-1, 5, 6001)

    def best(sign, expectile):
        loss = losses.expectile_loss(sign * (q - candidates[:, None]), expectile).sum(-1)
        return float(candidates[loss.argmin()])

    assert best(1, 0.5) == pytest.approx(5 / 3, abs=2e-3)
    # tau 0.9: 0.1 (v + v - 1) = 0.9 (4 - v), so v = 3.7 / 1.1
    assert best(1, 0.9) == pytest.approx(3.7 / 1.1, abs=2e-3)
    assert best(-1, 0.9) == best(1, 0.1) < 1.0  # prediction minus target would learn the pessimistic value


def soft_maximum(q, temperature):
    return temperature * np.log(np.mean(np.exp(q / temperature)))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_gumbel_and_exponential_losses_are_minimal_at_the_soft_maximum(temperature):
    q = jnp.array([-1.0, 0.0, 0.5, 2.0])
    optimum = soft_maximum(np.asarray(q, np.float64), temperature)
    extreme = jax.jit(jax.grad(lambda v: losses.gumbel_loss(q - v, temperature, 7.0).mean()))
    exponential = jax.jit(jax.grad(lambda v: losses.exponential_value_loss(q, jnp.full(4, v), temperature).mean()))
    for slope in (extreme, exponential):
        assert slope(optimum) == pytest.approx(0.0, abs=1e-6)
        assert slope(optimum - 0.1) < -1e-3
        assert slope(optimum + 0.1) > 1e-3


def test_gumbel_rescales_by_the_largest_example_but_never_by_less_than_minus_one():
    found = losses.gumbel_loss(jnp.array([0.0, 2.0]), 1.0, 7.0)
    np.testing.assert_allclose(found, [0.0, 1.0 - 3.0 * np.exp(-2.0)], rtol=1e-6)
    found = losses.gumbel_loss(jnp.array([-5.0]), 1.0, 7.0)
    np.testing.assert_allclose(found, [np.exp(-4.0) + 4.0 * np.exp(1.0)], rtol=1e-6)


def test_gumbel_and_exponential_do_not_overflow():
    far = jnp.array([1e30, -1e30, 0.0])
    value, gradient = jax.value_and_grad(lambda u: losses.gumbel_loss(u, 0.5, 7.0).sum())(far)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert gradient[0] == 0.0
    function = lambda v: losses.exponential_value_loss(far, v, 0.5).sum()  # noqa: E731
    value, gradient = jax.value_and_grad(function)(-far)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_sparse_value_loss_by_hand_and_at_its_minimum():
    q, value = jnp.array([1.0, 5.0, -9.0]), jnp.array([1.0, 1.0, 1.0])
    # alpha 2: (1 + 0)^2 + 1/2; (1 + 1)^2 + 1/2; dropped + 1/2
    np.testing.assert_allclose(losses.sparse_value_loss(q, value, 2.0), [1.5, 4.5, 0.5])
    # Stationary where the mean of max(1 + (q - v) / (2 alpha), 0) is 1: v = mean q while nothing is dropped.
    q = jnp.array([0.0, 1.0, 2.0])
    slope = jax.grad(lambda v: losses.sparse_value_loss(q, jnp.full(3, v), 2.0).mean())
    assert slope(1.0) == pytest.approx(0.0, abs=1e-6)
    assert slope(0.5) < 0 < slope(1.5)


# Three episodes in one array: a time-out after step 1, a termination after step 3, the trajectory's end after step 5.
REWARDS = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
VALUES = jnp.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.7])
NEXT_VALUES = jnp.array([0.4, 9.0, 0.2, 8.0, 0.7, 7.0])
DISCOUNTS = jnp.array([1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
LAST = jnp.array([0.0, 1.0, 0.0, 1.0, 0.0, 0.0])


def test_n_step_returns_by_hand():
    found = losses.n_step_return(REWARDS, NEXT_VALUES, DISCOUNTS, LAST, 0.5, 2)
    time_out = 2.0 + 0.5 * 9.0
    tail = 6.0 + 0.5 * 7.0
    np.testing.assert_allclose(found, [1 + 0.5 * time_out, time_out, 3 + 0.5 * 4, 4, 5 + 0.5 * tail, tail])


def test_n_step_returns_at_the_ends_of_n():
    arguments = (REWARDS, NEXT_VALUES, DISCOUNTS, LAST, 0.5)
    np.testing.assert_allclose(
        losses.n_step_return(*arguments, 1), losses.td_target(REWARDS, DISCOUNTS, NEXT_VALUES, 0.5), rtol=1e-6
    )
    np.testing.assert_allclose(
        losses.n_step_return(*arguments, 10**9), losses.lambda_return(*arguments, 1.0), rtol=1e-6
    )
    with pytest.raises(ValueError, match="n is 0"):
        losses.n_step_return(*arguments, 0)


def test_gae_by_hand_bootstraps_through_the_time_out_and_cuts_there():
    found = losses.generalised_advantage_estimation(REWARDS, VALUES, NEXT_VALUES, DISCOUNTS, LAST, 0.5, 0.5)
    errors = [1 + 0.2 - 0.5, 2 + 4.5 - 0.4, 3 + 0.1 - 0.3, 4 - 0.2, 5 + 0.35 - 0.1, 6 + 3.5 - 0.7]
    expected = [
        errors[0] + 0.25 * errors[1],
        errors[1],
        errors[2] + 0.25 * errors[3],
        errors[3],
        errors[4] + 0.25 * errors[5],
        errors[5],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_lambda_return_is_value_plus_advantage(lam):
    returns = losses.lambda_return(REWARDS, NEXT_VALUES, DISCOUNTS, LAST, 0.9, lam)
    advantages = losses.generalised_advantage_estimation(REWARDS, VALUES, NEXT_VALUES, DISCOUNTS, LAST, 0.9, lam)
    np.testing.assert_allclose(returns, VALUES + advantages, rtol=1e-5)


def test_nothing_leaks_over_the_end_of_an_episode():
    changed = REWARDS.at[4:].set(1e6)
    for function in (
        lambda r: losses.n_step_return(r, NEXT_VALUES, DISCOUNTS, LAST, 0.9, 5),
        lambda r: losses.lambda_return(r, NEXT_VALUES, DISCOUNTS, LAST, 0.9, 0.9),
        lambda r: losses.generalised_advantage_estimation(r, VALUES, NEXT_VALUES, DISCOUNTS, LAST, 0.9, 0.9),
    ):
        np.testing.assert_array_equal(function(REWARDS)[:4], function(changed)[:4])

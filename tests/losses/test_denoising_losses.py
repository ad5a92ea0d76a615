"""Closed forms and traps of the losses of generative policies."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import losses


def test_infinite_errors_of_weight_zero_cost_nothing():
    error, weight = jnp.array([jnp.inf, 2.0]), jnp.array([0.0, 3.0])
    value, slope = jax.value_and_grad(lambda e: losses.weighted_denoising_loss(e, weight).sum())(error)
    assert value == 6.0
    np.testing.assert_array_equal(slope, [0.0, 3.0])


def test_diffusion_ql_does_not_depend_on_the_scale_of_rewards():
    error, q, other = jnp.zeros(2), jnp.array([1.0, 3.0]), jnp.array([-4.0, 4.0])
    np.testing.assert_allclose(losses.diffusion_ql_loss(error, q, other, 2.0), [-0.5, -1.5])
    np.testing.assert_allclose(losses.diffusion_ql_loss(error, 1e3 * q, 1e3 * other, 2.0), [-0.5, -1.5])


def test_distillation_teaches_the_student_alone_and_pulls_it_back_inside():
    action, target = jnp.array([[1.5, 0.0]]), jnp.array([[3.0, 0.5]])  # the teacher's 3 counts as 1
    by_action, by_target = jax.grad(lambda *x: losses.one_step_distillation_loss(*x).sum(), (0, 1))(action, target)
    np.testing.assert_allclose(losses.one_step_distillation_loss(action, target), [(0.25 + 0.25) / 2])
    np.testing.assert_allclose(by_action, [[0.5, -0.5]])
    np.testing.assert_array_equal(by_target, 0.0)


def test_fql_without_the_critic_distils_and_without_distillation_climbs_the_critic():
    error, action, target = jnp.array([0.25]), jnp.array([[0.5, 0.5]]), jnp.array([[0.0, 0.5]])
    assert losses.fql_actor_loss(error, action, target, jnp.array([7.0]), 2.0, 0.0) == 0.25 + 2 * 0.125
    assert losses.fql_actor_loss(error, action, target, jnp.array([7.0]), 0.0) == 0.25 - 7.0

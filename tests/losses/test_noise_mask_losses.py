"""Masks of noise that a policy learns: golden numbers, edges of the Beta density, and what the released form loses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses
from jaxrl_reg.losses.noise_mask import upsample

LOG_PROB, LOSS = jnp.array([[0.2, -0.5], [0.1, 0.3]]), jnp.array([1.2, 0.4])


def test_golden_numbers():
    density = losses.beta_log_prob(jnp.array([0.3, 0.9]), jnp.array([2.0, 0.5]), jnp.array([3.0, 0.5]))
    np.testing.assert_allclose(density, [0.567584, 0.059243], atol=1e-5)
    of_ours = losses.mask_policy_loss(jnp.array([[0.2], [-0.5]]), LOSS).mean()
    np.testing.assert_allclose(of_ours, 0.14, rtol=1e-5)
    np.testing.assert_allclose(losses.pooled_mask_loss(LOG_PROB, LOSS).mean(), 0.600530, atol=1e-5)


def test_only_the_probability_learns_and_from_its_own_example():
    def total(log_prob, loss, sign):
        return losses.mask_policy_loss(log_prob, loss, sign).mean()

    of_log_prob, of_loss = jax.jit(jax.grad(total, argnums=(0, 1)))(LOG_PROB, LOSS, 1.0)
    # Descending makes the mask of the larger loss less likely in all of its cells, and the other likelier.
    np.testing.assert_allclose(of_log_prob, [[0.2, 0.2], [-0.2, -0.2]], rtol=1e-6)
    np.testing.assert_array_equal(of_loss, [0.0, 0.0])
    adversarial = jax.grad(total)(LOG_PROB, LOSS, -1.0)
    np.testing.assert_array_equal(adversarial, -of_log_prob)
    np.testing.assert_array_equal(losses.mask_policy_loss(LOG_PROB, jnp.array([3.0, 3.0])), [0.0, 0.0])


def test_the_released_form_makes_every_mask_less_likely_the_likeliest_cell_most():
    gradient = jax.grad(lambda log_prob: losses.pooled_mask_loss(log_prob, LOSS).mean())(LOG_PROB)
    assert (gradient > 0).all()
    np.testing.assert_allclose(gradient.sum(-1), [0.4, 0.4], rtol=1e-6)  # the same for both, whatever their losses
    assert gradient[0, 0] > gradient[0, 1]


def test_masks_at_the_ends_have_a_finite_density_and_parameters_a_finite_score():
    ends = jnp.array([0.0, 1.0, 0.5])
    low = jnp.full(3, 0.5)
    value, scores = jax.value_and_grad(lambda a, b: losses.beta_log_prob(ends, a, b).sum(), argnums=(0, 1))(low, low)
    assert np.isfinite(value)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(
        losses.beta_log_prob(ends, low, low)[:2], losses.beta_log_prob(ends + 1e-9, low, low)[:2]
    )


def test_a_policy_finds_the_mask_that_helps_or_that_hurts():
    """One input, two cells; the model's loss is what the first cell hides, and the second does not matter."""

    @jax.jit
    def learnt(sign):
        def step(parameters, key):
            def loss(parameters):
                a, b = jnp.exp(jnp.clip(parameters, -2.0, 2.0))
                mask = jax.lax.stop_gradient(jax.random.beta(key, a, b, (64, 2)))
                log_prob = losses.beta_log_prob(mask, *(jnp.broadcast_to(part, (64, 2)) for part in (a, b)))
                return losses.mask_policy_loss(log_prob, jnp.square(1.0 - mask[:, 0]), sign).mean()

            return parameters - 0.5 * jax.grad(loss)(parameters), None

        parameters, _ = jax.lax.scan(step, jnp.zeros((2, 2)), jax.random.split(jax.random.key(0), 100))
        a, b = jnp.exp(parameters)
        return a / (a + b)

    helps, hurts = learnt(1.0), learnt(-1.0)
    assert helps[0] > 0.9
    assert hurts[0] < 0.1
    assert (abs(jnp.array([helps[1], hurts[1]]) - 0.5) < 0.2).all()


def test_blended_parameters_are_bounded_and_the_base_is_data():
    base, head = jnp.array([1.0, -1.0]), jnp.array([[10.0, 0.0], [100.0, 0.0]])
    np.testing.assert_allclose(losses.blend_parameters(base, head), np.exp([[1.9, -0.9], [2.0, -0.9]]), rtol=1e-6)
    gradients = jax.grad(lambda *parts: losses.blend_parameters(*parts).sum(), argnums=(0, 1))(base, head)
    np.testing.assert_array_equal(gradients[0], [0.0, 0.0])
    assert gradients[1][1, 0] == 0 < gradients[1][0, 0]


def test_a_grid_becomes_an_image():
    grid = jnp.array([[0.0, 1.0], [2.0, 3.0]])
    image = upsample(grid, 4)
    np.testing.assert_array_equal(image, np.kron(grid, np.ones((2, 2))))
    soft = upsample(jnp.stack([grid, jnp.full((2, 2), 0.5)]), 16, blur=2.0)
    assert soft.shape == (2, 16, 16)
    np.testing.assert_allclose(soft[1], 0.5, rtol=1e-5)  # a mirrored border darkens nothing
    assert 0 < float(soft[0, 0, 7]) < 0.5 < float(soft[0, 0, 8]) < 1
    with pytest.raises(ValueError, match="expected a mask"):
        upsample(jnp.ones((2, 3)), 4)

"""Adam with the bias corrections folded into two numbers is Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reg.transforms import adam


def run(optimiser, params, gradients):
    def step(carry, gradient):
        params, state = carry
        updates, state = optimiser.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), updates

    return jax.lax.scan(step, (params, optimiser.init(params)), gradients)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("settings", [{}, {"b1": 0.5, "b2": 0.9, "eps": 1e-3}])
def test_steps_and_state_are_those_of_optax(scale, settings):
    generator = np.random.default_rng(0)
    params = {"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)}
    gradients = jax.tree.map(lambda x: jnp.array(generator.normal(size=(200, *x.shape)) * scale, jnp.float32), params)
    (ours, our_state), our_updates = run(adam(3e-3, **settings), params, gradients)
    (theirs, their_state), their_updates = run(optax.adam(3e-3, **settings), params, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-8), our_updates, their_updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), ours, theirs)
    assert jax.tree.structure(our_state) == jax.tree.structure(their_state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), our_state, their_state)


def test_weight_decay_is_that_of_adamw():
    rng = np.random.default_rng(3)
    params, gradients = jnp.asarray(rng.normal(size=5), jnp.float32), jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    (ours, _), _ = run(adam(3e-2, weight_decay=jnp.float32(0.5)), params, gradients)
    (theirs, _), _ = run(optax.adamw(3e-2, weight_decay=0.5), params, gradients)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert np.abs(ours - run(adam(3e-2), params, gradients)[0][0]).max() > 1e-3


def test_against_the_paper_in_float64():
    gradients = np.random.default_rng(1).normal(size=(50, 7))
    (ours, _), _ = run(adam(0.1), jnp.zeros(7), jnp.array(gradients, jnp.float32))
    theta, m, v = np.zeros(7), np.zeros(7), np.zeros(7)
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta -= 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(ours, theta, rtol=1e-4, atol=1e-5)


def test_a_weight_without_gradient_stays():
    (params, _), updates = run(adam(1.0), jnp.ones(2), jnp.zeros((3, 2)))
    np.testing.assert_array_equal(params, jnp.ones(2))
    np.testing.assert_array_equal(updates, jnp.zeros((3, 2)))


def test_traces_and_maps_its_rate_and_keeps_dtypes():
    gradients = jnp.ones((5, 3), jnp.bfloat16)

    def final(rate):
        return run(adam(rate), jnp.zeros(3, jnp.bfloat16), gradients)[0][0]

    final = jax.jit(jax.vmap(final))(jnp.array([0.0, 0.125]))
    assert final.dtype == jnp.bfloat16
    np.testing.assert_allclose(final[0], 0.0)
    np.testing.assert_allclose(final[1].astype(jnp.float32), -0.625, rtol=0.02)

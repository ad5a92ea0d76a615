"""Test-time refinement on a parabola, whose iterates are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl_reg.transforms import refine

Z = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
GOAL = jnp.arange(3.0)


def distance(z):
    return jnp.square(z - GOAL).sum() / 2


def test_gradient_descent_on_a_parabola():
    found, values = jax.jit(lambda z: refine(distance, z, optax.sgd(0.1), 4))(Z)
    np.testing.assert_allclose(found - GOAL, 0.9**4 * (Z - GOAL), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values, distance(Z) * 0.81 ** jnp.arange(4), rtol=1e-5)
    np.testing.assert_array_equal(refine(distance, Z, optax.sgd(0.1), 0)[0], Z)


def test_latents_in_a_batch_move_as_if_alone():
    def run(z):
        return refine(distance, z, optax.adam(0.05), 3)[0]

    np.testing.assert_allclose(run(Z), jax.vmap(run)(Z), rtol=1e-6)
    # Clipping by a norm over all of them does not keep that.
    clipped = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1))
    together, alone = refine(distance, Z, clipped, 3)[0], jax.vmap(lambda z: refine(distance, z, clipped, 3)[0])(Z)
    assert not np.allclose(together, alone, atol=1e-4)


def test_refinement_can_be_learnt_through():
    def end(rate):
        return distance(refine(distance, Z, optax.sgd(rate), 2)[0])

    expected = distance(Z) * -4 * 0.9**3
    np.testing.assert_allclose(jax.grad(end)(0.1), expected, rtol=1e-4)

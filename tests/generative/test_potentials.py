"""Potentials whose equations hold exactly, and the one mistake that makes a wave look wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import generative as g
from jaxrl_reg import losses

RNG = np.random.default_rng(0)
Z, T = jnp.asarray(RNG.normal(size=(64, 5)), jnp.float32), jnp.asarray(RNG.uniform(0, 3, 64), jnp.float32)
WAVE = jnp.asarray([0.5, -1.0, 0.3, 0.8, -0.2])
SPEED = 1.3


def plane_wave(z, t):
    return jnp.sin(z @ WAVE - SPEED * jnp.linalg.norm(WAVE) * t)


def spreading(z, t):
    return jnp.square(z).sum(-1) / (2 * (1 + t))


def test_a_plane_wave_satisfies_the_wave_equation():
    found = jax.jit(lambda z, t: g.derivatives(plane_wave, z, t))(Z, T)
    assert losses.wave_loss(found.time_curvature, found.laplacian, SPEED).max() < 1e-6
    assert losses.wave_loss(found.time_curvature, found.laplacian, 1.2 * SPEED).mean() > 0.1
    np.testing.assert_allclose(
        found.gradient, jnp.cos(Z @ WAVE - SPEED * jnp.linalg.norm(WAVE) * T)[:, None] * WAVE, atol=1e-5
    )


def test_row_sums_of_the_hessian_are_not_the_laplacian():
    """What the released code differentiates: on the same exact wave it does not vanish, and its shape is refused."""

    def entries(z):
        return g.potential_gradient(plane_wave, z, T).sum()

    row_sums, true = jax.grad(entries)(Z), g.derivatives(plane_wave, Z, T)
    assert jnp.square(true.time_curvature[:, None] - SPEED**2 * row_sums).mean() > 0.1
    with pytest.raises(ValueError, match="laplacian"):
        losses.wave_loss(true.time_curvature, row_sums, SPEED)


def test_a_spreading_parabola_satisfies_the_hamilton_jacobi_equation():
    found = jax.jit(lambda z, t: g.derivatives(spreading, z, t))(Z, T)
    assert losses.hamilton_jacobi_loss(found.time_slope, found.gradient).max() < 1e-6
    np.testing.assert_allclose(found.laplacian, 5 / (1 + T), rtol=1e-5)
    np.testing.assert_allclose(found.time_curvature, jnp.square(Z).sum(-1) / (1 + T) ** 3, rtol=1e-4)


def test_the_estimated_laplacian_is_unbiased():
    estimate = jax.jit(jax.vmap(lambda key: g.derivatives(plane_wave, Z[:4], T[:4], key).laplacian))
    drawn = estimate(jax.random.split(jax.random.key(0), 4000))
    exact = g.derivatives(plane_wave, Z[:4], T[:4]).laplacian
    assert (jnp.abs(drawn.mean(0) - exact) < 4 * drawn.std(0) / 4000**0.5 + 1e-5).all()
    assert (drawn.std(0) > 0.01).any()


def test_traversal_follows_the_gradient_in_order_of_time_and_back():
    path = g.traverse(lambda z, t: t * jnp.square(z).sum(-1) / 2, Z, jnp.arange(3.0))  # z <- z (1 + t)
    np.testing.assert_allclose(path, [Z, Z, 2 * Z, 6 * Z], rtol=1e-6)
    sign = jnp.where(jnp.arange(64) % 2 == 0, 1.0, -1.0)
    ends = g.traverse(lambda z, t: z @ WAVE, Z, jnp.zeros(2), sign)[-1]
    np.testing.assert_allclose(ends, Z + 2 * sign[:, None] * WAVE, rtol=1e-5, atol=1e-6)


def test_jvp_energy_of_a_linear_map():
    matrix, direction = RNG.normal(size=(5, 7)), RNG.normal(size=(64, 5))
    found = g.jvp_energy(lambda z: z @ jnp.asarray(matrix, jnp.float32), Z, jnp.asarray(direction, jnp.float32))
    np.testing.assert_allclose(found, np.square(direction @ matrix).sum(-1), rtol=1e-4)

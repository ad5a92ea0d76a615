"""The autoencoder of levels: what it gives back, what lies between two levels, and arcs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.envs import maze
from jaxrl_reg.representation import level_vae
from tests.loops import levels_toy

COUNT = 6


@pytest.fixture(scope="module")
def mazes():
    """An autoencoder of six mazes, trained in one program, with what it makes of them."""
    levels = maze.make(4, 4, view=1, held_out=1).levels
    vae = level_vae.level_vae(levels, (32,), 6, beta=0.05)

    def made(key):
        data = levels.dataset(key, COUNT)
        params = level_vae.fit(vae, data, key, 250, 1e-2)
        mean, std = vae.encode(params, data)
        decode = jax.vmap(vae.decode, (None, 0, 0))
        codes = level_vae.between(mean, std, key, 64)
        new = decode(params, codes, jax.random.split(key, 64))
        losses = [vae.loss(p, data, key)[0] for p in (vae.init(key), params)]
        return data, decode(params, mean, jax.random.split(key, COUNT)), new, losses, jax.vmap(levels.describe)(new)

    return jax.device_get(jax.jit(made)(jax.random.key(0)))


def test_given_levels_come_back(mazes):
    data, back, _, (before, after), _ = mazes
    assert after < 0.3 * before
    assert (data.tiles == back.tiles).mean() > 0.95
    assert (data.goal == back.goal).mean() > 0.8


def test_levels_in_between_are_valid_and_not_all_given_ones(mazes):
    data, _, new, _, described = mazes
    assert (new.start != new.goal).all()
    rows = np.arange(len(new.start))
    assert (new.tiles[rows, new.start] == maze.FLOOR).all()
    assert (new.tiles[rows, new.goal] == maze.FLOOR).all()
    known = {level.tobytes() for level in data.tiles}
    assert any(level.tobytes() not in known for level in new.tiles)
    assert np.isfinite(described["alignment"]).all()


def test_numbers_are_drawn_with_the_decoders_noise_and_end_at_1():
    levels = levels_toy.make().levels
    vae = level_vae.level_vae(levels, (4,), 2)
    params = vae.init(jax.random.key(0))
    decode = jax.jit(jax.vmap(vae.decode, (None, None, 0)))
    drawn = np.asarray(
        decode({**params, "log_std": jnp.array([-9.0])}, jnp.zeros(2), jax.random.split(jax.random.key(1), 400))
    )
    assert abs(drawn.std() - np.exp(-2)) < 0.02  # no smaller, or a few levels are learnt by heart
    assert (abs(drawn) <= 1).all()


def test_arcs_are_those_worked_out_by_hand():
    first, second = jnp.array([1.0, 0, 0.5]), jnp.array([-0.2, 0.8, 0.3])
    arc = jax.jit(level_vae.polar_interpolation)
    np.testing.assert_allclose(arc(first, second, 0.25), [0.860066, 0.315953, 0.588010], rtol=1e-5)
    np.testing.assert_allclose(arc(first, second, 0.0), first, atol=1e-6)
    np.testing.assert_allclose(arc(first, second, 1.0), second, atol=1e-6)
    np.testing.assert_allclose(arc(first, 3.0 * first, 0.5), 2.0 * first, rtol=1e-6)  # a straight line
    np.testing.assert_allclose(arc(0.0 * first, second, 0.5), 0.5 * second, rtol=1e-6)

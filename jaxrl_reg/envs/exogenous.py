"""Grids seen through noise, and two processes that no video tells apart: what videos can teach, and what they cannot.

From videos alone an encoder may find whatever is predictable or lasts. Fresh noise is neither, so forward modelling and
temporal contrast see through it; noise that moves by its own dynamics is both, and then only actions tell what an agent
controls. ``twins`` makes that exact: two independent walks, of which actions move the first in one process and the
second in the other. Under uniform actions both give the same law of videos, so an encoder learnt from those is the same
for both; where it has room for one walk only, it is wrong in one of the two.

Source: Misra et al., 2024, Towards Principled Representation Learning from Videos for Reinforcement Learning.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import core, gridworld
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import Array, Env

NOISES = ("none", "iid", "exogenous")


def make(
    noise: str = "exogenous",
    side: int = 5,
    noise_dim: int = 16,
    std: float = 1.5,
    correlation: float = 0.98,
    observation_dim: int = 48,
    seed: int = 0,
    episode_length: int = 20,
) -> Env:
    """An empty grid of ``side x side`` cells, one-hot, mixed with noise into an observation by a random matrix.

    ``noise``: ``none``; ``iid``, normal with ``std``, fresh at every step; or ``exogenous``, of the same distribution
    at any one time but each value ``correlation`` times the last plus fresh noise. The matrix, drawn from ``seed``, is
    injective if ``observation_dim`` is at least cells plus ``noise_dim``, so the cell is always there to be read.
    Actions and ``inner`` as in ``gridworld``; nothing pays and nothing terminates.

    Raises ``UserError`` for an unknown noise, or an observation too small to hold cell and noise.
    """
    if noise not in NOISES:
        raise unknown("noise", noise, NOISES)
    cells = side * side
    if observation_dim < cells + noise_dim:
        raise UserError(f"exogenous: observation_dim={observation_dim} cannot hold {cells} cells, {noise_dim} noises")
    mix = jax.random.normal(jax.random.key(seed), (cells + noise_dim, observation_dim))
    scale = 0.0 if noise == "none" else std

    def first(key):
        return scale * jax.random.normal(key, (noise_dim,))

    def advance(value, key):
        fresh = first(key)
        return fresh if noise == "iid" else correlation * value + jnp.sqrt(1.0 - correlation**2) * fresh

    def emit(observation, value):
        return jnp.matmul(jnp.concatenate([observation, value]), mix, precision="highest")

    base = gridworld.make("\n".join(["." * side] * side), episode_length=episode_length)
    return core.with_noise(base, first, advance, emit)._replace(name="exogenous")


def twins(size: int = 4, controlled: int = 0) -> tuple[Array, Array, Array]:
    """Two walks on rings of ``size`` cells; actions stay, go up or down, and move the walk ``controlled`` (0 or 1).

    The other walk does one of the three at random. Returns ``(transition [S, 3, S], reward [S, 3], initial [S])`` for
    ``tabular.make``, with ``S = size^2`` and the state's number ``first * size + second``. Averaged over the actions
    the transitions are the same, to the last bit, whichever walk is controlled.

    Raises ``UserError`` for another walk, or rings of fewer than 3 cells.
    """
    if controlled not in (0, 1) or size < 3:
        raise UserError(f"twins: controlled={controlled} must be 0 or 1, and size={size} at least 3")
    transition = np.zeros((size**2, 3, size**2), np.float64)
    for first in range(size):
        for second in range(size):
            for action in range(3):
                for chance in range(3):
                    moves = (action, chance) if controlled == 0 else (chance, action)
                    following = ((first + moves[0] - 1) % size) * size + (second + moves[1] - 1) % size
                    transition[first * size + second, action, following] += 1 / 3
    initial = np.full(size**2, 1 / size**2)
    return jnp.asarray(transition, jnp.float32), jnp.zeros((size**2, 3)), jnp.asarray(initial, jnp.float32)

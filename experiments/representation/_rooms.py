"""Four rooms of 9 x 9 cells, a reward of 1 at the goal, and few transitions of it: what Q-learning is tried on.

Discount 0.95; transitions are drawn uniformly over cells and moves, so that many actions are never seen and a network
has to guess what they are worth. It sees (x, y, sin 3x, sin 3y, cos 3x, cos 3y) with x and y in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import losses, transforms
from jaxrl_reg.envs import gridworld

LAYOUT = """
....#....
....#....
.........
....#....
##.###.##
....#....
.........
....#....
....#...G
"""
GAMMA, ROWS = 0.95, 600
INPUTS, MOVES = 6, 4


class World(NamedTuple):
    """Tables of the grid: what is seen of a cell ``[S, 6]``, next cell and reward ``[S, 4]``, the goal, and Q*."""

    seen: jax.Array
    following: jax.Array
    reward: jax.Array
    goal: jax.Array
    values: jax.Array


def world() -> World:
    transition, reward, _, terminal, position = (np.asarray(x) for x in gridworld.matrices(LAYOUT))
    following, q = transition.argmax(-1), np.zeros(reward.shape)
    for _ in range(200):
        q = reward + GAMMA * (q.max(-1) * (1 - terminal))[following]
    waves = [np.sin(3 * position), np.cos(3 * position)]
    return World(*map(jnp.asarray, (np.concatenate([position, *waves], 1), following, reward, terminal, q)))


def drawn(key: jax.Array, place: World) -> tuple[jax.Array, jax.Array]:
    """Cells and moves of ``ROWS`` transitions."""
    cell_key, move_key = jax.random.split(key)
    floor = np.flatnonzero(1.0 - np.asarray(place.goal))
    return jax.random.choice(cell_key, floor, (ROWS,)), jax.random.randint(move_key, (ROWS,), 0, MOVES)


def widened(params: Any) -> Any:
    """First weights of ``mlp`` with kernels of variance 2 / inputs: with PyTorch's sixth of it nothing fails here."""
    return jax.tree_util.tree_map_with_path(lambda path, x: 6**0.5 * x if transforms.is_kernel(path, x) else x, params)


def judged(place: World, values: jax.Array) -> dict[str, jax.Array]:
    """``success``, the share of cells whose greedy path reaches the goal within 40 moves, and the ``rmse`` to Q*."""
    free = 1.0 - place.goal
    chosen = place.following[jnp.arange(len(free)), values.argmax(-1)]
    reached = jax.lax.fori_loop(0, 40, lambda _, at: chosen[at], jnp.arange(len(free)))
    error = jnp.square(values - place.values).mean(-1)
    return {
        "success": (place.goal[reached] * free).sum() / free.sum(),
        "rmse": jnp.sqrt((error * free).sum() / free.sum()),
    }


def read_off(place: World, features: jax.Array) -> dict[str, jax.Array]:
    """Rank and dormant units of the features ``[S, H]`` of all cells, and the product of consecutive ones."""
    product = (features[:, None] * features[place.following]).sum(-1)
    return {
        "srank": losses.srank(features),
        "dormant": losses.dormant_fraction(features),
        "product": jnp.abs(product).mean(),
    }


def of_arms(
    arms: dict[str, Callable[[jax.Array], dict[str, jax.Array]]],
    seeds: Any,
    say: Callable[[str], None],
    metric: str = "success",
) -> dict[str, list[float]]:
    """One ``metric`` of each arm ``key -> metrics``, seeds side by side; the means of all are said."""
    keys, values = jax.vmap(jax.random.key)(jnp.asarray(list(seeds))), {}
    for name, run in arms.items():
        found = jax.jit(jax.vmap(run))(keys)
        say(f"{name}: " + ", ".join(f"{one} {float(np.mean(each)):.3g}" for one, each in found.items()))
        values[name] = np.asarray(found[metric], float).tolist()
    return values

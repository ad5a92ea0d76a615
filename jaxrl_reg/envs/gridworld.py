"""Walls, slippery floors and one or more goals: a map as text becomes a tabular process."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import tabular
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Env

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left as (row, column)
LAYOUT = """
S....
.....
.....
.....
....G
"""


def make(
    layout: str = LAYOUT,
    slip: float = 0.0,
    step_reward: float = 0.0,
    observe: str = "one_hot",
    episode_length: int = 100,
) -> Env:
    """A grid with four moves; reaching a goal pays 1 and terminates, every other step pays ``step_reward``.

    ``layout`` is a text map: ``#`` wall, ``G`` goal, ``S`` start, ``.`` floor; episodes begin on a random ``S``, or on
    any floor if there is none. Moving into a wall or off the map stays put. With probability ``slip`` the move is
    replaced by one of the four at random. Actions are four components in [-1, 1] for up, right, down, left, the largest
    of which is taken. Observations are one-hot over the open cells, or with ``observe="position"`` the ``(x, y)`` of
    the cell's centre in [-1, 1], y up. ``inner`` is the number of the cell, int32, counted row by row without walls.

    Raises ``UserError`` for a map that is empty, ragged, without floor, or with another character.
    """
    transition, reward, initial, terminal, position = matrices(layout, slip, step_reward)
    if observe not in ("one_hot", "position"):
        raise UserError(f"gridworld: observe must be 'one_hot' or 'position', got {observe!r}")
    observations = position if observe == "position" else None
    return tabular.make(transition, reward, initial, terminal, observations, episode_length, name="gridworld")


def rows_of(layout: str, name: str = "gridworld") -> list[str]:
    """The rows of a text map, top first. Raises ``UserError``, which begins with ``name``, for a map that is empty,
    ragged, or with another character than ``# . S G``."""
    rows = layout.split()
    if not rows or len({len(row) for row in rows}) > 1:
        raise UserError(f"{name}: the layout needs rows of equal length")
    strange = sorted(set("".join(rows)) - set("#.SG"))
    if strange:
        raise UserError(f"{name}: unknown character {strange[0]!r} in the layout; known are # . S G")
    return rows


def matrices(
    layout: str = LAYOUT, slip: float = 0.0, step_reward: float = 0.0
) -> tuple[Array, Array, Array, Array, Array]:
    """``(transition [S, 4, S], reward [S, 4], initial [S], terminal [S], position [S, 2])`` for the exact solvers.

    A terminal state is absorbing and pays nothing, so the solvers agree with and without ``terminal``.
    """
    rows = rows_of(layout)
    if not 0 <= slip <= 1:
        raise UserError(f"gridworld: slip is a probability, got {slip}")
    cells = [(y, x) for y, row in enumerate(rows) for x, mark in enumerate(row) if mark != "#"]
    number = {cell: index for index, cell in enumerate(cells)}
    marks = np.array([rows[y][x] for y, x in cells])
    terminal = (marks == "G").astype(np.float32)
    start = marks == "S" if (marks == "S").any() else marks == "."
    if not start.any():
        raise UserError("gridworld: the layout has no floor to start from")

    moved = np.zeros((len(cells), len(MOVES), len(cells)), np.float32)
    for state, (y, x) in enumerate(cells):
        for action, (down, right) in enumerate(MOVES):
            following = state if terminal[state] else number.get((y + down, x + right), state)
            moved[state, action, following] = 1
    transition = (1 - slip) * moved + slip * moved.mean(1, keepdims=True)
    entering = transition @ terminal
    reward = (entering + (1 - entering) * step_reward) * (1 - terminal[:, None])
    height, width = len(rows), len(rows[0])
    position = np.array([((2 * x + 1) / width - 1, 1 - (2 * y + 1) / height) for y, x in cells])
    arrays = (transition, reward, start / start.sum(), terminal, position)
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)  # type: ignore[return-value]

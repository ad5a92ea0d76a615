"""A point that walks through rooms or a random maze: a continuous world with walls, without a physics engine."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import core, drawing
from jaxrl_reg.envs.gridworld import MOVES, rows_of
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import Array, Env, EnvState, Scene, Spec

LAYOUT = """
###########
#....#....#
#.G..#..G.#
#.........#
#....#....#
##.#####.##
#....#....#
#....#....#
#.S.......#
#....#....#
###########
"""
BLUR = 0.15  # of the point in a picture


class Walk(NamedTuple):
    """All that the future depends on, and what the way has cost so far."""

    position: Array  # [2] in (-1, 1)
    effort: Array  # scalar, the sum over the episode's steps of the mean squared action


def make(
    layout: str = LAYOUT,
    task: str = "goal_0",
    *,
    size: int = 5,
    seed: int = 0,
    loops: float = 0.1,
    speed: float = 0.1,
    radius: float = 0.1,
    episode_length: int = 100,
    observe: str = "position",
    pixels: int = 12,
) -> Env:
    """A point in the square (-1, 1)^2, moved by ``speed`` times the action (no longer than 1); never terminates.

    It goes along x first, then along y; a coordinate that would enter a wall stays, so the point slides along walls.
    Every episode begins at the middle of the map's first ``S``. The reward is 1 within ``radius`` of the task's goal,
    else 0; tasks are the map's ``G``, called ``goal_0``, ``goal_1`` and so on row by row.

    Args:
      layout: a text map as in ``gridworld`` (``#`` wall, ``.`` floor, ``S``, ``G``), stretched over the square, y up;
        or ``"random"``: a maze of ``size`` by ``size`` rooms from one corner to the opposite one.
      task: which goal pays.
      size: rooms on a side of a random maze, which has ``2 size + 1`` cells there.
      seed: of a random maze.
      loops: chance of each inner wall of a random maze to be opened afterwards, so that there are several ways.
      speed: of a step at most; less than a cell's sides, or it could jump over a wall.
      radius: of the goals.
      episode_length: steps until the time limit.
      observe: ``position`` ``[2]``, or ``picture``: ``pixels`` by ``pixels`` values of a blurred point.
      pixels: on a side of a picture.

    Raises:
      UserError: for a bad map, one without ``S`` or ``G``, a goal that cannot be reached, or a bad setting.
    """
    rows = rows_of(random_layout(size, seed, loops) if layout == "random" else layout, "rooms")
    start, goals = _checked(rows)
    names = tuple(f"goal_{number}" for number in range(len(goals)))
    if task not in names:
        raise unknown("rooms task", task, names)
    if observe not in ("position", "picture"):
        raise UserError(f"rooms: observe must be 'position' or 'picture', got {observe!r}")
    cell = 2.0 / max(len(rows), len(rows[0]))
    if not 0 < speed < cell:
        raise UserError(
            f"rooms: speed={speed} must be above 0 and below a cell's side, {cell:.3g}, or walls do not hold"
        )
    if not radius > 0 or pixels < 2:
        raise UserError(f"rooms: radius={radius} must be above 0, and pixels={pixels} at least 2")
    floor = jnp.array([[mark != "#" for mark in row] for row in rows])
    env = world(
        floor,
        jnp.array(_middle(rows, start)),
        jnp.array([_middle(rows, goal) for goal in goals]),
        names.index(task),
        speed=speed,
        radius=radius,
        pixels=pixels if observe == "picture" else 0,
    )
    return core.time_limit(env._replace(draw=_drawn(rows)), episode_length)


def world(
    floor: Array, start: Array, goals: Array, paying: int = 0, *, speed: float, radius: float, pixels: int = 0
) -> Env:
    """The world of ``make`` from arrays, which may be traced, without a time limit or checks: many mazes of one size
    are then members of one program. ``floor [H, W]`` bool, top row first, ``start [2]``, ``goals [K, 2]``; ``pixels``
    on a side of the picture that is seen, 0: the position.
    """
    names, (height, width) = tuple(f"goal_{number}" for number in range(len(goals))), floor.shape
    line = (jnp.arange(pixels) + 0.5) * 2.0 / max(pixels, 1) - 1.0
    grid = jnp.stack(jnp.meshgrid(line, line), -1).reshape(-1, 2)

    def free(x: Array, y: Array) -> Array:
        row, column = jnp.floor((1.0 - y) / 2.0 * height), jnp.floor((x + 1.0) / 2.0 * width)
        inside = (jnp.abs(x) < 1.0) & (jnp.abs(y) < 1.0)
        return inside & floor.at[row.astype(int), column.astype(int)].get(mode="clip")

    def seen(walk: Walk) -> Array:
        if not pixels:
            return walk.position
        return jnp.exp(-jnp.square(grid - walk.position).sum(-1) / (2.0 * BLUR**2))

    def reward(physics: Array, name: str) -> Array:
        if name not in names:
            raise unknown("rooms task", name, names)
        distance = jnp.linalg.norm(physics - goals[names.index(name)], axis=-1)
        return (distance < radius).astype(jnp.float32)

    def reset(key: Any) -> core.Outcome:
        walk = Walk(start, jnp.zeros(()))
        return core.Outcome(walk, seen(walk))

    def step(walk: Walk, action: Array, key: Any) -> core.Outcome:
        wanted = action * speed / jnp.maximum(jnp.linalg.norm(action), 1.0)
        x, y = walk.position
        x = jnp.where(free(x + wanted[0], y), x + wanted[0], x)
        y = jnp.where(free(x, y + wanted[1]), y + wanted[1], y)
        walk = Walk(jnp.stack([x, y]), walk.effort + jnp.square(action).mean())
        return core.Outcome(walk, seen(walk), reward(walk.position, names[paying]))

    return core.with_tasks(
        core.environment(reset, step, Spec(pixels**2 if pixels else 2, 2), "rooms"),
        names,
        physics=physics,
        inner=lambda vector: Walk(vector, jnp.zeros(())),
        observe=seen,
        reward=reward,
        place=lambda vector: vector,
        axes=("x", "y"),
        extent=((-1.0, 1.0), (-1.0, 1.0)),
    )


def physics(state: EnvState) -> Array:
    """``[..., 2]``, the positions of a single, wrapped or vectorised state."""
    return core.unwrap(state.inner).position


def maze(size: int, seed: int, loops: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random maze as the arrays that ``world`` takes: ``floor [H, W]``, ``start [2]``, ``goal [2]``."""
    rows = rows_of(random_layout(size, seed, loops), "rooms")
    start, goals = _checked(rows)
    floor = np.array([[mark != "#" for mark in row] for row in rows])
    return floor, np.float32(_middle(rows, start)), np.float32(_middle(rows, goals[0]))


def random_layout(size: int, seed: int, loops: float) -> str:
    """The text map of a maze of ``size`` by ``size`` rooms: a tree of corridors, drawn depth first, of whose remaining
    inner walls each is opened with probability ``loops``; ``S`` below on the left, ``G`` above on the right."""
    if size < 2 or not 0 <= loops <= 1:
        raise UserError(f"rooms: a random maze needs a size of at least 2 and loops in [0, 1], got {size} and {loops}")
    rng = np.random.default_rng(seed)
    marks = np.full((2 * size + 1, 2 * size + 1), "#")
    marks[1::2, 1::2] = "."
    visited, path = {(0, 0)}, [(0, 0)]
    while path:
        y, x = path[-1]
        ways = [(y + down, x + right) for down, right in MOVES]
        ways = [way for way in ways if min(way) >= 0 and max(way) < size and way not in visited]
        if not ways:
            path.pop()
            continue
        to = ways[rng.integers(len(ways))]
        marks[y + to[0] + 1, x + to[1] + 1] = "."
        visited.add(to)
        path.append(to)
    for y in range(1, 2 * size):
        for x in range(1 + y % 2, 2 * size, 2):
            if marks[y, x] == "#" and rng.uniform() < loops:
                marks[y, x] = "."
    marks[2 * size - 1, 1], marks[1, 2 * size - 1] = "S", "G"
    return "\n".join("".join(row) for row in marks)


def _checked(rows: list[str]) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """The cells of the first ``S`` and of all ``G``, as (row, column), each of which can be walked to."""
    found = {mark: [(y, x) for y, row in enumerate(rows) for x, m in enumerate(row) if m == mark] for mark in "SG"}
    for mark, cells in found.items():
        if not cells:
            raise UserError(f"rooms: the layout has no {mark}; S is where episodes begin, and every G a goal")
    reached, waiting = set(found["S"][:1]), found["S"][:1]
    while waiting:
        y, x = waiting.pop()
        for down, right in MOVES:
            cell = (y + down, x + right)
            inside = 0 <= cell[0] < len(rows) and 0 <= cell[1] < len(rows[0])
            if inside and rows[cell[0]][cell[1]] != "#" and cell not in reached:
                reached.add(cell)
                waiting.append(cell)
    for y, x in found["G"]:
        if (y, x) not in reached:
            raise UserError(f"rooms: there is no way from S to the goal in row {y + 1}, column {x + 1} of the layout")
    return found["S"][0], found["G"]


def _middle(rows: list[str], cell: tuple[int, int]) -> tuple[float, float]:
    return (2 * cell[1] + 1) / len(rows[0]) - 1.0, 1.0 - (2 * cell[0] + 1) / len(rows)


def _drawn(rows: list[str]):
    def draw(states: list[Any]) -> Scene:
        position = np.array([core.unwrap(state).position for state in states])
        cells = [(y, x) for y, row in enumerate(rows) for x, mark in enumerate(row) if mark in "#G"]
        still = np.array([[_middle(rows, cell)] * 2 for cell in cells])
        half = math.sqrt(1.0 / (len(rows) * len(rows[0])))
        radius = np.array([half if rows[y][x] == "#" else half / 3 for y, x in cells])
        return Scene(drawing.balls(position), np.array([0.03]), 0.1, still=still, still_radius=radius)

    return draw

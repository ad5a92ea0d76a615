"""Mazes as levels: a grid of walls with moss that grows towards the goal, seen through a small window.

Where the agent is and which way is north it is never told, and it has no memory: what carries over to a maze that it
has not seen is to follow the moss. The designer's generator does not know that moss means anything.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import core, drawing, levelled
from jaxrl_reg.envs.gridworld import MOVES
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Env, Key, Metrics, Scene, Spec

FLOOR, WALL, MOSS = 0, 1, 2
TILES = 3
MARKS = {".": FLOOR, "#": WALL, "m": MOSS, "S": FLOOR, "G": FLOOR}
HELD_OUT = 2**31 - 29  # the seed of the held-out levels; no member's, whose seeds begin at 0
CANDIDATES = 4  # levels drawn for one of the target distribution, of which the first that can be solved is taken
NEAR = 4  # the least path from start to goal there, where the maze has one
REACH = 1.7  # cells over which moss thins out
COLOURS = np.array([(242, 240, 233), (58, 62, 70), (126, 171, 93), (52, 110, 189), (214, 102, 53)], np.uint8)
PREFABS = """
S...... S#..... ...#... S..#..G ####### S.....# S..#... ..#.#..
....... .#.###. .S.#.G. ...#... #S...G# .####.# ##.#.#. S.....G
....... .#.#.#. ...#... ...#... ####### .#G.#.# ...#.#. ..#.#..
....... .#.#.#. ......m ......m ####### .##.#.# .###.#. #.#.#.#
....... .#.#.#. ...#... ...#... ####### ....#.# ...#.#. ..#.#..
....... .#.#.#. ...#... ...#... ####### .####.# ##.#.#. ..#.#..
......G ...#..G ...#... ...#... ####### ......# ......G ..#.#..
"""


class Maze(NamedTuple):
    """A level; cells are counted row by row, walls included."""

    tiles: Array  # [C] int8: 0 floor, 1 wall, 2 moss, which is floor to walk on
    start: Array  # int32
    goal: Array  # int32


class Physics(NamedTuple):
    """Where the agent is in which maze, and for how long it has been walking."""

    level: Maze
    cell: Array  # int32
    time: Array  # int32, steps taken


class Grid(NamedTuple):
    """Sizes, and the few things that are computed of a maze."""

    height: int
    width: int

    @property
    def cells(self) -> int:
        return self.height * self.width

    def distances(self, tiles: Array, goal: Array) -> Array:
        """``[C]`` int32: steps of the shortest path to the goal from every cell of ``tiles [C]``; ``C`` where there is
        none, and in walls. Exact: cells take one more than their nearest neighbour until nothing changes."""
        wall = (tiles == WALL).reshape(self.height, self.width)
        far = jnp.int32(self.cells)
        first = jnp.where((jnp.arange(self.cells) == goal).reshape(wall.shape) & ~wall, 0, far)

        def sweep(carry):
            distance, _ = carry
            around = jnp.pad(distance, 1, constant_values=self.cells)
            shifted = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
            nearest = functools.reduce(jnp.minimum, shifted)
            closer = jnp.where(wall, far, jnp.minimum(distance, jnp.minimum(nearest + 1, far)))
            return closer, (closer != distance).any()

        return jax.lax.while_loop(lambda carry: carry[1], sweep, (first, jnp.bool_(True)))[0].reshape(-1)

    def path(self, level: Maze) -> Array:
        """int32: steps from start to goal at best, ``C`` where there is no way."""
        return self.distances(level.tiles, level.goal)[level.start]


def make(height: int = 7, width: int = 7, view: int = 2, episode_length: int = 30, held_out: int = 128) -> Env:
    """Mazes of ``height`` by ``width`` cells: four moves, and a goal that pays ``1 - 0.9 t/T`` after ``t`` of at most
    ``T = episode_length`` steps and ends the episode (MiniGrid's formula); nothing else pays. Walls stay put.

    Observation ``[3 (2 view + 1)^2]``: walls, moss and the goal in the cells around the agent, not turned; outside
    counts as wall. Actions are four components in [-1, 1] for up, right, down, left, the largest of which is taken.

    Levels are :class:`Maze`. Those aimed at (``levels.dataset``; after CaveEscape of Garcin et al. 2024) have walls at
    a rate of 0.28, a start at least four steps from the goal and moss with probability ``0.95 exp(-d / 1.7)`` at ``d``
    steps from it, and can be solved. ``levels.sample``, the designer's, has walls at a rate between 0 and 0.56, moss
    anywhere at 0.12, start and goal anywhere, and is often unsolvable. ``levels.mutate`` sets a tile (in two of three
    cases) or moves the goal. ``levels.evaluation`` are ``held_out`` levels of the first kind and, from seven by seven
    cells, eight drawn by hand, ``prefab``. JaxUED's size is ``height=13, width=13, episode_length=250``.

    Raises ``UserError`` for a maze of fewer than three by three cells, and sizes below 1.
    """
    if min(height, width) < 3:
        raise UserError(f"maze: height={height} and width={width} must be at least 3")
    for label, number in (("view", view), ("episode_length", episode_length), ("held_out", held_out)):
        if number < 1:
            raise UserError(f"maze: {label}={number} must be at least 1")
    grid, side = Grid(height, width), 2 * view + 1
    down, right = jnp.array(MOVES).T

    def observe(physics):
        tiles = jnp.pad(physics.level.tiles.reshape(height, width), view, constant_values=WALL)
        goal = (jnp.arange(grid.cells) == physics.level.goal).reshape(height, width)
        at = physics.cell // width, physics.cell % width
        seen = jax.lax.dynamic_slice(tiles, at, (side, side))
        goal = jax.lax.dynamic_slice(jnp.pad(goal, view), at, (side, side))
        return jnp.stack([seen == WALL, seen == MOSS, goal]).astype(jnp.float32).ravel()

    def reset(key, level):
        physics = Physics(level, level.start, jnp.int32(0))
        return core.Outcome(physics, observe(physics))

    def step(physics, action, key):
        level, move = physics.level, jnp.argmax(action)
        y, x = physics.cell // width + down[move], physics.cell % width + right[move]
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        entered = jnp.where(inside, y * width + x, physics.cell)
        cell = jnp.where(level.tiles[entered] == WALL, physics.cell, entered)
        physics = Physics(level, cell, physics.time + 1)
        arrived = cell == level.goal
        reward = jnp.where(arrived, 1.0 - 0.9 * physics.time / episode_length, 0.0)
        return core.Outcome(physics, observe(physics), reward, arrived)

    env = levelled.with_levels(
        functools.partial(designed, grid),
        reset,
        step,
        Spec(3 * side**2, 4, discrete=True),
        "maze",
        of=lambda physics: physics.level,
        mutate=functools.partial(mutated, grid),
        parts=lambda level: {
            "tiles": level.tiles.astype(jnp.int32),
            "start": level.start[None],
            "goal": level.goal[None],
        },
        join=functools.partial(joined, grid),
        categories={"tiles": TILES, "start": grid.cells, "goal": grid.cells},
        describe=functools.partial(described, grid),
        dataset=lambda key, count: jax.vmap(functools.partial(target, grid))(jax.random.split(key, count)),
        evaluation=_evaluation(grid, held_out),
        picture=functools.partial(picture, grid),
        draw=functools.partial(_scene, grid),
    )
    return core.time_limit(env, episode_length)


def designed(grid: Grid, key: Key) -> Maze:
    """A level of the designer's, who does not know what is aimed at."""
    rate_key, wall_key, moss_key, start_key, goal_key = jax.random.split(key, 5)
    cells = (grid.cells,)
    wall = jax.random.uniform(wall_key, cells) < jax.random.uniform(rate_key, maxval=0.56)
    tiles = jnp.where(wall, WALL, jnp.where(jax.random.uniform(moss_key, cells) < 0.12, MOSS, FLOOR))
    start = jax.random.randint(start_key, (), 0, grid.cells)
    goal = (start + jax.random.randint(goal_key, (), 1, grid.cells)) % grid.cells
    return _with_ends(grid, tiles, start, goal)


def target(grid: Grid, key: Key) -> Maze:
    """A level of the distribution that is aimed at, which can be solved: the first such of a few."""

    def one(key):
        wall_key, goal_key, start_key, moss_key = jax.random.split(key, 4)
        wall = jax.random.uniform(wall_key, (grid.cells,)) < 0.28
        goal = jax.random.categorical(goal_key, jnp.where(wall, -jnp.inf, 0.0)).astype(jnp.int32)
        distance = grid.distances(jnp.where(wall, WALL, FLOOR), goal)
        reached = (distance > 0) & (distance < grid.cells)
        wanted = reached & (distance >= NEAR)
        wanted = jnp.where(wanted.any(), wanted, jnp.where(reached.any(), reached, jnp.arange(grid.cells) != goal))
        start = jax.random.categorical(start_key, jnp.where(wanted, 0.0, -jnp.inf)).astype(jnp.int32)
        grows = jax.random.uniform(moss_key, (grid.cells,)) < 0.95 * jnp.exp(-distance / REACH)
        tiles = jnp.where(wall, WALL, jnp.where(grows & (distance < grid.cells), MOSS, FLOOR))
        return _with_ends(grid, tiles, start, goal), reached.any()

    drawn, solvable = jax.vmap(one)(jax.random.split(key, CANDIDATES))
    return jax.tree.map(lambda leaf: leaf[jnp.argmax(solvable)], drawn)


def mutated(grid: Grid, key: Key, level: Maze, edits: int) -> Maze:
    """``level`` after ``edits`` changes, each at a cell drawn at random: its tile (two of three), or the goal there.
    Start and goal keep their floor, and the goal never comes onto the start."""

    def edit(level, key):
        cell_key, what_key, tile_key = jax.random.split(key, 3)
        cell = jax.random.randint(cell_key, (), 0, grid.cells)
        moves = jax.random.uniform(what_key) < 1 / 3
        free = (cell != level.start) & (cell != level.goal)
        tile = jnp.where(moves, FLOOR, jax.random.randint(tile_key, (), 0, TILES)).astype(jnp.int8)
        tiles = jnp.where(free & (jnp.arange(grid.cells) == cell), tile, level.tiles)
        return Maze(tiles, level.start, jnp.where(moves & free, cell, level.goal)), None

    return jax.lax.scan(edit, level, jax.random.split(key, edits))[0]


def joined(grid: Grid, parts: dict[str, Array]) -> Maze:
    """A valid level of any ``parts``: floor under both ends, and a start on the goal goes to the next floor."""
    tiles, start, goal = parts["tiles"], parts["start"][0], parts["goal"][0]
    after = (goal + 1 + jnp.arange(grid.cells - 1)) % grid.cells  # every other cell, in order
    free = after[jnp.argmax(tiles[after] != WALL)]
    return _with_ends(grid, tiles, jnp.where(start == goal, free, start), goal)


def described(grid: Grid, level: Maze) -> Metrics:
    """``walls`` and ``moss``, numbers of cells; ``solvable``; ``path``, steps at best and 0 where unsolvable; and
    ``alignment``, the correlation over reachable cells of moss with ``exp(-d / 1.7)``, 0 where there is none."""
    distance = grid.distances(level.tiles, level.goal)
    path = distance[level.start]
    solvable = path < grid.cells
    mass = ((distance < grid.cells) & (distance > 0)).astype(jnp.float32)
    mass = mass / jnp.maximum(mass.sum(), 1.0)
    x, y = (level.tiles == MOSS).astype(jnp.float32), jnp.exp(-distance / REACH)
    x, y = x - mass @ x, y - mass @ y
    spread = jnp.sqrt((mass @ x**2) * (mass @ y**2))
    return {
        "walls": (level.tiles == WALL).sum().astype(jnp.float32),
        "moss": (level.tiles == MOSS).sum().astype(jnp.float32),
        "solvable": solvable.astype(jnp.float32),
        "path": jnp.where(solvable, path, 0).astype(jnp.float32),
        "alignment": (mass @ (x * y)) / jnp.where(spread > 1e-6, spread, jnp.inf),
    }


def picture(grid: Grid, level: Any) -> np.ndarray:
    """``uint8 [height, width, 3]``: floor, wall, moss, start (blue) and goal (orange)."""
    shown = np.array(level.tiles)
    shown[[int(level.start), int(level.goal)]] = (3, 4)
    return COLOURS[shown].reshape(grid.height, grid.width, 3)


def _with_ends(grid: Grid, tiles: Array, start: Array, goal: Array) -> Maze:
    cells = jnp.arange(grid.cells)
    tiles = jnp.where((cells == start) | (cells == goal), FLOOR, tiles)
    return Maze(tiles.astype(jnp.int8), jnp.asarray(start, jnp.int32), jnp.asarray(goal, jnp.int32))


@functools.cache
def _evaluation(grid: Grid, count: int) -> dict[str, Maze]:
    """Held-out levels of the target distribution, and those drawn by hand with moss within two steps of the goal."""
    draw = jax.jit(jax.vmap(functools.partial(target, grid)))
    sets = {"held_out": jax.device_get(draw(jax.random.split(jax.random.key(HELD_OUT), count)))}
    if min(grid.height, grid.width) < 7:
        return sets
    tiles, ends = [], []
    for block in zip(*(line.split() for line in PREFABS.split("\n") if line), strict=True):
        board = np.full((grid.height, grid.width), WALL, np.int8)
        marks = np.array([list(row) for row in block])
        board[:7, :7] = np.vectorize(MARKS.get)(marks)
        (y, x), (v, u) = (np.argwhere(marks == mark)[0] for mark in "SG")
        tiles.append(board.ravel())
        ends.append((y * grid.width + x, v * grid.width + u))
    start, goal = np.array(ends, np.int32).T
    distance = np.asarray(jax.jit(jax.vmap(grid.distances))(np.stack(tiles), goal))
    grown = np.where(
        (distance > 0) & (distance <= 2) & (np.arange(grid.cells) != start[:, None]), MOSS, np.stack(tiles)
    )
    return {**sets, "prefab": Maze(grown.astype(np.int8), start, goal)}


def _scene(grid: Grid, states: list) -> Scene:
    """The agent as a ball; walls are large balls that stand still, moss small ones, the goal one in between."""
    physics = [core.unwrap(state) for state in states]
    level = physics[0].level
    cells = np.arange(grid.cells)
    place = np.stack([cells % grid.width, -(cells // grid.width)], axis=1).astype(float)
    tiles = np.asarray(level.tiles)
    shown = [(place[tiles == WALL], 0.5), (place[tiles == MOSS], 0.12), (place[[int(level.goal)]], 0.4)]
    still = np.repeat(np.concatenate([where for where, _ in shown])[:, None], 2, axis=1)
    radius = np.concatenate([np.full(len(where), size) for where, size in shown])
    agent = place[[int(one.cell) for one in physics]]
    return Scene(drawing.balls(agent), np.array([0.3]), 0.2, False, still, radius)

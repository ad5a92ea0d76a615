"""Repertoires: stores of fixed size for solutions, how new an outcome is, who is on a Pareto front, a grid of elites.

A solution is a genome (the weights of a policy), an outcome (what its episode looked like at the end) and a fitness.
Shapes: ``N`` slots or ``C`` cells, ``B`` rows offered, ``G`` numbers of a genome, ``D`` of an outcome. Everything is a
pure function of arrays, for use under ``jit``, ``vmap`` and ``scan``.

Sources: Lehman, Stanley, 2011, Abandoning Objectives (novelty); Mouret, Clune, 2015, Illuminating Search Spaces (elites
in a grid, coverage, QD score). Deviations: novelty over the neighbours that there are where they are fewer; of equals
in one cell the first stays.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.types import Array, PyTree


class Repertoire(NamedTuple):
    """Solutions in slots, of which the first ``size`` hold one. A batch of rows ``[B]`` is a full one."""

    genome: Array  # [N, G]
    outcome: Array  # [N, D]
    fitness: Array  # [N]
    extras: dict[str, Array]  # [N, ...]
    size: Array  # scalar int32


def rows(genome: Array, outcome: Array, fitness: Array, extras: dict[str, Array] | None = None) -> Repertoire:
    """A repertoire that is full, as batches are: ``[B, G]``, ``[B, D]``, ``[B]``."""
    return Repertoire(genome, outcome, fitness, extras or {}, jnp.int32(len(fitness)))


def empty(row: Repertoire, capacity: int) -> Repertoire:
    """``capacity`` slots for rows like those of ``row``, of which only shapes and types count."""

    def slots(leaf: Array) -> Array:
        return jnp.zeros((capacity, *leaf.shape[1:]), leaf.dtype)

    return jax.tree.map(slots, row._replace(size=None))._replace(size=jnp.int32(0))


def filled(repertoire: Repertoire) -> Array:
    """``[N]`` bool, which slots hold a solution."""
    return jnp.arange(repertoire.fitness.shape[0]) < repertoire.size


def take(repertoire: Repertoire, index: Array) -> Repertoire:
    """The rows ``index [B]``, as a full repertoire."""
    taken = jax.tree.map(lambda leaf: leaf[index], repertoire._replace(size=None))
    return taken._replace(size=jnp.int32(len(index)))


def append(repertoire: Repertoire, offered: Repertoire, mask: Array) -> Repertoire:
    """With those rows of ``offered`` where ``mask [B]``, in order; what finds no free slot is dropped."""
    capacity, mask = repertoire.fitness.shape[0], mask.astype(bool)
    # A cumulative sum gives every row a slot of its own: the outcome of writes to one slot is undefined.
    slot = jnp.where(mask, repertoire.size + jnp.cumsum(mask) - 1, capacity)

    def write(old: Array, new: Array) -> Array:
        return old.at[slot].set(new, mode="drop")

    written = jax.tree.map(write, repertoire._replace(size=None), offered._replace(size=None))
    return written._replace(size=jnp.minimum(repertoire.size + mask.sum(), capacity).astype(jnp.int32))


def keep_best(repertoire: Repertoire, offered: Repertoire, mask: Array) -> Repertoire:
    """As ``append`` while there is room; where there is not, the fittest stay, and of equals those that came first."""
    capacity = repertoire.fitness.shape[0]
    both = jax.tree.map(
        lambda old, new: jnp.concatenate([old, new]), repertoire._replace(size=None), offered._replace(size=None)
    )
    there = jnp.concatenate([filled(repertoire), mask.astype(bool)])
    order = jnp.argsort(jnp.where(there, -both.fitness, jnp.inf), stable=True)[:capacity]
    best = jax.tree.map(lambda leaf: leaf[order], both)
    return best._replace(size=jnp.minimum(there.sum(), capacity).astype(jnp.int32))


def novelty(outcome: Array, reference: Array, filled: Array, neighbours: int = 15) -> Array:
    """``[B]``: mean Euclidean distance of ``outcome [B, D]`` to its ``neighbours`` nearest of ``reference [R, D]``.

    Of the rows that are ``filled [R]`` only, and after the nearest of all was dropped: it is the row itself or its
    twin. Where there are fewer the mean is over those, and 0 where there is none.
    """
    # Differences first: expanding the square loses all digits of outcomes close to each other.
    distance = jnp.linalg.norm(outcome[:, None] - reference, axis=-1)
    count = min(neighbours + 1, reference.shape[0])
    nearest = -jax.lax.top_k(jnp.where(filled, -distance, -jnp.inf), count)[0][:, 1:]
    there = jnp.isfinite(nearest)
    return jnp.where(there, nearest, 0.0).sum(-1) / jnp.maximum(there.sum(-1), 1)


def pareto_front(values: Array, filled: Array) -> Array:
    """``[B]`` bool: the rows of ``values [B, M]`` that no filled row dominates, more being better; equal rows do not
    dominate each other, and a row that is not ``filled [B]`` is on no front."""
    at_least = (values[None] >= values[:, None]).all(-1)  # [B, B], whether the second is at least the first
    better = (values[None] > values[:, None]).any(-1)
    return filled & ~(at_least & better & filled).any(-1)


class Elites(NamedTuple):
    """The fittest solution of every cell of a grid over two coordinates; cells row by row, the first coordinate's."""

    genome: Array  # [C, G]
    fitness: Array  # [C]
    filled: Array  # [C] bool; an empty cell's fitness is 0, so that all numbers of a state are finite


def grid(genome_size: int, side: int) -> Elites:
    """An empty grid of ``side`` by ``side`` cells."""
    return Elites(jnp.zeros((side**2, genome_size)), jnp.zeros(side**2), jnp.zeros(side**2, bool))


def insert(elites: Elites, genome: Array, fitness: Array, place: Array, extent: PyTree, mask: Array) -> Elites:
    """With the rows ``genome [B, G]``, ``fitness [B]``, ``place [B, 2]`` where ``mask [B]``: in each cell the fittest
    of those there and those that come, of equals who was there, then the lowest index. ``extent`` is ((low, high),
    (low, high)) of the two coordinates; what lies outside is left out."""
    cells = elites.fitness.shape[0]
    side, bounds = round(cells**0.5), jnp.asarray(extent, jnp.float32)
    share = (place - bounds[:, 0]) / (bounds[:, 1] - bounds[:, 0])
    inside = ((share >= 0) & (share <= 1)).all(-1)
    index = jnp.clip(jnp.floor(share * side), 0, side - 1).astype(jnp.int32)
    cell = index[:, 0] * side + index[:, 1]
    offered = mask.astype(bool) & inside & (~elites.filled[cell] | (fitness > elites.fitness[cell]))
    fittest = jnp.full(cells, -jnp.inf).at[jnp.where(offered, cell, cells)].max(fitness, mode="drop")
    winner = offered & (fitness == fittest[cell])
    rank = jnp.arange(len(fitness), dtype=jnp.int32)
    first = jnp.full(cells, len(fitness), jnp.int32).at[jnp.where(winner, cell, cells)].min(rank, mode="drop")
    # Two writes to one cell would be undefined: of the fittest only the first one writes.
    slot = jnp.where(winner & (first[cell] == rank), cell, cells)
    return Elites(
        elites.genome.at[slot].set(genome, mode="drop"),
        elites.fitness.at[slot].set(fitness, mode="drop"),
        elites.filled.at[slot].set(True, mode="drop"),
    )


def coverage(elites: Elites) -> Array:
    """Share of the cells that hold a solution."""
    return elites.filled.mean(dtype=jnp.float32)


def qd_score(elites: Elites, offset: float | Array = 0.0) -> Array:
    """Sum of the elites' fitness above ``offset``, the least possible fitness."""
    return jnp.where(elites.filled, elites.fitness - offset, 0.0).sum()


def best(elites: Elites) -> Array:
    """The highest fitness; -inf where there is no solution."""
    return jnp.where(elites.filled, elites.fitness, -jnp.inf).max()

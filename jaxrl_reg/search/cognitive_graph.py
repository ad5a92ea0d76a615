"""A graph of places known and guessed, which planning uses and every attempt changes: search without gradients.

Vertices are places in a harmonic code; those that were stood on are seen, the others hypotheses. Every pair of vertices
is joined by the hypothesis that one can go straight there, whose weight falls with the distance; what was walked weighs
more. Activation spreads from the goal, so the path of the largest product of weights is tried first, known ways before
guessed ones and few guesses before many. A failure weakens what was tried and all that resembles it, and makes new
hypotheses in a fixed order of directions and lengths: nothing is preferred for ever.

Shapes: ``N`` slots of vertices. Everything is a pure function of arrays of fixed size, for use under ``jit``, ``vmap``
and ``scan``; nothing is differentiable.

Source: Baranski, Tani, 2024, Life, uh, Finds a Way: Systematic Neural Search. Deviations: built from the abstract; the
equations are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.search import harmonics
from jaxrl_reg.types import Array, pytree, setting

GOAL = 1  # the slot of the goal; the start has slot 0
GOLDEN_ANGLE = 2.399963  # radians: no direction comes twice


@pytree
class Hyper:
    """Settings that can be swept; lengths are in units of the place."""

    known: float = setting(default=0.99, help="weight of a known edge of no length")
    guessed: float = setting(default=0.5, help="weight of a guessed edge of no length")
    length: float = setting(default=1.0, help="length along which weights fall by a factor e")
    left: float = setting(
        default=0.1, help="share of its weight that an edge keeps after a failure; 1: failures do not weaken"
    )
    here: float = setting(default=0.12, help="width of 'from about here', of what a failure weakens")
    near: float = setting(default=0.15, help="width of the memory of failures")
    avoidance: float = setting(default=1.0, help="exponent of that memory; 0: none")
    same: float = setting(default=0.08, help="nearer places are one vertex")
    reach: float = setting(default=0.3, help="length of the longest new guess")
    extent: float = setting(default=1.0, help="guesses stay within so much of the origin, along each axis")


USUAL = Hyper()


class Graph(NamedTuple):
    """The state of a search."""

    code: Array  # [N, S, 3, 2]
    weight: Array  # [N, N] in [0, 1]
    experienced: Array  # [N, N] bool: walked
    alive: Array  # [N] bool: the slot holds a vertex
    seen: Array  # [N] bool: it was stood on
    missed: Array  # [N] float32, failed attempts to reach it
    hits: Array  # [N] float32, failures suffered there
    birth: Array  # [N] int32
    clock: Array  # scalar int32, vertices made so far
    guesses: Array  # scalar int32, guesses made so far: the place in the order of directions


def places(graph: Graph) -> Array:
    """``[N, 2]``, where the vertices are, from their codes; of an empty slot, anything."""
    return harmonics.displacement(harmonics.encode(jnp.zeros(2)), graph.code)


def fresh(start: Array, goal: Array, capacity: int, hyper: Hyper = USUAL) -> Graph:
    """The graph of somebody who knows where they are and where they want to be: two vertices and one hypothesis.

    ``start`` and ``goal`` are places ``[2]``, ``capacity`` at least 2 slots.
    """
    code = jnp.zeros((capacity, *harmonics.encode(jnp.zeros(2)).shape))
    square, none = jnp.zeros((capacity, capacity)), jnp.zeros(capacity)
    empty, zero = none > 0, jnp.zeros((), jnp.int32)
    graph = Graph(code, square, square > 0, empty, empty, none, none, jnp.zeros(capacity, jnp.int32), zero, zero)
    return add(add(graph, harmonics.encode(start), True, hyper), harmonics.encode(goal), False, hyper)


def continued(graph: Graph, start: Array, goal: Array, hyper: Hyper = USUAL) -> tuple[Graph, Array]:
    """A graph from an earlier search, for a new ``start [2]`` and ``goal [2]``; and the vertex that is stood on, int32.

    Known ways are kept, and what was the goal stays as any other vertex. The start is the nearest seen vertex, if it is
    about there, else a new one.
    """
    elsewhere = jnp.linalg.norm(places(graph)[GOAL] - goal) > hyper.same
    grown = add(graph, harmonics.encode(goal), False, hyper)
    slot = jnp.argmax(jnp.where(grown.alive, grown.birth, -1))  # the new goal's, which it changes with the old one
    swapped = jnp.arange(len(graph.alive)).at[slot].set(GOAL).at[GOAL].set(slot)
    square = {name: getattr(grown, name)[swapped][:, swapped] for name in ("weight", "experienced")}
    line = {name: getattr(grown, name)[swapped] for name in ("code", "alive", "seen", "missed", "hits", "birth")}
    changed = elsewhere & (grown.clock > graph.clock)
    graph = jax.tree.map(lambda new, old: jnp.where(changed, new, old), grown._replace(**square, **line), graph)
    return stood_on(graph, harmonics.encode(start), hyper)


def stood_on(graph: Graph, code: Array, hyper: Hyper = USUAL) -> tuple[Graph, Array]:
    """The seen vertex nearest to ``code [S, 3, 2]``, int32, if it is about there, else a new one if there is room."""
    distance = jnp.linalg.norm(harmonics.displacement(code, graph.code), axis=-1)
    distance = jnp.where(graph.alive & graph.seen, distance, jnp.inf)
    nearest = jnp.argmin(distance)
    grown = add(graph, code, True, hyper)
    added = (distance[nearest] > hyper.same) & (grown.clock > graph.clock)
    graph = jax.tree.map(lambda new, old: jnp.where(added, new, old), grown, graph)
    return graph, jnp.where(added, jnp.argmax(jnp.where(graph.alive, graph.birth, -1)), nearest)


def add(graph: Graph, code: Array, seen: Array | bool, hyper: Hyper = USUAL) -> Graph:
    """With another vertex, in the first empty slot or else in that of the oldest guess, which is forgotten.

    Where every vertex has been seen or is the goal, the graph stays as it is. ``code [S, 3, 2]``.
    """
    slots = jnp.arange(len(graph.alive))
    guess = graph.alive & ~graph.seen & (slots != GOAL)
    oldest = jnp.argmin(jnp.where(guess, graph.birth, jnp.iinfo(jnp.int32).max))
    slot = jnp.where(graph.alive.all(), oldest, jnp.argmin(graph.alive))
    way = harmonics.displacement(code, graph.code)
    hypothesis = hyper.guessed * jnp.exp(-jnp.linalg.norm(way, axis=-1) / hyper.length)
    row = jnp.where(graph.alive & (slots != slot), hypothesis, 0.0)
    changed = Graph(
        code=graph.code.at[slot].set(code),
        weight=graph.weight.at[slot].set(row).at[:, slot].set(row),
        experienced=graph.experienced.at[slot].set(False).at[:, slot].set(False),
        alive=graph.alive.at[slot].set(True),
        seen=graph.seen.at[slot].set(seen),
        missed=graph.missed.at[slot].set(0.0),
        hits=graph.hits.at[slot].set(0.0),
        birth=graph.birth.at[slot].set(graph.clock),
        clock=graph.clock + 1,
        guesses=graph.guesses,
    )
    possible = ~graph.alive.all() | guess.any()
    return jax.tree.map(lambda new, old: jnp.where(possible, new, old), changed, graph)


def spread(weights: Array, goal: Array | int) -> Array:
    """Activation ``[N]`` from ``goal``: the largest product of ``weights [N, N]`` along a path there, 1 at the goal."""

    def body(carry):
        count, activation, _ = carry
        reached = jnp.maximum(activation, (weights * activation).max(-1))
        return count + 1, reached, (reached > activation).any()

    start = (0, jax.nn.one_hot(goal, len(weights), dtype=weights.dtype), jnp.asarray(True))
    return jax.lax.while_loop(lambda carry: carry[2] & (carry[0] < len(weights)), body, start)[1]


def preferences(graph: Graph, hyper: Hyper = USUAL) -> Array:
    """The weights ``[N, N]`` that planning uses: guesses about places near which much failed count less."""
    where = places(graph)
    squared = jnp.square(where[:, None] - where).sum(-1)
    failures = (jnp.exp(-squared / (2.0 * hyper.near**2)) * graph.hits * graph.alive).sum(-1)
    return jnp.where(graph.experienced, graph.weight, graph.weight * (1.0 + failures[:, None]) ** -hyper.avoidance)


def choose(graph: Graph, current: Array, hyper: Hyper = USUAL) -> Array:
    """The next vertex to go to from the vertex ``current``, int32: the first on the path of largest activation; the
    first of equals, also where no path is left."""
    weights = preferences(graph, hyper)
    promise = weights[current] * spread(weights, GOAL)
    others = graph.alive & (jnp.arange(len(promise)) != current)
    return jnp.argmax(jnp.where(others, promise, -1.0))


def mutate(
    graph: Graph, left: Array, target: Array, code: Array, reached: Array, hyper: Hyper = USUAL
) -> tuple[Graph, Array]:
    """What an attempt to go from the vertex ``left`` to the vertex ``target`` leaves behind, and the vertex stood on.

    That is the target where ``reached``, else the nearest seen vertex if ``code [S, 3, 2]`` is about there, else a new
    one. The way there is known from now on. A failure weakens every guess that starts about there in the direction of
    the target, drops the target if nobody has ever been there, and makes five new guesses.
    """
    other, stood = stood_on(graph, code, hyper)
    graph = jax.tree.map(lambda kept, new: jnp.where(reached, kept, new), graph, other)
    here = jnp.where(reached, target, stood)
    graph = graph._replace(seen=graph.seen.at[here].set(True))

    length = jnp.linalg.norm(harmonics.displacement(graph.code[left], graph.code[here]))
    known = jnp.maximum(graph.weight[left, here], hyper.known * jnp.exp(-length / hyper.length))
    walked = graph._replace(
        weight=graph.weight.at[left, here].set(known).at[here, left].set(known),
        experienced=graph.experienced.at[left, here].set(True).at[here, left].set(True),
    )
    graph = jax.tree.map(lambda new, old: jnp.where(here != left, new, old), walked, graph)
    failed = _weakened(graph, left, target, here, hyper)
    return jax.tree.map(lambda new, old: jnp.where(reached, old, new), failed, graph), here


def _weakened(graph: Graph, left: Array, target: Array, here: Array, hyper: Hyper) -> Graph:
    way = harmonics.displacement(graph.code[here], graph.code)  # [N, 2]
    size = jnp.linalg.norm(way, axis=-1)
    cosine = (way @ way[target]) / jnp.maximum(size * size[target], 1e-6)
    before = jnp.exp(-jnp.square(size) / (2.0 * hyper.here**2))
    alike = before[:, None] * jnp.maximum(cosine, 0.0) ** 4
    kept = 1.0 - (1.0 - hyper.left) * alike
    weight = jnp.where(graph.experienced, graph.weight, graph.weight * kept * kept.T)
    weight = weight.at[left, target].multiply(hyper.left).at[target, left].multiply(hyper.left)
    forgotten = ~graph.seen[target] & (target != GOAL)
    graph = graph._replace(
        weight=weight,
        hits=graph.hits.at[here].add(1.0),
        missed=graph.missed.at[target].add(1.0),
        alive=graph.alive.at[target].set(~forgotten),
    )
    gone = ~graph.alive
    graph = graph._replace(weight=jnp.where(gone | gone[:, None], 0.0, graph.weight))
    centre = places(graph)[here]

    def grow(index, graph):
        number = graph.guesses + index
        angle = GOLDEN_ANGLE * number
        length = hyper.reach * 0.5 ** (number % 3)
        place = centre + length * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        place = jnp.clip(place, -hyper.extent, hyper.extent)
        near = jnp.linalg.norm(places(graph) - place, axis=-1) < hyper.same
        grown = add(graph, harmonics.encode(place), False, hyper)
        return jax.tree.map(lambda new, old: jnp.where((near & graph.alive).any(), old, new), grown, graph)

    graph = jax.lax.fori_loop(0, 5, grow, graph)
    return graph._replace(guesses=graph.guesses + 5)

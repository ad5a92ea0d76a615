"""Emitters: small populations that climb from one rewarding solution each, side by side.

Shapes: ``E`` emitters, ``M`` genomes of each, ``G`` numbers of a genome.

Source: Fontaine, Togelius, Nikolaidis, Hoover, 2020, Covariance Matrix Adaptation for the Rapid Illumination of
Behavior Space (emitters); Paolo et al., 2024, STAX (elitist emitters, bootstrapping). Deviations: emitters run side by
side for a fixed number of steps instead of one after the other until each stagnates; one without improvement is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxrl_reg.search.repertoire import Repertoire, pareto_front
from jaxrl_reg.types import Array, Key

T = TypeVar("T")
POPULATION, OFFSPRING, LIMIT = 6, 2, 5.0
AT_ENDS = 3  # of the steps at both ends, whose means make an improvement
Evaluate = Callable[[Array], Repertoire]  # genomes [B, G] -> rows [B]
Keep = Callable[[T, Repertoire, Array], T]  # what is kept, rows [E * B], mask [E * B] -> what is kept


class Emitters(NamedTuple):
    """``E`` slots. ``ancestor`` is the full repertoire ``[E]`` of the solutions that they climb from."""

    genome: Array  # [E, M, G]
    fitness: Array  # [E, M]
    scale: Array  # [E], standard deviation of their mutations
    best: Array  # [E], the highest fitness so far
    improvement: Array  # [E]
    ancestor: Repertoire
    filled: Array  # [E] bool


def mutate(key: Key, genome: Array, scale: float | Array, limit: float = LIMIT) -> Array:
    """``genome [..., G]`` with normal noise of standard deviation ``scale [...]``, clipped to ``[-limit, limit]``."""
    noise = jax.random.normal(key, genome.shape)
    return jnp.clip(genome + jnp.asarray(scale)[..., None] * noise, -limit, limit)


def improvement(means: Array) -> Array:
    """``[...]``: what the last three of ``means [..., T]``, a population's mean fitness at every step, are above the
    first three, on average; at least 0."""
    return jnp.maximum(means[..., -AT_ENDS:].mean(-1) - means[..., :AT_ENDS].mean(-1), 0.0)


def climb(key: Key, emitters: Emitters, evaluate: Evaluate, steps: int, keep: Keep[T], kept: T) -> tuple[Emitters, T]:
    """``steps`` elitist steps of all emitters side by side: two offspring of each genome, and of both the best stay.

    ``keep(kept, children, better)`` sees the children ``[E * 2 M]`` of every step and which of them beat the best that
    their emitter had. ``improvement`` is that of these steps, the population they began with included.
    """
    count, size, width = emitters.genome.shape

    def step(carry: tuple[Emitters, T], key: Key) -> tuple[tuple[Emitters, T], Array]:
        emitters, kept = carry
        parents = jnp.repeat(emitters.genome, OFFSPRING, axis=1)
        children = evaluate(mutate(key, parents, emitters.scale[:, None]).reshape(-1, width))
        fitness = children.fitness.reshape(count, -1)
        better = (fitness > emitters.best[:, None]) & emitters.filled[:, None]
        kept = keep(kept, children, better.reshape(-1))
        # Offspring first: among equals those win, or nothing would move where all are 0.
        genome = jnp.concatenate([children.genome.reshape(count, -1, width), emitters.genome], axis=1)
        fitness = jnp.concatenate([fitness, emitters.fitness], axis=1)
        top, index = jax.lax.top_k(fitness, size)
        genome = jnp.take_along_axis(genome, index[..., None], axis=1)
        following = emitters._replace(genome=genome, fitness=top, best=jnp.maximum(emitters.best, top[:, 0]))
        return (following, kept), top.mean(-1)

    begin = emitters.fitness.mean(-1)
    (emitters, kept), means = jax.lax.scan(step, (emitters, kept), jax.random.split(key, steps))
    gained = improvement(jnp.concatenate([begin[None], means]).T)
    return emitters._replace(improvement=gained), kept


def bootstrap(
    key: Key, ancestor: Repertoire, scale: Array, filled: Array, evaluate: Evaluate, keep: Keep[T], kept: T, steps: int
) -> tuple[Emitters, T]:
    """Emitters ``[E]`` around the rows ``ancestor [E]``, after their first ``steps``; those without improvement, or not
    ``filled [E]`` to begin with, are gone. ``scale [E]``."""
    first, climbing = jax.random.split(key)
    count, width = ancestor.genome.shape
    around = jnp.broadcast_to(ancestor.genome[:, None], (count, POPULATION, width))
    rows = evaluate(mutate(first, around, scale[:, None]).reshape(-1, width))
    fitness = rows.fitness.reshape(count, -1)
    better = (fitness > ancestor.fitness[:, None]) & filled[:, None]
    kept = keep(kept, rows, better.reshape(-1))
    emitters = Emitters(
        rows.genome.reshape(count, -1, width),
        fitness,
        scale,
        jnp.maximum(ancestor.fitness, fitness.max(-1)),
        jnp.zeros(count),
        ancestor,
        filled,
    )
    emitters, kept = climb(climbing, emitters, evaluate, steps, keep, kept)
    return emitters._replace(filled=filled & (emitters.improvement > 0)), kept


def best_of(first: Emitters, second: Emitters, slots: int) -> Emitters:
    """The ``slots`` emitters of largest improvement out of both; of equals the first."""
    both = jax.tree.map(
        lambda x, y: jnp.concatenate([x, y]) if x.ndim else x + y, first, second
    )  # the only scalar is the size of the ancestors
    order = jnp.argsort(jnp.where(both.filled, -both.improvement, jnp.inf), stable=True)[:slots]
    return at(both, order)


def at(emitters: Emitters, index: Array) -> Emitters:
    """The emitters ``index [B]``."""
    return jax.tree.map(lambda leaf: leaf[index] if leaf.ndim else jnp.int32(len(index)), emitters)


def choose(key: Key, novelty: Array, emitters: Emitters, count: int) -> Array:
    """``[count]`` int32, different emitters: drawn from the Pareto front of ``novelty [E]`` and improvement, and where
    it has fewer, the most improved of the others."""
    front = pareto_front(jnp.stack([novelty, emitters.improvement], -1), emitters.filled)
    rank = jnp.argsort(jnp.argsort(emitters.improvement)) / len(front)
    drawn = jnp.where(front, 2.0 + jax.random.uniform(key, front.shape), rank)
    return jax.lax.top_k(jnp.where(emitters.filled, drawn, -1.0), count)[1]

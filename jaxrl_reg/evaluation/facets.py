"""What a unit answers to: several different inputs that excite it, instead of one picture that mixes them.

A unit is any differentiable function of an input to a number: a component of an action, a critic's value, a hidden
unit. The inputs that excite it most are sorted into groups, and each group's mean is where a climb begins. The distance
to the data says how far a climb has left what there is: an excited unit far away explains nothing.

Source: Nguyen et al., 2016, Multifaceted Feature Visualization. Deviations: inputs are states, so there is no prior of
pictures but their bounds; groups are found in scaled inputs (or codes that are given), not after t-SNE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg.transforms import refine
from jaxrl_reg.types import Array, Key

ITERATIONS = 20  # of k-means
Unit = Callable[[Array], Array]  # input [...] -> scalar


class Facets(NamedTuple):
    """``start`` and ``found`` ``[F, D]``, where climbs began and ended; the unit's ``value [F]`` there; ``distance
    [F]`` of the end to the nearest row of the data, in standard deviations of the data."""

    start: Array
    found: Array
    value: Array
    distance: Array


def total_variation(x: Array) -> Array:
    """Sum of the absolute steps along the last axis: ``[..., T]`` to ``[...]``."""
    return jnp.abs(jnp.diff(x, axis=-1)).sum(axis=-1)


def facet_starts(codes: Array, inputs: Array, facets: int, key: Key, members: int = 15) -> Array:
    """Where to begin: the mean of the ``members`` inputs nearest to each centre of k-means on their codes.

    Args:
      codes: ``[N, C]``, in which to group: features, or scaled inputs. Raw states are grouped by what is large in them.
      inputs: ``[N, ...]``.
      facets: groups, ``F``; static.
      key: of the first centres (k-means++).
      members: static, at most N.
    Returns:
      ``[F, ...]``.
    """
    count = codes.shape[0]
    first_key, key = jax.random.split(key)

    def distances(centres: Array) -> Array:
        return jnp.square(codes[:, None] - centres[None]).sum(axis=-1)

    centres = jnp.broadcast_to(codes[jax.random.randint(first_key, (), 0, count)], (facets, codes.shape[1]))
    for i in range(1, facets):  # centres not yet drawn stand where the first does, and change no distance
        weight = distances(centres).min(axis=1)
        weight = jnp.where(weight.sum() > 0, weight, 1.0)
        drawn = jax.random.choice(jax.random.fold_in(key, i), count, p=weight / weight.sum())
        centres = centres.at[i].set(codes[drawn])

    def move(_, centres: Array) -> Array:
        member = jax.nn.one_hot(distances(centres).argmin(axis=1), facets)
        size = member.sum(axis=0)[:, None]
        return jnp.where(size > 0, member.T @ codes / jnp.maximum(size, 1.0), centres)

    centres = jax.lax.fori_loop(0, ITERATIONS, move, centres)
    near = jax.lax.top_k(-distances(centres).T, min(members, count))[1]  # [F, members]
    return inputs[near].mean(axis=1)


def maximise_unit(
    unit: Unit, start: Array, steps: int, step_size: Array | float, low: Array, high: Array, smooth: float = 0.0
) -> Array:
    """Climb ``unit(x) - smooth total_variation(x)`` from every start, within bounds.

    Args:
      unit: of one input.
      start: ``[F, ...]``.
      steps: static.
      step_size: mean size of a step over the entries of an input, its unit. Gradients are divided by the mean of their
        absolute values for each start by itself: a norm over all starts would couple them.
      low, high: bounds, broadcast against an input; the start is put within them first.
      smooth: weight of the total variation along an input's last axis, for inputs that are series.
    Returns:
      ``[F, ...]``.
    """

    def loss(x: Array) -> Array:
        return (smooth * total_variation(x).reshape(x.shape[0], -1).sum(axis=1) - jax.vmap(unit)(x)).sum()

    def update(gradient: Array, state: optax.EmptyState, x: Array | None = None) -> tuple[Array, optax.EmptyState]:
        size = jnp.abs(gradient).mean(axis=tuple(range(1, gradient.ndim)), keepdims=True)
        step = -step_size * gradient / jnp.maximum(size, 1e-12)
        return jnp.clip(x + step, low, high) - x, state

    climb = optax.GradientTransformation(lambda _: optax.EmptyState(), update)
    return refine(loss, jnp.clip(start, low, high), climb, steps)[0]


def value_facets(
    unit: Unit, inputs: Array, key: Key, *, facets: int = 3, top: int = 300, steps: int = 60, step_size: float = 0.02
) -> Facets:
    """Facets of ``unit`` over states ``inputs [N, D]``: from those of the ``top`` that excite it most, found in states
    scaled by their spread and by how much the unit depends on each number.

    ``step_size`` is in standard deviations of the inputs; climbs stay within their range.
    """
    mean, spread = inputs.mean(axis=0), jnp.maximum(inputs.std(axis=0), 1e-6)
    scaled = (inputs - mean) / spread

    def of_scaled(x: Array) -> Array:
        return unit(mean + spread * x)

    best = jax.lax.top_k(jax.vmap(of_scaled)(scaled), min(top, inputs.shape[0]))[1]
    excited = scaled[best]
    slope = jnp.abs(jax.vmap(jax.grad(of_scaled))(excited)).mean(axis=0)  # irrelevant numbers would make the groups
    start = facet_starts(excited * slope, excited, facets, key)
    found = maximise_unit(of_scaled, start, steps, step_size, scaled.min(axis=0), scaled.max(axis=0))
    distance = jax.lax.map(lambda x: jnp.sqrt(jnp.square(scaled - x).sum(axis=-1).min()), found)
    return Facets(mean + spread * start, mean + spread * found, jax.vmap(of_scaled)(found), distance)

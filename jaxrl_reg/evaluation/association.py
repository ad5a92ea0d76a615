"""How strongly each kind of segment of a context drives an answer, by the Rescorla-Wagner model of learning.

A segment is one trial of its kind: ``V_i <- V_i + rate_i (limit - V_i - competition sum_{j != i} V_j)`` from 0; kinds
that are absent do not move. With competition 1 that is Rescorla and Wagner's rule, whose strengths, averaged over the
order of segments, are a kind's share times a constant: a straight line. With competition 0 each kind saturates by
itself, and what is rare is over-weighted, as it is measured in language models.

Only the product of salience and learning rate shows, hence one ``rate``. Rate and limit can hardly be told apart with
few segments, so the limit is held below 1. With competition the order matters: fix it, or average over orders.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg.types import Array

SEGMENTS = 20


def association_strength(
    kind: Array, rate: Array | float, limit: Array | float, competition: Array | float, kinds: int = 2
) -> Array:
    """Strengths before the first and after every segment, ``[T + 1, kinds]``.

    Args:
      kind: int ``[T]``, of each segment in order, from 0; -1 where none is (padding).
      rate: scalar or ``[kinds]``, in [0, 1].
      limit: scalar, to which a kind alone grows.
      competition: scalar; 1 is Rescorla and Wagner's rule, 0 lets kinds saturate apart.
      kinds: how many there are.
    Source: Rescorla and Wagner, 1972; the paper that adapts it to contexts (Wang et al., 2025) does not say how.
    """

    def trial(strength: Array, which: Array) -> tuple[Array, Array]:
        error = limit - strength - competition * (strength.sum() - strength)
        strength = strength + jnp.where(jnp.arange(kinds) == which, rate * error, 0.0)
        return strength, strength

    start = jnp.zeros(kinds)
    _, after = jax.lax.scan(trial, start, jnp.asarray(kind))
    return jnp.concatenate([start[None], after])


def association_curve(
    proportions: Array, segments: int, rate: Array | float, limit: Array | float, competition: Array | float
) -> Array:
    """Strength ``[P]`` of kind 1 after ``segments`` segments of which it has each of ``proportions`` ``[P]``, evenly
    interleaved with kind 0: its strength, not its share of both.

    Proportions are rounded to whole segments: with 20 of them 0.02 is none.
    """

    def one(proportion: Array) -> Array:
        count = jnp.round(proportion * segments).astype(jnp.int32)
        before = jnp.arange(segments + 1) * count // segments
        return association_strength(before[1:] - before[:-1], rate, limit, competition)[-1, 1]

    return jax.vmap(one)(jnp.asarray(proportions))


def fit_association(
    proportion: Array,
    strength: Array,
    steps: int = 1000,
    *,
    segments: int = SEGMENTS,
    competition: float | Array | None = None,
) -> tuple[Array, Array, Array, Array]:
    """``(rate, limit, competition, error)`` of the ``association_curve`` that is nearest to measured points.

    Pure; map it over curves.

    Args:
      proportion: ``[P]``, of kind 1.
      strength: ``[P]``, measured, in [0, 1]. Proportions 0 and 1 belong in it.
      steps: of Adam at 0.05, through a sigmoid (rate, limit) and a softplus (competition).
      segments: of a context.
      competition: held there; None: fitted.
    Returns:
      scalars; the error is the root of the mean square.
    """
    free = {"rate": jnp.float32(-1.0), "limit": jnp.float32(1.0), "competition": jnp.float32(-0.5)}

    def settings(free: dict[str, Array]) -> tuple[Array, Array, Array]:
        held = jax.nn.softplus(free["competition"]) if competition is None else jnp.float32(competition)
        return jax.nn.sigmoid(free["rate"]), jax.nn.sigmoid(free["limit"]), held

    def error(free: dict[str, Array]) -> Array:
        return jnp.square(association_curve(proportion, segments, *settings(free)) - strength).mean()

    optimiser = optax.adam(0.05)

    def step(carry, _):
        free, moments = carry
        changes, moments = optimiser.update(jax.grad(error)(free), moments)
        return (optax.apply_updates(free, changes), moments), None

    (free, _), _ = jax.lax.scan(step, (free, optimiser.init(free)), length=steps)
    return (*settings(free), jnp.sqrt(error(free)))

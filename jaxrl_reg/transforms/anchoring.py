"""Staying near given weights: a quadratic pull, and Langevin sampling of the weights that a loss and the pull allow."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any


def anchored(anchor: PyTree, coefficient: jax.Array | float) -> optax.GradientTransformation:
    """Adds ``coefficient (params - anchor)`` to the gradient: that of ``coefficient / 2 |params - anchor|^2``.

    ``optax.chain(anchored(start, c), optax.adam(1e-3))`` keeps near the start; as always with Adam, the pull is scaled
    like the rest of the gradient. How far a coefficient lets the function move depends on the architecture.

    Args:
      anchor: pytree like the parameters, may be traced.
      coefficient: scalar >= 0, in units of loss per squared weight, may be traced; 0 changes nothing.
    Raises:
      ValueError: (by ``update``) without ``params``.
    """

    def init(params: PyTree) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        if params is None:
            raise ValueError("anchored: call update(gradients, state, params)")
        pulled = jax.tree.map(lambda g, p, a: (g + coefficient * (p - a)).astype(g.dtype), updates, params, anchor)
        return pulled, state

    return optax.GradientTransformation(init, update)


class LangevinState(NamedTuple):
    """The key of all noise and, int32, how many steps have been taken."""

    key: jax.Array
    count: jax.Array


def sgld(
    learning_rate: jax.Array | float,
    temperature: jax.Array | float,
    key: jax.Array,
    anchor: PyTree = None,
    coefficient: jax.Array | float = 0.0,
) -> optax.GradientTransformation:
    """Stochastic gradient Langevin dynamics: ``-eta (g + c (params - anchor)) + sqrt(2 eta T) xi``.

    For small steps the weights are draws from ``exp(-(loss + c / 2 |params - anchor|^2) / T)``. The noise of one member
    at one step depends on nothing but its key and the count, so a resumed run repeats.

    Args:
      learning_rate: scalar ``eta`` > 0, may be traced, like the two below.
      temperature: scalar ``T`` >= 0, in units of the loss; 0: gradient descent.
      key: a typed key, used by ``init`` alone and kept in the state.
      anchor: pytree like the parameters; None: no pull.
      coefficient: scalar ``c`` >= 0, see ``anchored``.
    Raises:
      ValueError: (by ``update``) with an anchor but without ``params``.
    Source: Welling and Teh, 2011, Bayesian Learning via Stochastic Gradient Langevin Dynamics.
    """
    pull = optax.identity() if anchor is None else anchored(anchor, coefficient)

    def init(params: PyTree) -> LangevinState:
        return LangevinState(key, jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, LangevinState]:
        gradients, _ = pull.update(updates, optax.EmptyState(), params)
        leaves, structure = jax.tree.flatten(gradients)
        keys = jax.random.split(jax.random.fold_in(state.key, state.count), len(leaves))
        scale = jnp.sqrt(2.0 * learning_rate * temperature)

        def move(gradient: jax.Array, key: jax.Array) -> jax.Array:
            noise = jax.random.normal(key, gradient.shape, gradient.dtype)
            return (scale * noise - learning_rate * gradient).astype(gradient.dtype)

        moved = [move(leaf, k) for leaf, k in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(structure, moved), LangevinState(state.key, state.count + 1)

    return optax.GradientTransformation(init, update)

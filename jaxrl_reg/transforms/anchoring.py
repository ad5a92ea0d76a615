"""Staying near given weights: quadratic pulls, what makes a weight important, and Langevin sampling within the pull."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any


def _map(function: Callable[..., jax.Array], importance: PyTree | None, *trees: PyTree) -> PyTree:
    """``function(importance, ...)`` leaf by leaf; without importance it is 1 everywhere."""
    if importance is None:
        return jax.tree.map(lambda *leaves: function(1.0, *leaves), *trees)
    return jax.tree.map(function, importance, *trees)


def anchored(
    anchor: PyTree, coefficient: jax.Array | float, importance: PyTree | None = None
) -> optax.GradientTransformation:
    """Adds ``coefficient F (params - anchor)`` to the gradient: that of ``coefficient / 2 sum F (params - anchor)^2``.

    ``optax.chain(anchored(start, c), optax.adam(1e-3))`` keeps near the start; as always with Adam, the pull is scaled
    like the rest of the gradient. How far a coefficient lets the function move depends on the architecture. With the
    initial weights as anchor it is L2-init (regenerative regularisation); with the weights after an earlier task and
    a diagonal Fisher as ``importance`` it is elastic weight consolidation. Papers that write the penalty without the
    half have coefficients that are half of these.

    Args:
      anchor: pytree like the parameters, may be traced.
      coefficient: scalar >= 0, in units of loss per squared weight, may be traced; 0 changes nothing.
      importance: pytree like the parameters, entries >= 0, may be traced; None: 1 everywhere.
    Raises:
      ValueError: (by ``update``) without ``params``.
    Source: Kirkpatrick et al., 2017, Overcoming Catastrophic Forgetting in Neural Networks, equation 3; Kumar et al.,
      2023, Maintaining Plasticity in Continual Learning via Regenerative Regularization.
    """

    def init(params: PyTree) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        if params is None:
            raise ValueError("anchored: call update(gradients, state, params)")

        def pull(important, gradient, weight, target):
            strength = coefficient * important
            return (gradient + strength * (weight - target)).astype(gradient.dtype)

        return _map(pull, importance, updates, params, anchor), state

    return optax.GradientTransformation(init, update)


def pulled(
    anchor: PyTree, learning_rate: jax.Array | float, coefficient: jax.Array | float, importance: PyTree | None = None
) -> optax.GradientTransformation:
    """The pull of ``anchored`` as a proximal step, last in a chain: ``p <- (p + u + s a) / (1 + s)``, ``s = eta c F``.

    The optimiser's step ``u`` is made first and the quadratic is then solved exactly, so the pull is stable for every
    coefficient, where the explicit step oscillates for ``s > 1`` and diverges for ``s > 2``; and Adam does not rescale
    it: ``optax.chain(optax.adam(rate), pulled(start, rate, c))`` is to ``anchored`` what AdamW is to L2.

    Args:
      anchor: pytree like the parameters, may be traced.
      learning_rate: scalar ``eta`` >= 0, may be traced; that of the step before it.
      coefficient: scalar ``c`` >= 0, may be traced; 0 leaves the step, infinity is not allowed.
      importance: pytree ``F`` like the parameters, entries >= 0; None: 1 everywhere.
    Raises:
      ValueError: (by ``update``) without ``params``.
    Source: Loshchilov and Hutter, 2019, Decoupled Weight Decay Regularization; the proximal form of its decay.
    """

    def init(params: PyTree) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        if params is None:
            raise ValueError("pulled: call update(updates, state, params)")

        def step(important, move, weight, target):
            strength = learning_rate * coefficient * important
            # p' - p, written so that nothing changes where strength is 0
            return ((move + strength * (target - weight)) / (1.0 + strength)).astype(move.dtype)

        return _map(step, importance, updates, params, anchor), state

    return optax.GradientTransformation(init, update)


class PathState(NamedTuple):
    """The inner optimiser's state, the path integral per weight since ``start``, and the weights at the start."""

    inner: PyTree
    path: PyTree
    start: PyTree


def synaptic_intelligence(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """``inner`` while adding up what each weight did for the loss: ``w <- w - g step``, ``g`` the incoming gradient.

    Chain an anchor inside ``inner``, so that ``g`` is the loss's own gradient:
    ``synaptic_intelligence(optax.chain(anchored(a, c, importance), optax.adam(1e-3)))``. At the end of a task,
    ``consolidate`` turns the integral into importance.

    Args:
      inner: any transformation; it sees gradients, state and parameters as without this.
    Returns:
      transformation with a ``PathState``.
    Raises:
      ValueError: (by ``update``) without ``params``.
    Source: Zenke, Poole and Ganguli, 2017, Continual Learning through Synaptic Intelligence, equation 3.
    """

    def init(params: PyTree) -> PathState:
        return PathState(inner.init(params), jax.tree.map(jnp.zeros_like, params), params)

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, PathState]:
        if params is None:
            raise ValueError("synaptic_intelligence: call update(gradients, state, params)")
        steps, within = inner.update(updates, state.inner, params)
        path = jax.tree.map(lambda w, g, step: w - g * step, state.path, updates, steps)
        return steps, PathState(within, path, state.start)

    return optax.GradientTransformation(init, update)


def consolidate(state: PathState, params: PyTree, damping: jax.Array | float = 0.1) -> tuple[PyTree, PathState]:
    """Importance ``max(w, 0) / ((params - start)^2 + damping)`` at the end of a task, and a state for the next one.

    Args:
      state: of ``synaptic_intelligence`` after the task.
      params: the weights now; the next task starts from them.
      damping: scalar > 0, squared weights, may be traced.
    Returns:
      ``(importance, state)``: a pytree like the parameters, in units of loss per squared weight, to be added to that of
      earlier tasks (``accumulate``); the path integral is 0 again, the inner optimiser's state is kept.
    Source: Zenke, Poole and Ganguli, 2017, equation 5. A weight that made the loss worse counts as 0, not as negative.
    """
    importance = jax.tree.map(
        lambda w, new, old: jnp.maximum(w, 0.0) / (jnp.square(new - old) + damping), state.path, params, state.start
    )
    return importance, PathState(state.inner, jax.tree.map(jnp.zeros_like, state.path), params)


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

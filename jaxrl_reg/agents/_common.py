"""The few moves that every agent makes: an optimiser step, a delayed one, learning-rate decay."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg.errors import UserError
from jaxrl_reg.transforms import clamp_gradients
from jaxrl_reg.types import Array, Network, PyTree

T = TypeVar("T")
LONGEST_CYCLE = 4
# What a caller gives an agent's ``make`` to hold its actor by: an optax transformation, or what makes one (or makes an
# optimiser of Adam) from the hyperparameters. And ``penalty(distribution, observation [B, O], hyper, step) -> [B]``.
Transform = optax.GradientTransformation | Callable[[Any], Any]
Penalty = Callable[[Any, Array, Any, Array], Array]


class Trainable(NamedTuple):
    """Parameters with the state of their optimiser. Target networks are kept outside, as plain parameters."""

    params: PyTree
    opt_state: PyTree


def trainable(params: PyTree, optimiser: optax.GradientTransformation) -> Trainable:
    """A fresh ``Trainable``."""
    return Trainable(params, optimiser.init(params))


def descend(
    loss: Callable[[PyTree], tuple[Array, Any]],
    model: Trainable,
    optimiser: optax.GradientTransformation,
    bound: float = math.inf,
) -> tuple[Trainable, Any]:
    """One optimiser step on ``loss(params) -> (scalar, auxiliary)``; returns the new model and the auxiliary output.

    ``optimiser`` is built inside the update from traced hyperparameters, as in ``adam(hyper.learning_rate)``: the
    structure of its state does not depend on them. A finite ``bound`` clamps every entry of the gradient.
    """
    gradients, auxiliary = jax.grad(loss, has_aux=True)(model.params)
    if bound < math.inf:
        gradients = clamp_gradients(gradients, bound)
    return step_along(gradients, model, optimiser), auxiliary


def step_along(gradients: PyTree, model: Trainable, optimiser: optax.GradientTransformation) -> Trainable:
    """One optimiser step on gradients that the caller has put together."""
    updates, opt_state = optimiser.update(gradients, model.opt_state, model.params)
    return Trainable(optax.apply_updates(model.params, updates), opt_state)


def held(transform: Transform | None, hyper: Any, inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """``inner`` (Adam) with a caller's ``transform`` before it, such as ``transforms.anchored``; None: ``inner``.

    ``transform`` is an optax transformation, or ``hyper -> transformation``, so that what it takes can be traced. Where
    it returns a function instead, that function makes an optimiser of ``inner``: ``hyper ->
    partial(transforms.adapted, ...)`` trains low-rank adapters by it.
    """
    if transform is None:
        return inner
    made = transform if isinstance(transform, optax.GradientTransformation) else transform(hyper)
    return optax.chain(made, inner) if isinstance(made, optax.GradientTransformation) else made(inner)


def penalised(
    penalty: Penalty | None,
    found: tuple[Array, dict[str, Array]],
    distribution: Any,
    observation: Array | None,
    hyper: Any,
    step: Array,
) -> tuple[Array, dict[str, Array]]:
    """A loss and its metrics, ``found``, plus a caller's ``penalty``; None: ``found``."""
    if penalty is None:
        return found
    loss, metrics = found
    held = penalty(distribution, observation, hyper, step).mean()
    return loss + held, {**metrics, "penalty": held}


def every(period: int, step: Array | int, new: Callable[[], T], old: T) -> T:
    """``new()`` at steps 0, ``period``, 2 ``period``, ...; ``old``, of the same structure, at the others.

    ``step`` must not be batched: then this stays a real branch under ``vmap`` instead of computing both sides. Where it
    is a Python number there is no branch, see ``cycle``.
    """
    if period == 1:
        return new()
    if isinstance(step, int):
        return new() if step % period == 0 else old
    return jax.lax.cond(step % period == 0, new, lambda: old)


def cycle(update: Callable[..., T], period: int) -> tuple[Callable[..., T], ...]:
    """``Agent.cycle`` of an ``update`` that looks at its step in ``every(period, step, ...)`` alone.

    On a GPU a condition costs a wait for the host and a copy of the state, so loops ask for the updates of a period in
    a row. None for a period that is long: all of its updates are compiled.
    """
    if not 2 <= period <= LONGEST_CYCLE:
        return ()

    def at(phase: int) -> Callable[..., T]:
        return lambda state, batch, hyper, key, step: update(state, batch, hyper, key, phase)

    return tuple(at(phase) for phase in range(period))


def cosine(learning_rate: Array | float, step: Array, total: int) -> Array | float:
    """The learning rate after ``step`` of ``total`` steps of a half-cosine decay to 0; ``total`` = 0: constant."""
    if total == 0:
        return learning_rate
    return learning_rate * 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(step / total, 1.0)))


def catching_up(rate: Array | float, step: Array) -> Array:
    """The step of a slow average after ``step`` updates: ``rate``, but large at first, so that the start is forgotten.

    The decay 1 - rate is at most (1 + step) / (10 + step).
    """
    return jnp.maximum(rate, 9.0 / (10.0 + step))


def warm_restarts(learning_rate: Array | float, step: Array, first: int, floor: float) -> Array:
    """Half-cosine decay from ``learning_rate`` to its fraction ``floor``, again and again (SGDR, arXiv 1608.03983).

    A period begins after ``first (2^k - 1)`` steps and lasts ``first 2^k``: each is twice as long as the one before.
    """
    period = 31 - jax.lax.clz(jnp.asarray(step, jnp.int32) // first + 1)  # k, exactly
    length = first * jnp.left_shift(1, period)
    done = (step - (length - first)) / length
    return learning_rate * (floor + (1.0 - floor) * 0.5 * (1.0 + jnp.cos(jnp.pi * done)))


def copy(params: PyTree) -> PyTree:
    """Target parameters that start equal to ``params`` in buffers of their own, so that both can be donated."""
    return jax.tree.map(jnp.copy, params)


def present(value: Array | None, agent: str, field: str) -> Array:
    """``value``, or a ``UserError`` that says which field of the batch the agent misses."""
    if value is None:
        raise UserError(f"{agent} needs batch.{field}, which is None; data.load and data.from_arrays fill it in")
    return value


def least_value(q: Network) -> Callable[[Any, Array, Array], Array]:
    """``Agent.q`` of an agent whose state has its critics as ``critic``: ``q`` gives all of them, ``[N, ...]``."""
    return lambda state, observation, action: q.apply(state.critic.params, observation, action).min(axis=0)

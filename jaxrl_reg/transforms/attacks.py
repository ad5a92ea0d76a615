"""Perturbations of an input within a ball, and how much each row of a loss counts for what another one wants.

Not gradients of parameters: gradients of what a network is shown. Every row of a batch is perturbed for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
PyTree = Any
Objective = Callable[[Array], Array]  # x [..., O] -> [...], each row of its own x alone

NORMS = ("inf", "l2", "l1")
STARTS = ("uniform", "sign", "zero")
OVERSHOOT = 2.5  # how many times the radius all steps together reach


def project(perturbation: Array, epsilon: Array | float, norm: str = "inf") -> Array:
    """``perturbation [..., O]`` brought into the ball of radius ``epsilon``; one inside stays as it is.

    ``inf`` clips every coordinate, and ``epsilon`` may be ``[O]`` there; ``l2`` and ``l1`` divide by ``max(1, norm /
    epsilon)``, which for ``l1`` is not the nearest point. Raises ``ValueError`` for another norm.
    """
    if norm not in NORMS:
        raise ValueError(f"project: norm={norm!r} must be one of {', '.join(NORMS)}")
    if norm == "inf":
        return jnp.clip(perturbation, -jnp.asarray(epsilon), jnp.asarray(epsilon))
    size = jnp.abs(perturbation).sum(-1, keepdims=True) if norm == "l1" else _length(perturbation)
    safe = jnp.where(epsilon > 0, epsilon, 1.0)
    return jnp.where(epsilon > 0, perturbation / jnp.maximum(1.0, size / safe), 0.0)


def signed_step(objective: Objective, x: Array, epsilon: Array | float) -> Array:
    """``epsilon sign(grad objective(x))``, the perturbation ``[..., O]`` of the fast gradient sign method.

    Coordinates without a finite gradient are not moved. Source: Goodfellow et al., 2015, Explaining and Harnessing
    Adversarial Examples.
    """
    gradient = jax.grad(lambda inputs: objective(inputs).sum())(x)
    return jnp.asarray(epsilon) * jnp.sign(jnp.where(jnp.isfinite(gradient), gradient, 0.0))


def projected_ascent(
    objective: Objective,
    x: Array,
    key: Array,
    epsilon: Array | float,
    steps: int = 10,
    step_size: Array | float | None = None,
    start: str = "uniform",
) -> Array:
    """The perturbation ``[..., O]`` that ``steps`` signed gradient steps within a box find to raise ``objective``.

    Args:
      objective: ``[..., O] -> [...]``; rows are summed before the gradient, so each is raised for itself.
      x: ``[..., O]``.
      key: of the start.
      epsilon: half the side of the box, scalar or ``[O]``; may be traced.
      steps: static.
      step_size: of each step; ``2.5 epsilon / steps`` by default, so that the whole box can be reached.
      start: ``uniform`` in the box; ``sign``, a random corner of the box of one step's reach ``epsilon / steps``;
        ``zero``, where an objective that is smallest at ``x`` itself has no gradient.
    Raises:
      ValueError: for another start, or fewer than one step.
    Source: Madry et al., 2018, Towards Deep Learning Models Resistant to Adversarial Attacks (PGD); the last iterate.
    """
    if start not in STARTS:
        raise ValueError(f"projected_ascent: start={start!r} must be one of {', '.join(STARTS)}")
    if steps < 1:
        raise ValueError(f"projected_ascent: steps={steps} must be at least 1")
    epsilon = jnp.asarray(epsilon, x.dtype)
    size = OVERSHOOT * epsilon / steps if step_size is None else step_size
    first = jnp.zeros_like(x)
    if start == "uniform":
        first = epsilon * jax.random.uniform(key, x.shape, x.dtype, -1.0, 1.0)
    elif start == "sign":
        first = epsilon / steps * jax.random.rademacher(key, x.shape, x.dtype)

    def body(_: Array, perturbation: Array) -> Array:
        return project(perturbation + signed_step(objective, x + perturbation, size), epsilon)

    return jax.lax.fori_loop(0, steps, body, first)


def directed(policy: Objective, x: Array, direction: Array, key: Array, epsilon: Array | float) -> Array:
    """The perturbation ``[..., O]`` that one signed step finds to move the policy's action along ``direction``.

    It raises ``cos(mu(x') - mu(x), direction) + |mu(x') - mu(x)|`` from a random ``x'`` in the box, since at ``x``
    itself the difference has no direction.

    Args:
      policy: ``mu``, ``[..., O] -> [..., A]``.
      x: ``[..., O]``.
      direction: ``[..., A]``, of any length.
      key: of the start.
      epsilon: half the side of the box, scalar or ``[O]``.
    Source: Sun et al., 2022, Who Is the Strongest Enemy? (PA-AD), the actor of its released code.
    """
    plain = jax.lax.stop_gradient(policy(x))

    def along(inputs: Array) -> Array:
        moved = policy(inputs) - plain
        length = _length(moved)[..., 0]
        return (moved * direction).sum(-1) / (length * _length(direction)[..., 0] + 1e-6) + length

    start = x + jnp.asarray(epsilon, x.dtype) * jax.random.uniform(key, x.shape, x.dtype, -1.0, 1.0)
    return signed_step(along, start, epsilon)


def weight_hypergradient(
    row_losses: Callable[[PyTree], Array], outer_gradient: PyTree, params: PyTree, learning_rate: Array | float
) -> Array:
    """How an outer loss changes with the weight of each row in the inner loss that one gradient step was made on.

    The inner loss is the MEAN over rows of weight times loss: after ``params' = params - learning_rate grad inner``,
    ``d outer / d weight_i = -learning_rate / B <grad outer(params'), grad loss_i(params)>``. All ``B`` products are one
    forward pass along ``outer_gradient``.

    Args:
      row_losses: ``params -> [B]``, not weighted.
      outer_gradient: gradient of the outer loss at the parameters after the step, a tree like ``params``.
      params: before the step.
      learning_rate: of the step.
    Returns:
      ``[B]``: the outer loss falls where a row of negative value is given more weight.
    Source: the chain rule; Bai et al., 2025, RAT, learn their weighting by it.
    """
    values, along = jax.jvp(row_losses, (params,), (outer_gradient,))
    return -learning_rate / values.shape[0] * along


def _length(x: Array) -> Array:
    """Euclidean, ``[..., 1]``, with a gradient of 0 at 0."""
    square = jnp.square(x).sum(-1, keepdims=True)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)

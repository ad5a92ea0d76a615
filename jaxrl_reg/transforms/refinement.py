"""Optimising an input or a latent at test time, with the parameters frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import optax

T = TypeVar("T")


def refine(
    loss: Callable[[T], jax.Array], latent: T, optimiser: optax.GradientTransformation, steps: int
) -> tuple[T, jax.Array]:
    """``steps`` updates of ``latent`` down ``loss``, and the loss before each.

    For many latents at once let ``loss`` be a SUM over them: each then moves as if it were alone, because elementwise
    optimisers keep a state per entry. A mean would shrink the steps of plain gradient descent with their number, and a
    norm taken over all of them (clipping) couples them.

    Args:
      loss: ``latent -> scalar``, everything else closed over.
      latent: pytree of floating-point arrays.
      optimiser: from optax; its settings may be traced.
      steps: static; 0 returns the latent as it is.
    Returns:
      pytree like ``latent``, and losses ``[steps]``. Differentiable, through the steps.
    Raises:
      TypeError: the loss is not a scalar (by ``jax.grad``).
    Source: Liu et al., 2022, Towards Robust and Adaptive Motion Forecasting (refinement of latents by a style loss).
    """

    def body(carry, _):
        latent, state = carry
        value, gradient = jax.value_and_grad(loss)(latent)
        change, state = optimiser.update(gradient, state, cast(Any, latent))
        return (optax.apply_updates(cast(Any, latent), change), state), value

    (refined, _), values = jax.lax.scan(body, (latent, optimiser.init(cast(Any, latent))), None, steps)
    return cast(T, refined), values

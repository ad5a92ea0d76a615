"""Acting, or answering, only where a score says that it will go well."""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl_reg.types import Array


def risk_at_coverage(score: Array, loss: Array) -> Array:
    """Mean loss of the ``k`` cases with the highest scores, for ``k`` = 1 to N; its mean is the risk-coverage area.

    Args:
      score: ``[..., N]``, how sure each case is; any unit.
      loss: ``[..., N]``, what it cost, e.g. 1 for a wrong answer.
    Returns:
      ``[..., N]``, in units of the loss; the last is the loss if nothing is declined. Its lowest possible curve is that
      of ``score = -loss``.
    Edges: equal scores in the order given; a NaN score counts as the least sure.
    Source: El-Yaniv and Wiener, 2010, On the Foundations of Noise-free Selective Classification.
    """
    order = jnp.argsort(-score, axis=-1, stable=True)
    accepted = jnp.take_along_axis(loss, order, axis=-1)
    return jnp.cumsum(accepted, axis=-1) / jnp.arange(1, loss.shape[-1] + 1)

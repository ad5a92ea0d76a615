"""Penalties on what holds in one environment but not in another: features whose use would have to change."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(prediction="E B D", target="E B D")
def irm_penalty(prediction: Array, target: Array, unbiased: bool = False) -> Array:
    """Squared slope of each environment's risk along a common factor ``w`` of all predictions, at ``w = 1`` (IRMv1).

    With risk ``R = mean_b |w p_b - y_b|^2`` the slope is the mean of ``g_b = 2 <p_b, p_b - y_b>``. It is 0 where
    shrinking or growing the predictions would not help this environment; a predictor that leans on a feature whose
    scale differs between environments cannot have it 0 in all of them. The square of a batch's mean overestimates that
    of the mean by the variance over B; ``unbiased`` leaves out the products of an example with itself, which needs no
    split of the batch into halves. That is for fresh batches: on one that is seen again and again, a large weight makes
    the slopes vary rather than vanish.

    Args:
      prediction: ``[E, B, D]``, for E environments of B examples.
      target: ``[E, B, D]``, same units.
      unbiased: static; estimates the square of the expected slope without bias, and can be negative for it.
    Returns:
      ``[E]``, target units to the fourth. Add it, weighted, to the risks; start only after a share of training, since
      predicting nothing satisfies it too.
    Raises:
      ValueError: shapes differ.
    Edges: with ``unbiased``, 0 / 0 for batches of one.
    Source: Arjovsky et al., 2019, Invariant Risk Minimization, section 3.1; Liu et al., 2022, Towards Robust and
      Adaptive Motion Forecasting: A Causal Representation Perspective.
    """
    slope = 2 * (prediction * (prediction - target)).sum(-1)
    if not unbiased:
        return jnp.square(slope.mean(-1))
    count = slope.shape[-1]
    return (jnp.square(slope.sum(-1)) - jnp.square(slope).sum(-1)) / (count * (count - 1))


@shapes(risk="E")
def vrex_penalty(risk: Array) -> Array:
    """Unbiased variance of the risks over environments (V-REx).

    It acts only where risks differ. Environments that a predictor exploits in different ways but equally well have none
    of it, and the penalty does nothing.

    Args:
      risk: ``[E]``, mean loss of each of E >= 2 environments.
    Returns:
      scalar, squared units of the risk.
    Raises:
      ValueError: ``risk`` has more than one axis.
    Edges: 0 for equal risks; 0 / 0 for one environment.
    Source: Krueger et al., 2021, Out-of-Distribution Generalization via Risk Extrapolation, eq. 8.
    """
    return jnp.square(risk - risk.mean()).sum() / (risk.shape[0] - 1)

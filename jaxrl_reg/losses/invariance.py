"""Penalties on what holds in one environment but not in another: features whose use would have to change."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.successor import solve

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


@shapes(features="B D", action="B A", bandwidth="", ridge="")
def linear_invariance_loss(
    features: Array, action: Array, bandwidth: Array | float, ridge: Array | float = 1e-6
) -> Array:
    """Dependence on the actions of what a linear map of them leaves of the features: 0 if they move affinely.

    With ``r`` the residuals of the features' regression on ``[action, 1]``, ``C`` the features' covariance and
    ``k = exp(-|a_i - a_j|^2 / 2 bandwidth^2)``: ``B^-2 sum_ij k(a_i, a_j) r_i^T C^-1 r_j``. Solving with ``C`` whitens
    the features; without that, shrinking them would satisfy the penalty.

    Args:
      features: ``[B, D]``, for B well above ``D + A``.
      action: ``[B, A]``, or whatever intervenes.
      bandwidth: scalar > 0, unit of the actions; 1 suits actions in [-1, 1].
      ridge: scalar > 0, added to the diagonals that are solved with.
    Returns:
      scalar >= 0; the batch is coupled. The V-statistic: the U-statistic's variance drowns it in small batches.
    Raises:
      ValueError: shapes differ.
    Edges: features that are constant, or affine in the actions, give 0.
    Source: Saengkyongam et al., 2024, Identifying Representations for Intervention Extrapolation (Rep4Ex), section 4.2.
    """
    count = features.shape[0]
    centred = features - features.mean(axis=0)
    design = jnp.concatenate([action, jnp.ones((count, 1), action.dtype)], axis=1)
    normal = design.T @ design + ridge * jnp.eye(design.shape[1], dtype=action.dtype)
    residual = centred - design @ solve(normal, design.T @ centred)
    covariance = centred.T @ centred / count + ridge * jnp.eye(features.shape[1], dtype=features.dtype)
    distance = jnp.square(action[:, None] - action[None]).sum(axis=-1)
    kernel = jnp.exp(-distance / (2.0 * jnp.square(bandwidth)))
    return (kernel * (residual @ solve(covariance, residual.T))).mean()


@shapes(residual="B D", augmentation="B M", weight="", ridge="")
def outcome_invariance_loss(
    residual: Array, augmentation: Array, weight: Array | float, ridge: Array | float = 1e-6
) -> Array:
    """``(|Pi r|^2 + weight |r|^2) / B``: residuals held orthogonal to what an augmentation changes (IVL).

    An augmentation that leaves the outcome alone is an instrument: what it explains of the residual is confounding.
    ``Pi`` projects on the columns of ``augmentation``; ``weight`` mixes in least squares, so it is a regulariser where
    the instrument is weak. 0: two-stage least squares; infinite: plain regression on augmented data.

    Args:
      residual: ``[B, D]``, outcome minus prediction on augmented inputs.
      augmentation: ``[B, M]``, the parameters of each row's augmentation, M well below B.
      weight: scalar >= 0.
      ridge: scalar > 0, times B on the diagonal that is solved with.
    Returns:
      scalar >= 0, squared units of the outcome; the batch is coupled.
    Raises:
      ValueError: shapes differ.
    Edges: with M = B the projection is the identity, and this is ``1 + weight`` times least squares.
    Source: An Analysis of Causal Effect Estimation using Outcome Invariant Data Augmentation (IVL), 2025.
    """
    count = residual.shape[0]
    normal = augmentation.T @ augmentation + ridge * count * jnp.eye(augmentation.shape[1], dtype=augmentation.dtype)
    through = augmentation.T @ residual
    explained = (through * solve(normal, through)).sum()
    return (explained + weight * jnp.square(residual).sum()) / count

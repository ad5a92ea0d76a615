"""Which steps of a window a frozen policy's behaviour depends on: what a learnt mask of steps is trained by."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array

SURE = 1e-4  # probabilities are held this far from 0 and 1
SMALLEST = 1e-6  # length below which features count as being this long


@shapes(probability="... T", rate="")
def mask_prior_loss(probability: Array, rate: Array | float) -> Array:
    """Mean over steps of ``KL(Bernoulli(p) || Bernoulli(rate))``: a mask keeps a share of the steps about ``rate``.

    Args:
      probability: ``[..., T]`` in [0, 1], that a step is kept.
      rate: scalar in (0, 1).
    Returns:
      ``[...]``, nats per step.
    Raises:
      ValueError: ``rate`` is not a scalar.
    Edges: probabilities are clipped to [1e-4, 1 - 1e-4].
    Source: Queen et al., 2023, Encoding Time-Series Explanations through Self-Supervised Model Behavior Consistency
      (TimeX), equation 6.
    """
    p = jnp.clip(probability, SURE, 1.0 - SURE)
    return (p * jnp.log(p / rate) + (1.0 - p) * jnp.log((1.0 - p) / (1.0 - rate))).mean(axis=-1)


@shapes(probability="... T")
def time_variation_loss(probability: Array) -> Array:
    """Mean of ``|p_t+1 - p_t|``: masks of connected steps.

    Args:
      probability: ``[..., T]``, T of at least 2.
    Returns:
      ``[...]``.
    Raises:
      ValueError: no axis of steps.
    Edges: 0 / 0 for windows of one step.
    Source: Queen et al., 2023, TimeX, equation 6. Deviation: the released code takes the root of the squares' sum over
      the number of entries, which weighs next to nothing.
    """
    return jnp.abs(jnp.diff(probability, axis=-1)).mean(axis=-1)


@shapes(features="B D", masked_features="B D")
def behaviour_consistency_loss(features: Array, masked_features: Array) -> Array:
    """Mean over all pairs of rows of ``(cos(f_i, f_j) - cos(g_i, g_j))^2``: the same rows are alike under the mask.

    Args:
      features: ``[B, D]``, of the frozen network on whole windows; DETACHED.
      masked_features: ``[B, D]``, of the explainer's copy on masked ones.
    Returns:
      scalar in [0, 4]; the batch is coupled, pairs of a row with itself included.
    Raises:
      ValueError: shapes differ.
    Edges: lengths below 1e-6 count as that, so zero features have the cosine 0 and a finite gradient.
    Source: Queen et al., 2023, TimeX, equation 3.
    """
    gap = _cosines(jax.lax.stop_gradient(features)) - _cosines(masked_features)
    return jnp.square(gap).mean()


@shapes(logits="B K", masked_logits="B K")
def label_consistency_loss(logits: Array, masked_logits: Array) -> Array:
    """Mean over all pairs of rows of the squared difference of their Jensen-Shannon divergences.

    Args:
      logits: ``[B, K]``, of the frozen network on whole windows; DETACHED.
      masked_logits: ``[B, K]``, on masked ones.
    Returns:
      scalar >= 0, squared nats; the batch is coupled.
    Raises:
      ValueError: shapes differ.
    Edges: the divergence of a row and itself is 0 exactly, with gradient 0.
    Source: Queen et al., 2023, TimeX, equation 5. Deviation: pair by pair; the released code squares the difference of
      two means over the batch.
    """
    gap = _pairwise_divergence(jax.lax.stop_gradient(logits)) - _pairwise_divergence(masked_logits)
    return jnp.square(gap).mean()


def straight_through_mask(key: Array, probability: Array, temperature: Array | float = 1.0) -> Array:
    """A mask of 0 and 1 drawn by ``probability [...]``, whose gradient is that of its relaxation.

    Forward, 1 where ``logit(p)`` plus logistic noise is above 0; backward, ``sigmoid`` of it over ``temperature``. For
    explaining rather than training, threshold the probability instead: noise does not belong there.

    Source: Jang et al., 2017, Categorical Reparameterization with Gumbel-Softmax; Maddison et al., 2017.
    """
    p = jnp.clip(probability, SURE, 1.0 - SURE)
    noise = jax.random.logistic(key, p.shape, p.dtype)
    soft = jax.nn.sigmoid((jnp.log(p) - jnp.log1p(-p) + noise) / temperature)
    hard = (soft > 0.5).astype(soft.dtype)
    return soft + jax.lax.stop_gradient(hard - soft)


def _cosines(x: Array) -> Array:
    square = jnp.square(x).sum(axis=-1)
    unit = x / jnp.sqrt(jnp.maximum(square, SMALLEST**2))[:, None]
    return unit @ unit.T


def _pairwise_divergence(logits: Array) -> Array:
    """Jensen-Shannon divergence of each pair of rows, ``[B, B]``."""
    log_p = jax.nn.log_softmax(logits)
    first, second = log_p[:, None], log_p[None]
    middle = jnp.logaddexp(first, second) - jnp.log(2.0).astype(log_p.dtype)
    return 0.5 * (jnp.exp(first) * (first - middle) + jnp.exp(second) * (second - middle)).sum(axis=-1)

"""Representations that know who belongs together."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(features="B D", label="B", temperature="")
def supervised_contrastive_loss(features: Array, label: Array, temperature: Array | float) -> Array:
    """``-mean_{p: same label} log softmax_j(<f_i, f_j> / T)_p`` over all other j, with features of unit length.

    Examples of one label attract, the others repel. It needs negatives: among examples of a single label it only makes
    all similarities equal, and never falls below ``log (B - 1)``; for two of them it is constant.

    Args:
      features: ``[B, D]``, brought to unit length here.
      label: ``[B]``, integers (or floats that hold them).
      temperature: scalar T > 0; 0.07 in the papers.
    Returns:
      ``[B]``, nats; 0 for an example that is alone with its label. The batch is coupled: do not map over it.
    Raises:
      ValueError: shapes do not match.
    Edges: features shorter than 1e-6 are divided by that instead, so the gradient is finite at 0.
    Source: Khosla et al., 2020, Supervised Contrastive Learning, eq. 2; Liu et al., 2022, Towards Robust and Adaptive
      Motion Forecasting, where the label is the environment and the features are styles of motion.
    """
    unit = features * jax.lax.rsqrt(jnp.maximum(jnp.square(features).sum(-1, keepdims=True), 1e-12))
    similarity = jnp.matmul(unit, unit.T, precision="highest") / temperature
    other = ~jnp.eye(len(label), dtype=bool)
    positive = (label[:, None] == label) & other
    count = positive.sum(-1)
    log_total = jax.nn.logsumexp(jnp.where(other, similarity, -jnp.inf), axis=-1)
    pull = jnp.where(positive, similarity, 0.0).sum(-1) / jnp.maximum(count, 1)
    return jnp.where(count > 0, log_total - pull, 0.0)

"""Energies of a classifier's rows, and margins on them: which of several heads knows a row, and which do not.

A head that learns alone fixes its logits up to a shift. With the energy of its own rows pulled below a margin, heads
that were learnt one after another can be compared: the one of lowest energy answers. Rows that a head should not claim
(``data.virtual_outliers``) may be pushed above another margin; at the scale of our experiment that adds nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.value import huber_loss

Array = jax.Array

_NOTHING = 1e18  # the energy of no classes


@shapes(logits="... K", mask="... K")
def energy(logits: Array, mask: Array | None = None) -> Array:
    """``-log sum_k exp(logits_k)`` over the classes that count: low where a head knows the row.

    Args:
      logits: ``[..., K]``, of one head.
      mask: ``[..., K]``, above 0 on classes that count; None: all. Columns that have not been trained are at 0, above
        negative logits: leave them out.
    Returns:
      ``[...]``, in units of logits; no lower bound.
    Raises:
      ValueError: shapes differ.
    Edges: 1e18 where no class counts, which is above all others, without a gradient.
    Source: Liu et al., 2020, Energy-based Out-of-distribution Detection; Huang et al., 2024, OVOR.
    """
    if mask is None:
        return -jax.nn.logsumexp(logits, axis=-1)
    counts = mask > 0  # and nothing infinite, so that a row without classes has no NaN
    found = -jax.nn.logsumexp(jnp.where(counts, logits, -_NOTHING), axis=-1)
    return jnp.where(counts.any(-1), found, _NOTHING)


@shapes(energy="...", margin="", sign="")
def energy_margin_loss(energy: Array, margin: Array | float, sign: Array | float = 1.0) -> Array:
    """The Huber loss of ``max(0, sign (energy - margin))``, quadratic up to 1 and linear beyond.

    Args:
      energy: ``[...]``, of ``energy``.
      margin: scalar, in units of logits; -15 for real rows and -3 for outliers in the paper's code. A margin of -15
        asks for logits of 15: with small features and few steps it is not reached.
      sign: scalar, 1 where the energy must be below the margin, -1 where it must be above.
    Returns:
      ``[...]``, >= 0.
    Raises:
      ValueError: a setting is not a scalar.
    Edges: 0, with gradient 0, on the right side of the margin and at it.
    Source: Huang et al., 2024, OVOR: OnePrompt with Virtual Outlier Regularization (code).
    """
    violated = jnp.maximum(sign * (energy - margin), 0.0)
    return huber_loss(violated, jnp.zeros_like(violated), 1.0)

"""Discrete features: codes and what is encoded by them drawn together."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(features="... D", code="... D", commitment="")
def vector_quantisation_loss(features: Array, code: Array, commitment: Array | float = 0.25) -> Array:
    """``mean_d (sg(z) - e)^2 + c mean_d (z - sg(e))^2``: the chosen code goes to the features, they stay near it.

    The choice itself has no gradient; the decoder's passes to the features as if they were the code ("straight
    through"), which is the caller's to arrange: ``features + stop_gradient(code - features)``.

    Args:
      features: ``[..., D]``, what the encoder made.
      code: ``[..., D]``, the entry of the codebook that is nearest.
      commitment: scalar >= 0, weight of the pull on the features; 0.25 in the paper.
    Returns:
      ``[...]``, squared units of the features.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite input; a code that is never chosen gets no gradient.
    Source: van den Oord et al., 2017, Neural Discrete Representation Learning, eq. 3.
    """
    to_code = jnp.square(jax.lax.stop_gradient(features) - code).mean(-1)
    return to_code + commitment * jnp.square(features - jax.lax.stop_gradient(code)).mean(-1)

"""Losses of variational autoencoders."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(reconstruction="... A", target="... A", mean="... Z", log_std="... Z", weight="...")
def vae_losses(reconstruction: Array, target: Array, mean: Array, log_std: Array, weight: Array) -> tuple[Array, Array]:
    """Reconstruction and divergence of a (conditional) variational autoencoder, both AVERAGED over their dimensions.

    The first is ``w mean_dims (x_hat - x)^2`` with the weight DETACHED; the second, from the encoder's Gaussian to the
    standard normal, ``-1/2 mean_latent (1 + 2 log s - m^2 - s^2)``. Because both are means, their balance does not
    change with the number of dimensions, unlike that of an evidence bound. A2PR adds them as ``first + second / 2``,
    with weight 0 where the data's action is no better than the value.

    Args:
      reconstruction: ``[..., A]``, decoded from a sample of the encoder.
      target: ``[..., A]``, what was encoded.
      mean: ``[..., Z]``, of the encoder.
      log_std: ``[..., Z]``, natural logarithm of the encoder's standard deviation.
      weight: ``[...]``, >= 0; a bool array counts as 0 and 1.
    Returns:
      reconstruction ``[...]`` in squared units of the target, and divergence ``[...]`` in nats per latent dimension.
    Raises:
      ValueError: shapes differ.
    Edges: in the variance a ``log_std`` above 40 counts as 40, so that nothing overflows; networks cut it long before.
    Source: Kingma and Welling, 2014, Auto-Encoding Variational Bayes, appendix B; the weight and the means: Liu et al.,
      2024 (A2PR).
    """
    divergence = -0.5 * (1.0 + 2.0 * log_std - jnp.square(mean) - jnp.exp(2.0 * jnp.minimum(log_std, 40.0))).mean(-1)
    return jax.lax.stop_gradient(weight) * jnp.square(reconstruction - target).mean(-1), divergence

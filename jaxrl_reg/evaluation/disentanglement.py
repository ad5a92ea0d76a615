"""Whether each latent says one thing and each thing is said by one latent: modularity and compactness (InfoMEC).

``share [S, Z]`` holds ``mutual_information_share`` of every source and latent. Leave inactive latents out before.

Source: Hsu et al., 2023, Disentanglement via Latent Quantization, section 4, and its code.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.types import Array


def mutual_information_share(source: Array, code: Array, sources: int, codes: int) -> Array:
    """``I(source; code) / H(source)`` of the rows, by counting.

    Args:
      source: int ``[N]``, from 0 to ``sources - 1``.
      code: int ``[N]``, from 0 to ``codes - 1``.
      sources, codes: static.
    Returns:
      scalar in [0, 1]; 0 for a source that never changes.
    """
    joint = jax.nn.one_hot(source, sources).T @ jax.nn.one_hot(code, codes) / source.shape[0]
    p, q = joint.sum(axis=1), joint.sum(axis=0)
    information = jnp.where(joint > 0, joint * jnp.log(joint / (p[:, None] * q + 1e-30) + 1e-30), 0.0).sum()
    entropy = -jnp.where(p > 0, p * jnp.log(p + 1e-30), 0.0).sum()
    return jnp.where(entropy > 0, information / jnp.maximum(entropy, 1e-30), 0.0)


def modularity(share: Array) -> Array:
    """How far each latent speaks of one source only: mean over latents of ``max / sum``, from chance 0 to 1."""
    return _concentration(share, axis=0)


def compactness(share: Array) -> Array:
    """How far each source is in one latent only: mean over sources of ``max / sum``, from chance 0 to 1."""
    return _concentration(share, axis=1)


def _concentration(share: Array, axis: int) -> Array:
    count, total = share.shape[axis], share.sum(axis=axis)
    ratio = jnp.where(total > 0, share.max(axis=axis) / jnp.maximum(total, 1e-30), 1.0 / count)  # 1 / n is chance
    return (ratio.mean() - 1.0 / count) / (1.0 - 1.0 / count)

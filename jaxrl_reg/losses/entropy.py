"""Entropy: SAC's actor and temperature, and that of categorical policies with SIREN's regulariser of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(q="...", log_prob="...", temperature="")
def soft_actor_loss(q: Array, log_prob: Array, temperature: Array | float) -> Array:
    """``alpha log pi(a|s) - Q(s, a)`` at a reparameterised action, alpha DETACHED.

    Args:
      q: ``[...]``, the smallest critic at the policy's sample, gradients flowing into the action.
      log_prob: ``[...]``, of that same sample, nats.
      temperature: scalar alpha >= 0, units of value per nat.
    Returns:
      ``[...]``, units of value.
    Raises:
      ValueError: shapes differ.
    Edges: ``log_prob`` must be finite, also at temperature 0.
    Source: Haarnoja et al., 2018, Soft Actor-Critic Algorithms and Applications (arXiv 1812.05905), eq. 9; SAC-N and
      EDAC use it with their smallest critic.
    """
    return jax.lax.stop_gradient(temperature) * log_prob - q


@shapes(log_temperature="", log_prob="...", target_entropy="")
def temperature_loss(log_temperature: Array | float, log_prob: Array, target_entropy: Array | float) -> Array:
    """``-alpha (log pi(a|s) + target_entropy)``, ``alpha = exp(log_temperature)``, log-probability DETACHED.

    Alpha rises while the entropy ``-log pi`` is below its target. Some published code multiplies by ``log alpha``
    instead of ``alpha``, which changes the speed but not the sign.

    Args:
      log_temperature: scalar, the trained parameter.
      log_prob: ``[...]``, of the policy's sample, nats.
      target_entropy: scalar, nats; minus the number of action dimensions is usual.
    Returns:
      ``[...]``, nats times alpha.
    Raises:
      ValueError: a hyperparameter is not a scalar.
    Edges: finite for ``log_temperature`` below 80.
    Source: Haarnoja et al., 2018, Soft Actor-Critic Algorithms and Applications (arXiv 1812.05905), eq. 18.
    """
    return -jnp.exp(log_temperature) * (jax.lax.stop_gradient(log_prob) + target_entropy)


@shapes(logits="... V")
def categorical_entropy(logits: Array) -> Array:
    """``-sum_v p_v log p_v``, exact; gradient ``-p_v (log p_v + H)``.

    Args:
      logits: ``[..., V]``, any shift.
    Returns:
      ``[...]``, nats.
    Raises:
      ValueError: shapes.
    Edges: a logit of minus infinity counts 0, in value and gradient; 0 where all are.
    Source: textbook; ``entropy_from_logits`` of verl and trl.
    """
    possible = logits > -jnp.inf
    held = jnp.where(possible.any(-1, keepdims=True), logits, 0.0)
    log_p = jnp.where(possible, jax.nn.log_softmax(held, axis=-1), 0.0)
    return -jnp.where(possible, jnp.exp(log_p) * log_p, 0.0).sum(-1)


@shapes(logits="... V", mass="")
def nucleus_entropy(logits: Array, mass: Array | float, strict: bool = False) -> Array:
    """Entropy of the likeliest tokens that together hold ``mass``, renormalised; which they are is DETACHED.

    Args:
      logits: ``[..., V]``, any shift.
      mass: scalar in (0, 1].
      strict: leave out the token that crosses ``mass``, as the released code does, so that where the first holds it
        nothing is left; static.
    Returns:
      ``[...]``, nats; 0 for a nucleus of one token, or of none.
    Raises:
      ValueError: shapes, or the mass is not a scalar.
    Edges: a logit of minus infinity is in no nucleus; ties go by position.
    Source: Jiang et al., 2025, Rethinking Entropy Regularization in Large Reasoning Models (SIREN).
    """
    still = jax.lax.stop_gradient(logits)
    order = jnp.argsort(-still, axis=-1)
    probability = jnp.take_along_axis(jax.nn.softmax(still, axis=-1), order, axis=-1)
    total = jnp.cumsum(probability, axis=-1)
    inside = total < mass if strict else total - probability < mass
    inside = jnp.take_along_axis(inside, jnp.argsort(order, axis=-1), axis=-1) & (still > -jnp.inf)
    return categorical_entropy(jnp.where(inside, logits, -jnp.inf))


@shapes(value="... T", mask="... T", quantile="")
def masked_quantile(value: Array, mask: Array, quantile: Array | float) -> Array:
    """Quantile of each row over the entries that count, with linear interpolation.

    Args:
      value: ``[..., T]``.
      mask: ``[..., T]``, above 0 on entries that count, DETACHED.
      quantile: scalar in [0, 1].
    Returns:
      ``[...]``, in units of the value.
    Raises:
      ValueError: shapes differ, or the quantile is not a scalar.
    Edges: 0 for a row without entries.
    Source: textbook; SIREN's ``mask_by_quantile``.
    """
    counts = jax.lax.stop_gradient(mask) > 0
    ordered = jnp.sort(jnp.where(counts, value, jnp.inf), axis=-1)
    count = counts.sum(-1)
    position = quantile * jnp.maximum(count - 1, 0)
    low = jnp.floor(position)
    below, above = (jnp.clip(at, 0, value.shape[-1] - 1).astype(jnp.int32)[..., None] for at in (low, low + 1))
    above = jnp.minimum(above, jnp.maximum(count - 1, 0)[..., None])
    ordered = jnp.where(ordered < jnp.inf, ordered, 0.0)
    first, second = (jnp.take_along_axis(ordered, at, axis=-1)[..., 0] for at in (below, above))
    return first + (position - low) * (second - first)


@shapes(entropy="... T", mask="... T", quantile="")
def peak_mask(entropy: Array, mask: Array, quantile: Array | float) -> Array:
    """1 on those tokens whose entropy is above the row's quantile, DETACHED.

    Args:
      entropy: ``[..., T]``, nats.
      mask: ``[..., T]``, above 0 on tokens that count.
      quantile: scalar in [0, 1], over each row's own tokens.
    Returns:
      ``[..., T]``, 0 or 1.
    Raises:
      ValueError: shapes differ, or the quantile is not a scalar.
    Edges: strictly above: a row of equal entropies, or of one token, keeps none.
    Source: Jiang et al., 2025, Rethinking Entropy Regularization in Large Reasoning Models (SIREN).
    """
    entropy = jax.lax.stop_gradient(entropy)
    above = entropy > masked_quantile(entropy, mask, quantile)[..., None]
    return jax.lax.stop_gradient((above & (mask > 0)).astype(entropy.dtype))


@shapes(entropy="... T", mask="... T", anchor="", quantile="")
def anchored_entropy_loss(entropy: Array, mask: Array, anchor: Array | float, quantile: Array | float) -> Array:
    """``(H - anchor)^2``, ``H`` the mean over rows of the mean entropy of each row's peaks.

    The anchor is DETACHED: the same mean before training. Unlike a bonus it has nothing to gain from noise.

    Args:
      entropy: ``[..., T]``, nats, such as ``nucleus_entropy``.
      mask: ``[..., T]``, above 0 on tokens that count.
      anchor: scalar, nats, DETACHED.
      quantile: scalar in [0, 1], of ``peak_mask``.
    Returns:
      scalar, squared nats.
    Raises:
      ValueError: shapes differ, or a setting is not a scalar.
    Edges: a row without peaks counts as 0 in ``H``; no gradient at the anchor.
    Source: Jiang et al., 2025, Rethinking Entropy Regularization in Large Reasoning Models (SIREN).
    """
    return jnp.square(peak_entropy(entropy, mask, quantile) - jax.lax.stop_gradient(anchor))


def peak_entropy(entropy: Array, mask: Array, quantile: Array | float) -> Array:
    """``H`` of ``anchored_entropy_loss``, scalar, nats: what its anchor is measured with."""
    peaks = peak_mask(entropy, mask, quantile)
    mean = jnp.where(peaks > 0, entropy, 0.0).sum(-1) / jnp.maximum(peaks.sum(-1), 1.0)
    return mean.mean()

"""How far one distribution over actions is from another, in closed form: labels, priors and what stays near them."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes
from jaxrl_reg.losses.policy_gradient import log_ratio

Array = jax.Array

_LARGEST_EXPONENT = 20.0  # of a ratio of standard deviations; its square times a distance still fits float32
LARGEST_CHI2_EXPONENT = 8.0  # of one plus a chi-square over actions; beyond, float32 has few digits left of the sum


@shapes(logits="... A", target="... A")
def cross_entropy_loss(logits: Array, target: Array) -> Array:
    """``-sum_a target_a log softmax(logits)_a`` with the target DETACHED.

    Factorised actions are an axis more, ``[..., factors, A]``, whose sum the caller takes.

    Args:
      logits: ``[..., A]``, of the model that learns.
      target: ``[..., A]``, probabilities: one-hot for a label, softer where the label itself is a guess.
    Returns:
      ``[...]``, nats.
    Raises:
      ValueError: shapes differ.
    Edges: an action of target 0 counts as 0 even where its logit is minus infinity.
    Source: Baker et al., 2022, Video PreTraining (VPT): inverse dynamics and cloning by maximum likelihood.
    """
    target = jax.lax.stop_gradient(target)
    return -jnp.where(target == 0, 0.0, target * _finite_log_softmax(logits, target != 0)).sum(-1)


@shapes(p_logits="... A", q_logits="... A")
def categorical_kl(p_logits: Array, q_logits: Array) -> Array:
    """``KL(p || q)`` of two categorical distributions; gradients flow into both.

    With a pretrained ``p`` and the trained ``q`` it covers modes: ``q`` must keep what ``p`` would do. The reverse lets
    ``q`` forget whatever it does not use.

    Args:
      p_logits: ``[..., A]``, any shift.
      q_logits: ``[..., A]``, any shift.
    Returns:
      ``[...]``, nats; >= 0 up to rounding.
    Raises:
      ValueError: shapes differ.
    Edges: a logit of minus infinity in ``p`` counts as 0; in ``q`` alone it gives infinity, truly.
    Source: Baker et al., 2022, Video PreTraining (VPT): the penalty that stands in for an entropy bonus.
    """
    possible = p_logits > -jnp.inf
    log_p, log_q = _finite_log_softmax(p_logits, possible), _finite_log_softmax(q_logits, possible)
    return jnp.where(possible, jnp.exp(log_p) * (log_p - log_q), 0.0).sum(-1)


@shapes(p_logits="... A", p_inner="... K", q_logits="... A", q_inner="... K", switch="... A")
def switched_kl(p_logits: Array, p_inner: Array, q_logits: Array, q_inner: Array, switch: Array) -> Array:
    """``KL(p || q)`` of a choice and of a second one that is made only after some of the first.

    The chain rule: ``KL`` of the choices, plus that of the second ones as often as ``p`` comes to them. The sum of both
    without that weight, as in the released code, counts differences that never show in what is done.

    Args:
      p_logits: ``[..., A]``, of the first choice, any shift.
      p_inner: ``[..., K]``, of the second, the same after every first that has one.
      q_logits: ``[..., A]``.
      q_inner: ``[..., K]``.
      switch: ``[..., A]``, 1 for first choices after which the second is made, else 0.
    Returns:
      ``[...]``, nats; >= 0 up to rounding. Gradients flow into both.
    Raises:
      ValueError: shapes differ.
    Edges: as those of ``categorical_kl``.
    Source: Baker et al., 2022, Video PreTraining (VPT): keys with a switch for the camera, and its bins.
    """
    on = (jax.nn.softmax(p_logits, axis=-1) * switch).sum(-1)
    return categorical_kl(p_logits, q_logits) + on * categorical_kl(p_inner, q_inner)


@shapes(log_prob="...", reference="...")
def sampled_kl(log_prob: Array, reference: Array, estimator: str = "k3") -> Array:
    """An estimate of ``KL(pi || ref)`` from the probability of ONE sample of ``pi``; both are differentiated.

    With ``x = log pi - log ref``: ``k1 = x``, ``k2 = x^2 / 2``, ``k3 = exp(-x) - 1 + x``. Under samples of ``pi`` k1
    and k3 have the divergence as their mean, k2 has not. Their GRADIENTS are another matter. In the loss,
    differentiated where the sample stands: k1 has expectation 0, noise only; k2 has that of ``KL(pi || ref)``; k3 has
    that of ``KL(ref || pi)``, which holds on to whatever the reference does. Detached and subtracted from the reward:
    k1 gives ``KL(pi || ref)``; k2 something much smaller; k3 the difference of the two divergences' gradients, next to
    nothing near the reference. So: k2 (or, as trl and verl have it, k3) in the loss, k1 in the reward.

    Args:
      log_prob: ``[...]``, of what ``pi`` sampled, nats.
      reference: ``[...]``, of the same under the reference, nats.
      estimator: k1, k2 or k3; static.
    Returns:
      ``[...]``, nats; k2 and k3 are >= 0.
    Raises:
      ValueError: another estimator, or shapes differ.
    Edges: ``x`` is held within +-20, past which gradients are 0; it is 0 where both are minus infinity.
    Source: Schulman, 2020, Approximating KL Divergence; verl's ``kl``, ``mse`` and ``low_var_kl``.
    """
    x = log_ratio(log_prob, reference)
    if estimator == "k1":
        return x
    if estimator == "k2":
        return 0.5 * jnp.square(x)
    if estimator == "k3":
        return jnp.expm1(-x) + x
    raise ValueError(f"sampled_kl: estimator={estimator!r} must be k1, k2 or k3")


def _finite_log_softmax(logits: Array, counts: Array) -> Array:
    """Log-probabilities, 0 where they do not count, so that no infinity meets a zero in a derivative."""
    return jnp.where(counts, jax.nn.log_softmax(logits, axis=-1), 0.0)


@shapes(p_mean="... A", p_log_std="... A", q_mean="... A", q_log_std="... A")
def gaussian_kl(p_mean: Array, p_log_std: Array, q_mean: Array, q_log_std: Array) -> Array:
    """``KL(p || q)`` of two normal distributions with diagonal covariances, SUMMED over dimensions.

    The same for what ``tanh`` makes of the two, since a divergence does not change under a common bijection: so it
    serves squashed policies as well, without samples.

    Args:
      p_mean: ``[..., A]``.
      p_log_std: ``[..., A]``, natural logarithm.
      q_mean: ``[..., A]``.
      q_log_std: ``[..., A]``, natural logarithm.
    Returns:
      ``[...]``, nats; >= 0 up to rounding.
    Raises:
      ValueError: shapes differ.
    Edges: standard deviations whose ratio exceeds e^20, or below e^-20, count as at that bound within the exponentials.
    Source: Baker et al., 2022, Video PreTraining (VPT); the closed form is textbook.
    """
    ratio = jnp.exp(2.0 * jnp.minimum(p_log_std - q_log_std, _LARGEST_EXPONENT))
    shift = jnp.square(p_mean - q_mean) * jnp.exp(2.0 * jnp.minimum(-q_log_std, _LARGEST_EXPONENT))
    return (q_log_std - p_log_std + 0.5 * (ratio + shift - 1.0)).sum(-1)


@shapes(p_logits="... A", q_logits="... A")
def categorical_chi2(p_logits: Array, q_logits: Array) -> Array:
    """``chi2(p || q) = sum_a (p_a - q_a)^2 / q_a`` of two categorical distributions; gradients flow into both.

    Args:
      p_logits: ``[..., A]``, any shift.
      q_logits: ``[..., A]``, any shift.
    Returns:
      ``[...]``; >= 0 up to rounding.
    Raises:
      ValueError: shapes differ.
    Edges: at most e^8 - 1, with gradient 0, where it is larger or infinite (a logit of minus infinity in ``q``
      alone); an action that is impossible in both counts as 0.
    Source: Laidlaw et al., 2025, Correlated Proxies: the penalty over actions; the closed form is textbook.
    """
    possible = p_logits > -jnp.inf
    log_p, log_q = _finite_log_softmax(p_logits, possible), _finite_log_softmax(q_logits, possible)
    exponents = jnp.where(possible, jnp.minimum(2.0 * log_p - log_q, 2 * _LARGEST_EXPONENT), -jnp.inf)
    return jnp.expm1(jnp.minimum(jax.nn.logsumexp(exponents, axis=-1), LARGEST_CHI2_EXPONENT))


@shapes(p_mean="... A", p_log_std="... A", q_mean="... A", q_log_std="... A")
def gaussian_chi2(p_mean: Array, p_log_std: Array, q_mean: Array, q_log_std: Array) -> Array:
    """``chi2(p || q)`` of two normal distributions with diagonal covariances; the same for what ``tanh`` makes of them.

    One plus it is a product over dimensions: ``s_q^2 / (s_p sqrt(2 s_q^2 - s_p^2)) exp((m_p - m_q)^2 / (2 s_q^2 -
    s_p^2))``.

    Args:
      p_mean: ``[..., A]``.
      p_log_std: ``[..., A]``, natural logarithm.
      q_mean: ``[..., A]``.
      q_log_std: ``[..., A]``, natural logarithm.
    Returns:
      ``[...]``; >= 0 up to rounding.
    Raises:
      ValueError: shapes differ.
    Edges: at most e^8 - 1, with gradient 0, where it is larger or infinite, which it is from ``s_p^2 = 2 s_q^2`` on
      in any dimension. The released code takes ``gaussian_kl`` there.
    Source: Laidlaw et al., 2025, Correlated Proxies: the penalty over actions; the closed form is textbook.
    """
    log_ratio = p_log_std - q_log_std  # of standard deviations
    left = -2.0 * jnp.expm1(2.0 * jnp.minimum(log_ratio, 1.0) - math.log(2.0))  # (2 s_q^2 - s_p^2) / s_q^2
    finite = left > 0
    left = jnp.where(finite, left, 1.0)
    bounded = jnp.clip(-q_log_std, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    shift = jnp.square(p_mean - q_mean) * jnp.exp(2.0 * bounded) / left
    terms = jnp.minimum(shift, 2 * _LARGEST_EXPONENT) - log_ratio - 0.5 * jnp.log(left)
    terms = jnp.where(finite, terms, 2 * _LARGEST_EXPONENT)
    return jnp.expm1(jnp.minimum(terms.sum(-1), LARGEST_CHI2_EXPONENT))

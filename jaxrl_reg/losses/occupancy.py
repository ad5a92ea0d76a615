"""How far a policy's states and actions are from those of a reference policy, through a discriminator between the two.

A proxy reward that is correlated with the true one WHERE THE REFERENCE POLICY IS promises something of the true one as
long as the trained policy stays there: see ``true_gain_bound``. Divergences over actions do not see that a state is one
the reference never visits; these do. ``mu`` is the distribution of rows of the trained policy and ``mu0`` that of the
reference, over states or over states and actions. Rows of a rollout are undiscounted, the theory's are discounted: a
small difference where episodes are long against ``1 / (1 - gamma)``.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array

DIVERGENCES = ("chi2", "kl", "sqrt_chi2", "tv")


@shapes(policy_score="... N", reference_score="... M")
def discriminator_loss(policy_score: Array, reference_score: Array) -> tuple[Array, Array]:
    """``softplus(-d)`` on rows of the policy and ``softplus(d)`` on rows of the reference; add the mean of each.

    At the optimum ``d = log(mu / mu0)``, for equal weights of the two, whatever their numbers of rows.

    Args:
      policy_score: ``[..., N]``, ``d`` of rows of the policy that is trained, nats.
      reference_score: ``[..., M]``, ``d`` of rows of the reference.
    Returns:
      ``[..., N]`` and ``[..., M]``, nats, >= 0.
    Raises:
      ValueError: leading axes differ.
    Edges: linear in scores of the wrong sign, however large; finite for finite scores.
    Source: Laidlaw, Singhal and Dragan, 2025, Correlated Proxies (ORPO), and its released code.
    """
    return jax.nn.softplus(-policy_score), jax.nn.softplus(reference_score)


@shapes(score="B", log_clip="")
def occupancy_penalty(
    score: Array, divergence: str = "sqrt_chi2", trim: float = 0.01, log_clip: Array | float = 8.0
) -> Array:
    """What a row costs, to be subtracted from its reward: the derivative of the divergence by the occupancy, DETACHED.

    With ``w = exp(d)``: ``kl`` d; ``chi2`` w - 1, which is HALF the derivative; ``sqrt_chi2`` (w - 1) / sqrt(X), ``X``
    the trimmed mean of w - 1 over the batch, and w - 1 where X <= 0, as at the start, when both policies are one;
    ``tv`` sign(d). ``sqrt_chi2`` couples the rows, through X alone.

    Args:
      score: ``[B]``, ``d`` of rows of the policy that is trained, nats.
      divergence: chi2, kl, sqrt_chi2 or tv; static.
      trim: share of the rows that X leaves out at EACH end, rounded down to whole rows; static, below 0.5.
      log_clip: scalar > 0, largest ``d`` that is exponentiated; the occupancies' ratio is at most ``exp`` of it.
    Returns:
      ``[B]``, in units of the divergence; to be scaled by the spread of the proxy reward under the reference.
    Raises:
      ValueError: another divergence, ``trim`` outside [0, 0.5), or ``score`` is not a vector.
    Edges: with fewer than ``1 / trim`` rows none is left out (the released code averages nothing then, which is NaN).
    Source: Laidlaw, Singhal and Dragan, 2025, Correlated Proxies (ORPO), and its released code.
    """
    _known("occupancy_penalty", divergence, trim)
    score = jax.lax.stop_gradient(score)
    if divergence == "kl":
        return score
    if divergence == "tv":
        return jnp.sign(score)
    excess = jnp.expm1(jnp.minimum(score, jax.lax.stop_gradient(log_clip)))
    if divergence == "chi2":
        return excess
    mean = _trimmed_mean(excess, trim)
    return jnp.where(mean > 0, excess / jnp.sqrt(jnp.where(mean > 0, mean, 1.0)), excess)


@shapes(score="B", log_clip="")
def occupancy_divergence(
    score: Array, divergence: str = "sqrt_chi2", trim: float = 0.01, log_clip: Array | float = 8.0
) -> Array:
    """An estimate of the divergence of ``mu`` from ``mu0`` from scores of the policy's rows, DETACHED: for metrics.

    With ``w = exp(d)``: ``kl`` the mean of d; ``chi2`` the trimmed mean of w - 1; ``sqrt_chi2`` its root; ``tv`` the
    mean of max(0, 1 - 1 / w).

    Args:
      score: ``[B]``, ``d`` of rows of the policy that is trained, nats.
      divergence: chi2, kl, sqrt_chi2 or tv; static.
      trim: share of the rows left out at EACH end of the chi-square, rounded down; static, below 0.5.
      log_clip: scalar > 0, largest ``d`` that is exponentiated.
    Returns:
      scalar; kl in nats.
    Raises:
      ValueError: another divergence, ``trim`` outside [0, 0.5), or ``score`` is not a vector.
    Edges: an estimate below 0 has the root 0. Where the reference never is, the truth is infinite and this is not: a
      discriminator does not know what it has seen nothing of.
    Source: Laidlaw, Singhal and Dragan, 2025, Correlated Proxies (ORPO), and its released code.
    """
    _known("occupancy_divergence", divergence, trim)
    score = jax.lax.stop_gradient(score)
    if divergence == "kl":
        return score.mean()
    if divergence == "tv":
        return jnp.maximum(-jnp.expm1(-jnp.maximum(score, 0.0)), 0.0).mean()
    mean = _trimmed_mean(jnp.expm1(jnp.minimum(score, jax.lax.stop_gradient(log_clip))), trim)
    return mean if divergence == "chi2" else jnp.sqrt(jnp.maximum(mean, 0.0))


@shapes(proxy="B", true="B")
def reward_correlation(proxy: Array, true: Array) -> Array:
    """Pearson's correlation of two rewards over rows of a reference policy, DETACHED: a diagnostic.

    A proxy with correlation ``r > 0`` is *r-correlated*; hacking it is getting less of the true reward than the
    reference although it is. The coefficient of ``sqrt_chi2`` that the bound asks for is ``sqrt(1 - r^2)``, in units of
    the proxy's standard deviation over the same rows.

    Args:
      proxy: ``[B]``, the reward that is optimised.
      true: ``[B]``, the reward that is meant.
    Returns:
      scalar in [-1, 1].
    Raises:
      ValueError: shapes differ.
    Edges: 0 where one of the two does not vary: then nothing is promised.
    Source: Laidlaw, Singhal and Dragan, 2025, Correlated Proxies, definition of an r-correlated proxy.
    """
    proxy, true = (jax.lax.stop_gradient(x - x.mean()) for x in (proxy, true))
    scale = jnp.sqrt(jnp.square(proxy).mean()) * jnp.sqrt(jnp.square(true).mean())
    return jnp.clip(jnp.where(scale > 0, (proxy * true).mean() / jnp.where(scale > 0, scale, 1.0), 0.0), -1.0, 1.0)


@shapes(proxy_gain="...", chi2="...", correlation="")
def true_gain_bound(proxy_gain: Array, chi2: Array, correlation: Array | float) -> Array:
    """The least that the true reward can have gained: ``(1/r) (gain - sqrt((1 - r^2) chi2))``.

    Both gains are differences of means of a reward under ``mu`` and under ``mu0``, in units of its standard deviation
    under ``mu0``. Standardise both rewards under ``mu0`` and write the proxy as ``r`` times the true one plus a rest,
    which has mean 0, is uncorrelated with it and has variance ``1 - r^2`` there: the rest gains at most
    ``sqrt(chi2 (1 - r^2))`` by Cauchy and Schwarz. It is 0 at the reference, so the policy that maximises it is never
    worse in truth.

    Args:
      proxy_gain: ``[...]``, in standard deviations of the proxy.
      chi2: ``[...]`` >= 0, ``E_mu0[(mu / mu0 - 1)^2]``.
      correlation: scalar, ``r``, of the two rewards under ``mu0``.
    Returns:
      ``[...]``, in standard deviations of the true reward.
    Raises:
      ValueError: shapes differ.
    Edges: minus infinity for r <= 0, as a proxy that is not correlated promises nothing; a chi-square below 0 counts as
      0, and at 0 the root's gradient, truly infinite, is 0.
    Source: Laidlaw, Singhal and Dragan, 2025, Correlated Proxies, the theorem on r-correlated proxies.
    """
    rest = jnp.maximum(1.0 - jnp.square(correlation), 0.0) * jnp.maximum(chi2, 0.0)
    root = jnp.where(rest > 0, jnp.sqrt(jnp.where(rest > 0, rest, 1.0)), 0.0)
    correlated = correlation > 0
    return jnp.where(correlated, (proxy_gain - root) / jnp.where(correlated, correlation, 1.0), -jnp.inf)


def _trimmed_mean(values: Array, trim: float) -> Array:
    """The mean without ``floor(trim B)`` of the least and as many of the greatest."""
    size = len(values)
    cut = math.floor(trim * size)
    return jnp.sort(values)[cut : size - cut].mean()


def _known(name: str, divergence: str, trim: float) -> None:
    if divergence not in DIVERGENCES:
        raise ValueError(f"{name}: divergence={divergence!r} must be one of {', '.join(DIVERGENCES)}")
    if not 0 <= trim < 0.5:
        raise ValueError(f"{name}: trim={trim} must be in [0, 0.5), a share of the rows at each end")

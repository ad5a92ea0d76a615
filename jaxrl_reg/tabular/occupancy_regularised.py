"""Policies that maximise a proxy reward and stay near a reference policy's occupancy, exactly.

Objective: the mean proxy reward under the normalised discounted occupancy ``mu``, minus ``coefficient`` times a
divergence of ``mu`` from ``mu0``, that of the reference: over states and actions or over states, or over actions alone,
averaged over the states that are visited. Shapes: ``S`` states, ``A`` actions; everything is pure and may be traced.

Source: Laidlaw, Singhal and Dragan, 2025, Correlated Proxies. ``losses.true_gain_bound`` says what the true reward
gains; with the coefficient ``sigma sqrt(1 - r^2)`` of :func:`proxy_statistics` the objective ``sqrt_chi2`` is that
bound.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg.errors import unknown
from jaxrl_reg.losses import categorical_kl
from jaxrl_reg.tabular.discounted import occupancy
from jaxrl_reg.types import Array

DIVERGENCES = ("sqrt_chi2", "sqrt_chi2_state", "chi2", "kl", "kl_state", "action_kl", "sqrt_action_chi2")


def divergence_of(divergence: str, mu: Array, mu0: Array, log_policy: Array, log_reference: Array) -> Array:
    """The divergence of an occupancy ``mu [S, A]`` from ``mu0 [S, A]``, a scalar >= 0.

    ``sqrt_chi2``, ``chi2`` and ``kl`` are over states and actions, ``..._state`` over states; ``action_kl`` and
    ``sqrt_action_chi2`` are means over the visited states of KL and of the root of the chi-square between the policies.
    ``divergence`` is static. States that neither visits count as 0. At ``mu = mu0`` the slope of a root is 0 here.

    Raises ``UserError`` for another divergence.
    """
    if divergence not in DIVERGENCES:
        raise unknown("divergence", divergence, DIVERGENCES)
    if divergence == "action_kl":
        return (mu.sum(-1) * categorical_kl(log_policy, log_reference)).sum()
    if divergence == "sqrt_action_chi2":
        policy, reference = jnp.exp(log_policy), jnp.exp(log_reference)
        return (mu.sum(-1) * _root((jnp.square(policy - reference) / reference).sum(-1))).sum()
    if divergence.endswith("_state"):
        mu, mu0 = mu.sum(-1), mu0.sum(-1)
    visited = mu0 > 0
    base = jnp.where(visited, mu0, 1.0)
    if divergence.startswith("kl"):
        both = visited & (mu > 0)
        return jnp.where(both, mu * jnp.log(jnp.where(both, mu, 1.0) / base), 0.0).sum()
    chi2 = jnp.where(visited, jnp.square(mu - mu0) / base, 0.0).sum()
    return chi2 if divergence == "chi2" else _root(chi2)


def regularised_policy(
    transition: Array,
    proxy: Array,
    reference: Array,
    initial: Array,
    discount: Array | float,
    coefficient: Array | float,
    divergence: str = "sqrt_chi2",
    iterations: int = 400,
    learning_rate: Array | float = 0.1,
) -> tuple[Array, Array]:
    """The policy that maximises ``E_mu[proxy] - coefficient divergence(mu, mu0)``, by Adam on logits.

    Args:
      transition: ``[S, A, S]``.
      proxy: ``[S, A]``, the reward that is optimised.
      reference: ``[S, A]``, the reference's probabilities, all above 0; the logits begin as their logarithm.
      initial: ``[S]``.
      discount: scalar below 1.
      coefficient: scalar >= 0, in units of the proxy's mean reward per step.
      divergence: one of ``DIVERGENCES``; static.
      iterations: Adam steps, each one dense solve with its derivative; static.
      learning_rate: scalar, of Adam.

    Returns:
      ``policy [S, A]`` and ``occupancy [S, A]``.

    Raises:
      UserError: for another divergence.
    """
    log_reference, mu0 = jnp.log(reference), occupancy(transition, reference, discount, initial)

    def loss(logits: Array) -> Array:
        log_policy = jax.nn.log_softmax(logits)
        mu = occupancy(transition, jnp.exp(log_policy), discount, initial)
        return coefficient * divergence_of(divergence, mu, mu0, log_policy, log_reference) - (mu * proxy).sum()

    optimiser = optax.adam(learning_rate)

    def step(_: Array, carry: tuple[Array, optax.OptState]) -> tuple[Array, optax.OptState]:
        logits, state = carry
        updates, state = optimiser.update(jax.grad(loss)(logits), state)
        return logits + updates, state

    logits, _ = jax.lax.fori_loop(0, iterations, step, (log_reference, optimiser.init(log_reference)))
    policy = jax.nn.softmax(logits)
    return policy, occupancy(transition, policy, discount, initial)


def proxy_statistics(occupancy: Array, proxy: Array, true: Array) -> tuple[Array, Array, Array]:
    """``(sigma_proxy, sigma_true, correlation)`` of two rewards ``[S, A]`` under the reference's ``occupancy [S, A]``.

    Scalars; the correlation is 0 where one of the two does not vary.
    """

    def centred(reward: Array) -> tuple[Array, Array]:
        rest = reward - (occupancy * reward).sum()
        return rest, jnp.sqrt((occupancy * jnp.square(rest)).sum())

    (proxy, sigma_proxy), (true, sigma_true) = centred(proxy), centred(true)
    scale = sigma_proxy * sigma_true
    correlation = jnp.where(scale > 0, (occupancy * proxy * true).sum() / jnp.where(scale > 0, scale, 1.0), 0.0)
    return sigma_proxy, sigma_true, correlation


def _root(x: Array) -> Array:
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)

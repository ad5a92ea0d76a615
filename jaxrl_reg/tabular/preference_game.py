"""General preferences among ``N`` responses, exactly: how far a policy is from Nash's, and that policy.

``preference [N, N]`` holds the probability that the row beats the column; with its transpose it sums to 1, and its
diagonal is 1/2. The game's value is ``J(p, q) = p P q - tau KL(p || ref) + tau KL(q || ref)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses import categorical_kl, kl_regularised_value
from jaxrl_reg.types import Array, Key


def rock_paper_scissors(
    key: Key, count: int, cycle: Array | float = 1.5, spread: Array | float = 0.5
) -> tuple[Array, Array]:
    """``(preference [N, N], log_ref [N])`` of three camps that beat one another in turn, and a reference.

    Camp ``i mod 3`` beats the next one by ``cycle`` in the log-odds, to which strengths of standard deviation
    ``spread`` are added. No reward explains such preferences.
    """
    strength_key, ref_key = jax.random.split(key)
    strength = spread * jax.random.normal(strength_key, (count,))
    ahead = (jnp.arange(count)[None] - jnp.arange(count)[:, None]) % 3
    turn = jnp.where(ahead == 1, 1.0, jnp.where(ahead == 2, -1.0, 0.0))
    preference = jax.nn.sigmoid(cycle * turn + strength[:, None] - strength)
    return preference, jax.nn.log_softmax(0.7 * jax.random.normal(ref_key, (count,)))


def duality_gap(log_policy: Array, log_ref: Array, preference: Array, tau: Array | float) -> Array:
    """``max_p J(p, pi) - 1/2``, a scalar >= 0, and 0 at the Nash policy only.

    The game is symmetric, so that one side says all; the two-sided gap is twice this. ``log_policy`` and ``log_ref``
    ``[N]`` are normalised.
    """
    best = kl_regularised_value(preference @ jnp.exp(log_policy), log_ref, tau)[0]
    return best + tau * categorical_kl(log_policy, log_ref) - 0.5


def inpo_step(log_policy: Array, log_ref: Array, preference: Array, eta: Array | float, tau: Array | float) -> Array:
    """One exact step of mirror descent in self-play, ``log pi <- P pi / eta + (tau / eta) log ref + (1 - tau / eta) log
    pi``, normalised ``[N]``: what ``losses.inpo_loss`` aims at."""
    share = tau / eta
    mixed = share * log_ref + (1.0 - share) * log_policy
    return jax.nn.log_softmax(preference @ jnp.exp(log_policy) / eta + mixed)


def nash(log_ref: Array, preference: Array, tau: Array | float, share: float = 0.05, iterations: int = 2000) -> Array:
    """The log-policy ``[N]`` that nobody beats, by mirror descent with ``tau / eta = share``.

    Too large a share cycles for ever in strong games; look at ``duality_gap`` of what comes out.
    """

    def body(log_policy: Array, _: None) -> tuple[Array, None]:
        return inpo_step(log_policy, log_ref, preference, tau / share, tau), None

    return jax.lax.scan(body, log_ref, None, iterations)[0]


def win_rate(log_policy: Array, log_other: Array, preference: Array) -> Array:
    """The probability that a response of one policy beats one of the other, both ``[N]``; a scalar, 1/2 for itself."""
    return jnp.exp(log_policy) @ preference @ jnp.exp(log_other)

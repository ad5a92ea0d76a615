"""Gaussian policies: squashed by tanh (SAC family), and unsquashed ones whose samples are clipped when acting (IQL).

The tanh-normal is written out here because the change of variables needs care at the edges: recorded actions are often
exactly +-1, where the inverse of tanh is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxrl_reg.networks import mlp
from jaxrl_reg.policies import Policy
from jaxrl_reg.types import Array, Key, PyTree, Spec

EDGE = 1.0 - 1e-6  # recorded actions are brought to +-EDGE before the inverse of tanh
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def normal_log_prob(mean: Array, log_std: Array, x: Array) -> Array:
    """Log-density of a diagonal normal, summed over the last axis."""
    z = (x - mean) * jnp.exp(-log_std)
    return jnp.sum(-0.5 * jnp.square(z) - log_std - _HALF_LOG_2PI, axis=-1)


def normal_entropy(log_std: Array) -> Array:
    """Entropy of a diagonal normal, summed over the last axis."""
    return jnp.sum(log_std + 0.5 + _HALF_LOG_2PI, axis=-1)


def _log_slope(u: Array) -> Array:
    """``log(d tanh(u) / du)``, exact also where ``1 - tanh(u)^2`` rounds to 0."""
    return 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))


def tanh_normal_sample(key: Key, mean: Array, log_std: Array, shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
    """Reparameterised ``tanh(mean + std n)`` and its log-density: ``[*shape, ..., A]`` and ``[*shape, ...]``."""
    mean, log_std = jnp.broadcast_arrays(mean, log_std)
    noise = jax.random.normal(key, (*shape, *mean.shape), mean.dtype)
    u = mean + jnp.exp(log_std) * noise
    # The noise is known, so no division by the standard deviation is needed.
    log_prob = jnp.sum(-0.5 * jnp.square(noise) - log_std - _HALF_LOG_2PI - _log_slope(u), axis=-1)
    return jnp.tanh(u), log_prob


def tanh_normal_log_prob(mean: Array, log_std: Array, action: Array) -> Array:
    """Log-density of a recorded action in [-1, 1]; value and gradients are finite at +-1 too."""
    u = jnp.arctanh(jnp.clip(action, -EDGE, EDGE))
    return normal_log_prob(mean, log_std, u) - jnp.sum(_log_slope(u), axis=-1)


def squashed(
    spec: Spec, hidden: Sequence[int] = (256, 256), *, log_std_range: tuple[float, float] = (-5.0, 2.0), **options
) -> Policy:
    """Tanh-squashed normal with a log standard deviation that depends on the state, clipped to ``log_std_range``.

    ``mode`` is ``tanh(mean)``, the usual choice for evaluation. ``options`` go to ``networks.mlp``.
    Haarnoja et al. 2018, Soft Actor-Critic, appendix C.
    """
    network = mlp((spec.observation_dim, *hidden, 2 * spec.action_dim), **options)

    def apply(params: PyTree, observation: Array) -> tuple[Array, Array]:
        mean, log_std = jnp.split(network.apply(params, observation), 2, axis=-1)
        return mean, jnp.clip(log_std, *log_std_range)

    def sample(params: PyTree, observation: Array, key: Key, shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        return tanh_normal_sample(key, *apply(params, observation), shape)

    def log_prob(params: PyTree, observation: Array, action: Array) -> Array:
        return tanh_normal_log_prob(*apply(params, observation), action)

    def mode(params: PyTree, observation: Array) -> Array:
        return jnp.tanh(apply(params, observation)[0])

    def log_prob_of(distribution: tuple[Array, Array], action: Array) -> Array:
        return tanh_normal_log_prob(*distribution, action)

    def entropy_of(distribution: tuple[Array, Array], key: Key) -> Array:
        return -tanh_normal_sample(key, *distribution)[1]

    return Policy(network.init, apply, sample, log_prob, mode, log_prob_of, entropy_of)


def clipped(
    spec: Spec,
    hidden: Sequence[int] = (256, 256),
    *,
    log_std_range: tuple[float, float] = (-5.0, 2.0),
    initial_log_std: float = 0.0,
    tanh_mean: bool = True,
    **options,
) -> Policy:
    """Normal with one log standard deviation per action dimension for all states (``params["log_std"]``, clipped).

    ``sample`` and ``log_prob`` are those of the plain normal, so samples may leave [-1, 1]: clip when acting.
    ``tanh_mean`` keeps the mean inside. ``options`` go to ``networks.mlp``.
    Kostrikov et al. 2021, Offline Reinforcement Learning with Implicit Q-Learning (released code).
    """
    final = "tanh" if tanh_mean else "identity"
    network = mlp((spec.observation_dim, *hidden, spec.action_dim), final_activation=final, **options)

    def init(key: Key) -> PyTree:
        return {"mean": network.init(key), "log_std": jnp.full((spec.action_dim,), initial_log_std, jnp.float32)}

    def apply(params: PyTree, observation: Array, *, key: Key | None = None) -> tuple[Array, Array]:
        mean = network.apply(params["mean"], observation, key=key)
        return mean, jnp.broadcast_to(jnp.clip(params["log_std"], *log_std_range), mean.shape)

    def sample(params: PyTree, observation: Array, key: Key, shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        mean, log_std = apply(params, observation)
        noise = jax.random.normal(key, (*shape, *mean.shape), mean.dtype)
        log_prob = jnp.sum(-0.5 * jnp.square(noise) - log_std - _HALF_LOG_2PI, axis=-1)
        return mean + jnp.exp(log_std) * noise, log_prob

    def log_prob(params: PyTree, observation: Array, action: Array, *, key: Key | None = None) -> Array:
        return normal_log_prob(*apply(params, observation, key=key), action)

    def mode(params: PyTree, observation: Array) -> Array:
        return jnp.clip(apply(params, observation)[0], -1.0, 1.0)

    def entropy(params: PyTree, observation: Array) -> Array:
        return normal_entropy(apply(params, observation)[1])

    def log_prob_of(distribution: tuple[Array, Array], action: Array) -> Array:
        return normal_log_prob(*distribution, action)

    def entropy_of(distribution: tuple[Array, Array], key: Key | None = None) -> Array:
        return normal_entropy(distribution[1])

    return Policy(init, apply, sample, log_prob, mode, log_prob_of, entropy_of, entropy)

"""Deterministic policies ``a = tanh(f(s))`` and the noise that TD3 adds to them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxrl_reg.networks import mlp
from jaxrl_reg.types import Array, Key, Network, Spec


def make(spec: Spec, hidden: Sequence[int] = (256, 256), **options) -> Network:
    """``apply(params, observation [..., O]) -> action [..., A]`` in [-1, 1]. ``options`` go to ``networks.mlp``."""
    return mlp((spec.observation_dim, *hidden, spec.action_dim), final_activation="tanh", **options)


def smoothed(action: Array, key: Key, noise: Array | float, clip: Array | float) -> Array:
    """Target policy smoothing: add normal noise of scale ``noise`` cut at +-``clip``, stay in [-1, 1].

    Fujimoto et al. 2018, Addressing Function Approximation Error in Actor-Critic Methods, eq. 14.
    """
    epsilon = jnp.clip(noise * jax.random.normal(key, action.shape, action.dtype), -clip, clip)
    return jnp.clip(action + epsilon, -1.0, 1.0)


def explore(action: Array, key: Key, noise: Array | float) -> Array:
    """Exploration: add normal noise of scale ``noise`` and stay in [-1, 1]."""
    return jnp.clip(action + noise * jax.random.normal(key, action.shape, action.dtype), -1.0, 1.0)

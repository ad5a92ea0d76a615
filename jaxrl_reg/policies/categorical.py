"""Categorical policies over ``spec.action_dim`` discrete actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxrl_reg.networks import mlp
from jaxrl_reg.policies import Policy
from jaxrl_reg.types import Array, Key, PyTree, Spec


def _distribution(logits: Array) -> Any:  # Distrax types its arrays as NumPy's or JAX's
    import distrax  # late: the import takes seconds and only discrete policies need it

    return distrax.Categorical(logits=logits)


def make(spec: Spec, hidden: Sequence[int] = (256, 256), **options) -> Policy:
    """``apply(params, observation [..., O]) -> logits [..., A]``; actions are int32 ``[...]``.

    ``options`` go to ``networks.mlp``.
    """
    network = mlp((spec.observation_dim, *hidden, spec.action_dim), **options)

    def sample(params: PyTree, observation: Array, key: Key, shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        distribution = _distribution(network.apply(params, observation))
        action = distribution.sample(seed=key, sample_shape=shape).astype(jnp.int32)
        return action, distribution.log_prob(action)

    def log_prob(params: PyTree, observation: Array, action: Array) -> Array:
        return _distribution(network.apply(params, observation)).log_prob(action)

    def mode(params: PyTree, observation: Array) -> Array:
        return _distribution(network.apply(params, observation)).mode().astype(jnp.int32)

    def entropy(params: PyTree, observation: Array) -> Array:
        return _distribution(network.apply(params, observation)).entropy()

    return Policy(network.init, network.apply, sample, log_prob, mode, entropy)

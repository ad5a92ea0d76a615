"""Categorical policies over ``spec.action_dim`` discrete actions: numbered, or coded as environments take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import need
from jaxrl_reg.networks import mlp
from jaxrl_reg.policies import Policy
from jaxrl_reg.types import Array, Key, PyTree, Spec


def _distribution(logits: Array) -> Any:  # Distrax types its arrays as NumPy's or JAX's
    need("distrax")
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

    def log_prob_of(logits: Array, action: Array) -> Array:
        return _distribution(logits).log_prob(action)

    def entropy_of(logits: Array, key: Key | None = None) -> Array:
        return _distribution(logits).entropy()

    return Policy(network.init, network.apply, sample, log_prob, mode, log_prob_of, entropy_of, entropy)


def code(choice: Array, actions: int) -> Array:
    """Choices int32 ``[...]`` as actions ``[..., A]``: 1 for the one taken, -1 for the others."""
    return 2.0 * jax.nn.one_hot(choice, actions) - 1.0


def coded(spec: Spec, hidden: Sequence[int] = (256, 256), **options) -> Policy:
    """A choice among ``A = spec.action_dim`` for worlds whose ``Spec.discrete`` is true; logits ``[..., A]``.

    Actions are float32 ``[..., A]`` in [-1, 1], as everywhere: ``sample`` and ``mode`` give :func:`code`, and
    ``log_prob`` reads the choice as the world does, the largest component and the first of equals, so that actions of
    any other policy have their probability too. The entropy is exact. ``options`` go to ``networks.mlp``.
    """
    network = mlp((spec.observation_dim, *hidden, spec.action_dim), **options)

    def log_prob_of(logits: Array, action: Array) -> Array:
        choice = jnp.argmax(action, axis=-1, keepdims=True)
        return jnp.take_along_axis(jax.nn.log_softmax(logits), choice, axis=-1)[..., 0]

    def entropy_of(logits: Array, key: Key | None = None) -> Array:
        log_probs = jax.nn.log_softmax(logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

    def sample(params: PyTree, observation: Array, key: Key, shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        logits = network.apply(params, observation)
        action = code(jax.random.categorical(key, logits, shape=(*shape, *logits.shape[:-1])), spec.action_dim)
        return action, log_prob_of(jnp.broadcast_to(logits, action.shape), action)

    def log_prob(params: PyTree, observation: Array, action: Array) -> Array:
        return log_prob_of(network.apply(params, observation), action)

    def mode(params: PyTree, observation: Array) -> Array:
        return code(jnp.argmax(network.apply(params, observation), axis=-1), spec.action_dim)

    def entropy(params: PyTree, observation: Array) -> Array:
        return entropy_of(network.apply(params, observation))

    return Policy(network.init, network.apply, sample, log_prob, mode, log_prob_of, entropy_of, entropy)

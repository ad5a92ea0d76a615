"""An adversary that is taught what to show: perturbations under which a victim acts as another policy would.

``losses.targeted_attack_loss``, with each state weighted by ``1 + tanh`` of a network that is learnt so that one step
of the adversary on the weighted loss raises the other policy's value of what the victim then does
(``transforms.weight_hypergradient``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.evaluation.attacks import Mean
from jaxrl_reg.transforms import adam, weight_hypergradient
from jaxrl_reg.types import Array, Metrics, Network, PyTree

LOG_STD = (math.log(0.2), 0.0)  # of the policy that is imitated


class Intended(NamedTuple):
    """The policy that the victim shall act as: ``distribution(observation) -> (mean, log_std)`` before the squashing,
    ``[..., A]`` each, and its value ``q(observation, action) -> [...]``."""

    distribution: Callable[[Array], tuple[Array, Array]]
    q: Callable[[Array, Array], Array]


class Teaching(NamedTuple):
    """Losses over the adversary's parameters, for one victim.

    ``rows(params, observation) -> [B]`` is the loss of each state, ``weight(params, observation) -> [B]`` what it
    counts, by the parameters of the weighting, and ``value(params, observation) -> scalar`` what the intended policy
    thinks of the victim's actions.
    """

    rows: Callable[[PyTree, Array], Array]
    weight: Callable[[PyTree, Array], Array]
    value: Callable[[PyTree, Array], Array]


def teaching(
    victim: Mean,
    intended: Intended,
    shift: Callable[[PyTree, Array], Array],
    weights: Network | None,
    seen: Callable[[Array], Array],
) -> Teaching:
    """The losses; ``shift(params, observation)`` is the perturbation, ``seen`` the observation as ``weights`` takes
    it, and without ``weights`` every state counts the same."""

    def answer(params: PyTree, observation: Array) -> Array:
        return victim(observation + shift(params, observation))

    def rows(params: PyTree, observation: Array) -> Array:
        mean, log_std = intended.distribution(observation)
        mean, log_std = jnp.tanh(mean), jnp.clip(log_std, *LOG_STD)
        each = jnp.ones(observation.shape[:-1])
        return losses.targeted_attack_loss(answer(params, observation), mean, log_std, each)

    def weight(params: PyTree, observation: Array) -> Array:
        if weights is None:
            return jnp.ones(observation.shape[:-1])
        return 1.0 + jnp.tanh(weights.apply(params, seen(observation))[..., 0])

    def value(params: PyTree, observation: Array) -> Array:
        return intended.q(observation, answer(params, observation)).mean()

    return Teaching(rows, weight, value)


def weighted(own: Teaching, weighting: PyTree, params: PyTree, observation: Array) -> Array:
    """The adversary's loss of a batch ``[B, O]``; the weights are held."""
    counted = jax.lax.stop_gradient(own.weight(weighting, observation))
    return (counted * own.rows(params, observation)).mean()


def imitate(
    own: Teaching,
    adversary: _common.Trainable,
    weighting: PyTree,
    observations: Callable[[Array], Array],
    keys: Array,
    learning_rate: Array | float,
) -> tuple[_common.Trainable, Array]:
    """An Adam step on ``observations(key) [B, O]`` for each of the keys; the losses ``[len(keys)]``."""

    def step(model: _common.Trainable, key: Array) -> tuple[_common.Trainable, Array]:
        observation = observations(key)

        def loss(params: PyTree) -> tuple[Array, Array]:
            value = weighted(own, weighting, params, observation)
            return value, value

        return _common.descend(loss, model, adam(learning_rate))

    return jax.lax.scan(step, adversary, keys)


def weigh(
    own: Teaching,
    adversary: PyTree,
    weighting: _common.Trainable,
    observation: Array,
    inner_rate: Array | float,
    learning_rate: Array | float,
) -> tuple[_common.Trainable, Metrics]:
    """An Adam step of the weighting, by what one step of ``inner_rate`` of the adversary would be worth."""

    def loss(params: PyTree) -> Array:
        return weighted(own, weighting.params, params, observation)

    moved = jax.tree.map(lambda p, g: p - inner_rate * g, adversary, jax.grad(loss)(adversary))
    outer = jax.grad(lambda params: -own.value(params, observation))(moved)
    slope = weight_hypergradient(lambda params: own.rows(params, observation), outer, adversary, inner_rate)
    slope = jax.lax.stop_gradient(slope / (slope.std() + 1e-12))

    def of_weights(params: PyTree) -> tuple[Array, Array]:
        counted = own.weight(params, observation)
        return (slope * counted).mean(), counted.std()

    weighting, spread = _common.descend(of_weights, weighting, adam(learning_rate))
    return weighting, {"weight_std": spread}

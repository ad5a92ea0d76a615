"""What is kept of an adversary that has learnt, and the attack that it is.

Arrays alone, so that it can be mapped over members, stored, and put to policies that it has not met.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import networks
from jaxrl_reg.agents.online import ppo
from jaxrl_reg.errors import unknown
from jaxrl_reg.evaluation.attacks import Attack, Mean, critic, director, learned
from jaxrl_reg.types import Array, PyTree, Spec

KINDS = ("sarsa", "sa_rl", "pa_ad", "rat")
KNOWS = ("sarsa", "pa_ad")  # those that need the gradients of the policy that they are put to
FAR = 10.0  # of a standardised observation


class Learnt(NamedTuple):
    """``params`` of its network, which sees observations standardised by ``center`` and ``spread`` ``[O]``."""

    params: PyTree
    center: Array
    spread: Array


def seen(observation: Array, center: Array, spread: Array) -> Array:
    """The observation ``[..., O]`` as a network takes it."""
    return jnp.clip((observation - center) / jnp.maximum(spread, 1e-6), -FAR, FAR)


def network(kind: str, spec: Spec, hidden: tuple[int, ...]) -> Any:
    """The network of an adversary of this kind, for a world of this ``spec``: ``init(key)`` and ``apply``, or ``mode``
    of those that are PPO's.

    Raises:
      UserError: for an unknown kind.
    """
    size, actions = spec.observation_dim, spec.action_dim
    if kind == "rat":
        return networks.mlp((size, *hidden, size), activation="tanh", final_activation="tanh")
    if kind == "sarsa":
        return networks.mlp((size + actions, *hidden, 1), activation="tanh")
    if kind not in KINDS:
        raise unknown("adversary that learns", kind, KINDS)
    own = dataclasses.replace(spec, action_dim=size if kind == "sa_rl" else actions, discrete=False)
    return ppo.actor_of(ppo.Config(hidden=hidden), own)


def template(kind: str, spec: Spec, hidden: tuple[int, ...]) -> Learnt:
    """Shapes and types of a ``Learnt``, without a member axis."""
    row = jax.ShapeDtypeStruct((spec.observation_dim,), jnp.float32)
    return Learnt(jax.eval_shape(network(kind, spec, hidden).init, jax.random.key(0)), row, row)


def attack_of(
    kind: str, learnt: Learnt, victim: Mean | None, epsilon: Array, spec: Spec, hidden: tuple[int, ...]
) -> Attack:
    """The attack within the box ``epsilon [O]``; ``victim`` may be None for the kinds that are not in ``KNOWS``."""
    own = network(kind, spec, hidden)

    def look(observation: Array) -> Array:
        return seen(observation, learnt.center, learnt.spread)

    if kind == "rat":
        return learned(lambda observation: own.apply(learnt.params, look(observation)), epsilon)
    if kind == "sa_rl":
        return learned(lambda observation: own.mode(learnt.params, look(observation)), epsilon)
    assert victim is not None
    if kind == "pa_ad":
        return director(lambda observation: own.mode(learnt.params, look(observation)), victim, epsilon)

    def harm(observation: Array, action: Array) -> Array:  # the network tells what the adversary gets
        return -own.apply(learnt.params, jnp.concatenate([look(observation), action], axis=-1))[..., 0]

    return critic(victim, harm, epsilon)

"""Finite Markov decision processes with a fixed number of steps, and their exact solutions.

Shapes: ``H`` steps, ``S`` states, ``A`` actions. Everything may depend on the step: ``policy [H, S, A]``, values
``[H, S]``. All functions are pure, take traced arrays and can be mapped. For discounted processes see
``tabular.discounted``.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.losses import kl_regularised_value
from jaxrl_reg.types import Array, Key

_einsum = functools.partial(jnp.einsum, precision="highest")


class Process(NamedTuple):
    """``transition [H, S, A, S]`` probabilities, expected ``reward [H, S, A]``, probabilities of the first state."""

    transition: Array
    reward: Array
    initial: Array  # [S]


def lock(length: int, actions: int = 4, success: float = 0.98, decoy: float = 0.05, seed: int = 0) -> Process:
    """A combination lock ("deep sea"): ``length`` columns and as many steps, starting in the first.

    In every cell one action, drawn from ``seed``, leads a column on with probability ``success``; all else leads one
    back. Reward 1 in the last column at the last step, ``decoy`` in the first. Undirected exploration never gets there.
    """
    columns = jnp.arange(length)
    right = jax.random.randint(jax.random.key(seed), (length, length), 0, actions)
    advance = success * jax.nn.one_hot(right, actions)  # [H, S, A]
    onward = jax.nn.one_hot(jnp.minimum(columns + 1, length - 1), length)
    back = jax.nn.one_hot(jnp.maximum(columns - 1, 0), length)
    transition = advance[..., None] * onward[:, None] + (1 - advance)[..., None] * back[:, None]
    reward = jnp.zeros((length, length, actions)).at[-1, -1].set(1.0).at[-1, 0].set(decoy)
    return Process(transition, reward, jax.nn.one_hot(0, length))


def value_iteration(process: Process) -> tuple[Array, Array]:
    """``(V* [H, S], Q* [H, S, A])``."""

    def body(following, stage):
        transition, reward = stage
        q = reward + _einsum("sat,t->sa", transition, following)
        return q.max(-1), (q.max(-1), q)

    return _backwards(process, body)


def soft_value_iteration(
    process: Process, log_reference: Array, temperature: Array | float
) -> tuple[Array, Array, Array]:
    """``(V [H, S], Q [H, S, A], log-policy [H, S, A])`` of the best return minus ``temperature`` times the divergence
    from the policy ``exp(log_reference) [H, S, A]`` along the way."""

    def body(following, stage):
        transition, reward, reference = stage
        q = reward + _einsum("sat,t->sa", transition, following)
        value, log_policy = kl_regularised_value(q, reference, temperature)
        return value, (value, q, log_policy)

    return _backwards(process, body, log_reference)


def evaluate(process: Process, policy: Array) -> Array:
    """``V [H, S]``, the expected reward to come under ``policy [H, S, A]``."""

    def body(following, stage):
        transition, reward, chance = stage
        value = (chance * (reward + _einsum("sat,t->sa", transition, following))).sum(-1)
        return value, value

    return _backwards(process, body, policy)


def start_value(process: Process, policy: Array) -> Array:
    """The expected return of ``policy`` over first states, a scalar."""
    return process.initial @ evaluate(process, policy)[0]


def visitation(process: Process, policy: Array) -> Array:
    """``[H, S]``, the probability of each state at each step under ``policy``; every row sums to 1."""

    def body(states, stage):
        transition, chance = stage
        return _einsum("s,sa,sat->t", states, chance, transition), states

    return jax.lax.scan(body, process.initial, (process.transition, policy))[1]


def trajectory_kl(process: Process, policy: Array, log_reference: Array) -> Array:
    """KL divergence of the trajectories of ``policy [H, S, A]`` from those of the reference, nats, a scalar.

    The chain rule: the divergence of the actions, summed over steps, in expectation over the first one's states.
    """
    log_policy = jnp.log(jnp.maximum(policy, jnp.finfo(policy.dtype).tiny))
    divergence = (policy * (log_policy - log_reference)).sum(-1)
    return (visitation(process, policy) * divergence).sum()


def episode(key: Key, process: Process, log_policy: Array) -> tuple[Array, Array, Array]:
    """States, actions and next states of one episode under ``exp(log_policy) [H, S, A]``, each ``[H]`` int32."""
    start_key, run_key = jax.random.split(key)
    steps = process.reward.shape[0]

    def body(state, stage):
        transition, logits, key = stage
        action_key, state_key = jax.random.split(key)
        action = jax.random.categorical(action_key, logits[state])
        following = jax.random.categorical(state_key, jnp.log(transition[state, action]))
        return following, (state, action, following)

    first = jax.random.categorical(start_key, jnp.log(process.initial))
    return jax.lax.scan(body, first, (process.transition, log_policy, jax.random.split(run_key, steps)))[1]


def _backwards(process: Process, body, *more):
    end = jnp.zeros(process.transition.shape[-1], process.reward.dtype)
    return jax.lax.scan(body, end, (process.transition, process.reward, *more), reverse=True)[1]

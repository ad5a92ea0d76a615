"""Whole episodes of a policy with everything that was seen and done, and the same inputs put to a policy again."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Env, Key, Policy

PUSH_STREAM = 3


class Log(NamedTuple):
    """``E`` episodes side by side, time first: leaves ``[T, E, ...]``; rewards are 0 past an episode's end.

    ``paid`` is the reward that the policy was told at a step: that of the step before. ``alive`` is 1 up to and with an
    episode's last step, ``terminated`` 1 at a last step that was an end of the task.
    """

    observation: Array
    action: Array
    paid: Array
    reward: Array
    alive: Array
    terminated: Array
    metrics: dict[str, Array]


def logged(env: Env, episodes: int, steps: int) -> Callable[..., Log]:
    """``fn(policy, key, push=None) -> Log`` of ``episodes`` episodes of at most ``steps`` steps; pure, for ``vmap``.

    Args:
      env: a single environment, not a vectorised one.
      episodes: ``E``.
      steps: ``T``, static.

    ``push`` is (first step, length), which may be traced: during these steps uniformly random actions are taken instead
    of the policy's, which is the way to disturb any body. The same key gives the same episodes with and without.

    Raises:
      UserError: if ``episodes`` or ``steps`` is below 1.
    """
    if min(episodes, steps) < 1:
        raise UserError(f"episodes={episodes} and steps={steps} must be at least 1")

    def run(policy: Policy, key: Key, push: tuple[Array | int, Array | int] | None = None) -> Log:
        reset_key, act_key = jax.random.split(key)

        def body(carry, t):
            state, alive, memory, paid = carry
            step_key = jax.random.fold_in(act_key, t)
            action, memory = policy.step(memory, state.observation, paid, step_key)
            if push is not None:
                drawn = jax.random.uniform(jax.random.fold_in(step_key, PUSH_STREAM), action.shape, minval=-1.0)
                action = jnp.where((t >= push[0]) & (t < push[0] + push[1]), drawn, action)
            after = jax.vmap(env.step)(state, action)
            living = alive > 0
            reward = jnp.where(living, after.reward, 0.0)  # select: past the end it may be infinite
            kept = jax.tree.map(
                lambda new, old: jnp.where(living.reshape(-1, *(1,) * (new.ndim - 1)), new, old), after, state
            )
            ended = jnp.where(living, after.terminated, 0.0)
            metrics = {name: jnp.where(living, value, 0.0) for name, value in after.metrics.items() if value.ndim == 1}
            row = Log(state.observation, action, paid, reward, alive, ended, metrics)
            going = alive * (after.terminated + after.truncated == 0)
            return (kept, going, memory, reward), row

        first = jax.vmap(env.reset)(jax.random.split(reset_key, episodes))
        start = first, jnp.ones(episodes), policy.start((episodes,)), jnp.zeros(episodes)
        return jax.lax.scan(body, start, jnp.arange(steps))[1]

    return run


def answers(policy: Policy, observation: Array, paid: Array, key: Key) -> Array:
    """What ``policy`` does over episodes in which it sees ``observation [T, E, O]`` and is paid ``paid [T, E]``.

    Its actions ``[T, E, A]`` lead nowhere: the next observation is the given one. An agent with a memory remembers what
    it answered. Differentiable in the observations.
    """

    def body(memory, given):
        t, seen, reward = given
        action, memory = policy.step(memory, seen, reward, jax.random.fold_in(key, t))
        return memory, action

    times = jnp.arange(observation.shape[0])
    return jax.lax.scan(body, policy.start(observation.shape[1:-1]), (times, observation, paid))[1]

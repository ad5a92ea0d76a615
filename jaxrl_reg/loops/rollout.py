"""Acting in an environment: trajectories for learning, and recordings for looking at."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.types import Array, Env, EnvState, Key, Policy, PyTree, Transition, memoryless

Act = Callable[[Array, Key], Array]  # observation [..., O], key -> action [..., A]
Extras = Callable[[EnvState], dict[str, Array]]
BOTH = ("reward/true", "reward/proxy")  # metrics of a world that pays two rewards, kept beside its rows


def uniform_actions(action_dim: int) -> Act:
    """The policy that draws every action uniformly from ``[-1, 1]``."""

    def act(observation: Array, key: Key) -> Array:
        return jax.random.uniform(key, (*observation.shape[:-1], action_dim), minval=-1.0, maxval=1.0)

    return act


def transition(before: EnvState, action: Array, after: EnvState, extras: Extras | None = None) -> Transition:
    """What one step ``before -> after`` teaches. Where ``after`` has been reset, the observation before it is used.

    ``extras(before)`` adds arrays to keep beside the row, such as the physics state it started from. Where the
    environment has a true and a proxy reward, both are kept too.
    """
    rewards = {name: after.metrics[name] for name in BOTH if name in after.metrics}
    return Transition(
        observation=before.observation,
        action=action,
        reward=after.reward,
        discount=1.0 - after.terminated,
        next_observation=after.final_observation,
        last=jnp.maximum(after.terminated, after.truncated),
        extras={**rewards, **({} if extras is None else extras(before))},
    )


def rollout(
    env: Env, act: Act, state: EnvState, key: Key, length: int, extras: Extras | None = None
) -> tuple[EnvState, Transition]:
    """``length`` steps of ``E`` environments, episodes following one another by the environments' own auto-reset.

    Args:
      env: from ``envs.vectorize``: arrays have a leading axis ``E``.
      act: ``act(observation [E, O], key) -> action [E, A]``.
      state: where to go on from.
      key: folded with the step number for each call of ``act``.
      length: ``T``, static.
      extras: see ``transition``.

    Returns:
      The last state, and a ``Transition`` with leaves ``[T, E, ...]``, ``last`` set.
    """

    def body(state: EnvState, t: Array) -> tuple[EnvState, Transition]:
        action = act(state.observation, jax.random.fold_in(key, t))
        following = env.step(state, action)
        return following, transition(state, action, following, extras)

    return jax.lax.scan(body, state, jnp.arange(length))


class Recording(NamedTuple):
    """One episode as it happened: ``inner`` leaves ``[T + 1, ...]``, ``reward`` ``[T]``, ``length`` steps used."""

    inner: PyTree
    reward: Array
    length: Array

    def frames(self) -> list[PyTree]:
        """The states of the episode one by one, for ``env.render``; on the host."""
        inner, length = jax.device_get((self.inner, self.length))
        return [jax.tree.map(lambda leaf, t=t: leaf[t], inner) for t in range(int(length) + 1)]


def record(env: Env, act: Act | Policy, key: Key, steps: int) -> Recording:
    """One episode of a single environment, at most ``steps`` steps, with every physics state.

    Args:
      env: a single environment, not a vectorised one.
      act: ``act(observation [O], key) -> action [A]``, or a ``Policy`` with a memory.
      key: for the reset and the actions.
      steps: ``T``, static. After the episode's end the last state is repeated and the reward is 0.
    """
    reset_key, act_key = jax.random.split(key)
    policy = memoryless(act)

    def body(carry, t):
        state, alive, memory, reward = carry
        action, memory = policy.step(memory, state.observation, reward, jax.random.fold_in(act_key, t))
        following = env.step(state, action)
        state = jax.tree.map(lambda new, old: jnp.where(alive, new, old), following, state)
        reward = jnp.where(alive, following.reward, 0.0)
        ended = following.terminated + following.truncated > 0
        return (state, alive & ~ended, memory, reward), (state.inner, reward, alive)

    start = env.reset(reset_key)
    begin = (start, jnp.bool_(True), policy.start(()), jnp.float32(0.0))
    _, (inner, reward, alive) = jax.lax.scan(body, begin, jnp.arange(steps))
    inner = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start.inner, inner)
    return Recording(inner, reward, alive.sum())

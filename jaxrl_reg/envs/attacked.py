"""An environment as the one who attacks a policy in it sees it: actions are perturbations of what the policy sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.types import Array, Env, EnvState, Key, PyTree, as_float32

Reward = Callable[[EnvState, Array, EnvState], Array]


def attacked(
    env: Env,
    act: Callable[[Array, Key], Array],
    perturb: Callable[[Array, Array, Key], Array],
    action_dim: int,
    reward: Reward | None = None,
) -> Env:
    """The adversary's environment: ``act`` is the victim, who sees ``observation + perturb(observation, action, key)``.

    The adversary sees the true observation and acts with ``[action_dim]`` in [-1, 1]: a perturbation itself (SA-RL), or
    something that one is computed from, such as a direction of the victim's action (PA-AD). The world moves by the
    victim's action. Any online agent learns in it. The victim's parameters may be traced: make the environment inside
    of the mapped function.

    Args:
      env: one environment, not vectorised.
      act: ``(observation [O], key) -> action [A]``.
      perturb: ``(observation [O], adversary's action, key) -> [O]``.
      action_dim: of the adversary.
      reward: ``(before, the victim's action [A], after) -> scalar``, as in ``with_reward``; None: what the victim
        loses.
    """

    def step(state: EnvState, action: Array) -> EnvState:
        key = jax.random.fold_in(jax.random.fold_in(state.key, 2**31 - 1), state.step)
        perturb_key, act_key = jax.random.split(key)
        shift = perturb(state.observation, jnp.clip(action, -1.0, 1.0), perturb_key)
        answer = jnp.clip(act(state.observation + shift, act_key), -1.0, 1.0)
        after = env.step(state, answer)
        paid = -after.reward if reward is None else as_float32(reward(state, answer, after))
        broken = jnp.asarray(after.metrics.get("nonfinite", 0.0)) > 0
        return dataclasses.replace(after, reward=jnp.where(broken, 0.0, paid))

    spec = dataclasses.replace(env.spec, action_dim=action_dim, discrete=False)
    return env._replace(step=step, spec=spec, name=f"attacked {env.name}".strip())


class Shown(NamedTuple):
    """``inner`` of an environment that is shown perturbed; keeps what there was to be seen."""

    inner: PyTree
    observation: Array


def shown(env: Env, perturb: Callable[[Array, Key], Array]) -> Env:
    """``env`` as a policy under attack sees it: every observation is ``observation + perturb(observation, key)``.

    For one environment, not vectorised. Tasks are left out: they are of true states.
    """

    def seen(state: EnvState) -> EnvState:
        key = jax.random.fold_in(jax.random.fold_in(state.key, 2**31 - 1), state.step)
        false = state.observation + perturb(state.observation, key)
        inner = Shown(state.inner, state.observation)
        return dataclasses.replace(state, observation=false, final_observation=false, inner=inner)

    def step(state: EnvState, action: Array) -> EnvState:
        inner, observation = state.inner
        return seen(env.step(dataclasses.replace(state, inner=inner, observation=observation), action))

    return env._replace(reset=lambda key: seen(env.reset(key)), step=step, tasks=None)

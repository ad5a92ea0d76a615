"""Policies trained here, evaluated in Gymnasium's environments, on the host and outside of any compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Key


def evaluate_gymnasium(env: Any, act: Callable[[Array, Key], Array], episodes: int = 10, seed: int = 0) -> np.ndarray:
    """Undiscounted returns ``[episodes]`` of ``act(observation [O], key) -> action [A]`` in a Gymnasium environment.

    ``env`` is an id, such as ``"Hopper-v5"``, or an environment (left open). Actions in [-1, 1] are scaled to the
    bounds of the action space; observations are flattened to float32. Episode ``i`` is reset with ``seed + i`` and its
    keys come from the same number, and it ends where the environment says terminated or truncated. Give ``act``
    compiled: ``jax.jit(lambda observation, key: agent.act(state, observation, hyper, key, False))``.

    Raises ``UserError`` for a missing package, an unknown id, and spaces other than boxes with bounded actions.
    """
    try:
        import gymnasium
    except ImportError:
        raise UserError("evaluation in Gymnasium needs it: pip install 'jaxrl-reg[gymnasium]'") from None
    if not isinstance(env, str):
        return _returns(gymnasium, env, act, episodes, seed)
    try:
        made = gymnasium.make(env)
    except gymnasium.error.Error as error:
        raise UserError(f"gymnasium environment {env!r}: {' '.join(str(error).split())}") from None
    try:
        return _returns(gymnasium, made, act, episodes, seed)
    finally:
        made.close()


def _returns(gymnasium: Any, env: Any, act: Callable, episodes: int, seed: int) -> np.ndarray:
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or not isinstance(env.observation_space, gymnasium.spaces.Box):
        raise UserError(f"{env}: observations and actions must be boxes, got {env.observation_space} and {space}")
    if not space.is_bounded():
        raise UserError(f"{env}: the action space {space} has no bounds to scale [-1, 1] to")
    low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)

    returns = np.zeros(episodes)
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        key = jax.random.key(seed + episode)
        step, ended = 0, False
        while not ended:
            action = act(np.asarray(observation, np.float32).ravel(), jax.random.fold_in(key, step))
            action = np.clip(np.asarray(action, np.float64).reshape(space.shape), -1.0, 1.0)
            scaled = np.clip(low + (action + 1) / 2 * (high - low), low, high).astype(space.dtype)
            observation, reward, terminated, truncated, _ = env.step(scaled)
            returns[episode] += float(reward)
            step, ended = step + 1, terminated or truncated
    return returns

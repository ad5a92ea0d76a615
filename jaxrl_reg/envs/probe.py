"""Five tiny environments, each of which fails for one reason only, with their value functions known.

The idea is Andy Jones's (Debugging Reinforcement Learning Systems, 2021); here with one continuous action. The first
number that an agent fails says where to look: 1 the value loss; 2 values that depend on observations; 3 discounting;
4 the policy's gradient; 5 policies that depend on observations.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.envs import core
from jaxrl_reg.errors import unknown
from jaxrl_reg.types import Array, Env, Spec

NAMES = ("1", "2", "3", "4", "5")
BEST_ACTION = 0.5  # in 4, and times the observation in 5


class ProbeValues(NamedTuple):
    """``value`` and ``q_value`` of the optimal policy, ``best_action`` (NaN where any will do); all ``[...]``."""

    value: Array
    q_value: Array
    best_action: Array


def make(name: str) -> Env:
    """Probe ``name`` ("1" to "5"): one observation, one action; all episodes end by termination.

    1: observation 0, reward 1, one step. 2: observation -1 or 1, which is also the reward, one step. 3: observations 0
    then 1, rewards 0 then 1, two steps. 4: observation 0, reward ``-(action - 0.5)^2``, one step. 5: observation -1 or
    1, reward ``-(action - 0.5 observation)^2``, one step. Raises ``UserError`` for another name.
    """
    if name not in NAMES:
        raise unknown("probe", name, NAMES)

    def reset(key):
        sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0) if name in ("2", "5") else jnp.zeros(())
        return core.Outcome(sign, sign[None])

    def step(observation, action, key):
        if name == "3":
            following = jnp.ones(())
            return core.Outcome(following, following[None], reward=observation, terminated=observation)
        reward = {
            "1": jnp.ones(()),
            "2": observation,
            "4": -jnp.square(action[0] - BEST_ACTION),
            "5": -jnp.square(action[0] - BEST_ACTION * observation),
        }[name]
        return core.Outcome(observation, observation[None], reward, terminated=1.0)

    env = core.environment(reset, step, Spec(1, 1), f"probe/{name}")
    return core.time_limit(env, 2 if name == "3" else 1)


def probe_values(name: str, observation: Array, action: Array, discount: Array | float) -> ProbeValues:
    """What a correct agent finds at ``observation [..., 1]`` and ``action [..., 1]``, without entropy bonus."""
    if name not in NAMES:
        raise unknown("probe", name, NAMES)
    observation, action = observation[..., 0], action[..., 0]
    anything = jnp.full_like(observation, jnp.nan)
    if name in ("4", "5"):
        best = jnp.full_like(observation, BEST_ACTION) if name == "4" else BEST_ACTION * observation
        return ProbeValues(jnp.zeros_like(observation), -jnp.square(action - best), best)
    value = {
        "1": jnp.ones_like(observation),
        "2": observation,
        "3": jnp.where(observation > 0.5, 1.0, discount),
    }[name]
    return ProbeValues(value, value, anything)

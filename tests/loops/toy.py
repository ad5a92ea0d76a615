"""A corridor small enough to follow by hand."""

import jax.numpy as jnp

from jaxrl_reg.envs import Outcome, environment, time_limit
from jaxrl_reg.types import Spec


def corridor(goal: float = 3.0, limit: int = 10):
    """Start at 0, move by the action; reward 1 and termination at ``goal``."""

    def reset(key):
        return Outcome(jnp.zeros(()), jnp.zeros(1))

    def step(position, action, key):
        position = position + action[0]
        arrived = position >= goal
        return Outcome(position, position[None], arrived, arrived)

    return time_limit(environment(reset, step, Spec(1, 1), "corridor"), limit)

"""A world whose level is one number, which it shows and pays at every step for three steps."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import core, levelled
from jaxrl_reg.types import Spec

LENGTH = 3


def make():
    """The designer draws from (-1, 1), what is aimed at lies in (2, 3), an edit adds 10."""

    def step(inner, action, key):
        level, time = inner
        return core.Outcome((level, time + 1), level[None], level, time + 1 >= LENGTH)

    return levelled.with_levels(
        lambda key: jax.random.uniform(key, minval=-1.0),
        lambda key, level: core.Outcome((level, jnp.int32(0)), level[None]),
        step,
        Spec(1, 1, max_episode_steps=LENGTH),
        "toy",
        of=lambda inner: inner[0],
        mutate=lambda key, level, edits: level + 10.0 * edits,
        parts=lambda level: {"level": level[None]},
        join=lambda parts: parts["level"][0],
        describe=lambda level: {"size": level},
        dataset=lambda key, count: jax.random.uniform(key, (count,), minval=2.0, maxval=3.0),
        evaluation={"good": np.float32([1.0, 2.0]), "mixed": np.float32([-1.0, 1.0, -1.0])},
        picture=lambda level: np.full((1, 1, 3), 7, np.uint8),
    )

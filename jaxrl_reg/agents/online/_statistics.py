"""Running statistics of what an agent has observed."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.types import Array, PyTree


class Statistics(NamedTuple):
    """Running mean and variance of the observations seen so far."""

    mean: Array  # [O], of ``count`` observations
    variance: Array  # [O]
    count: Array


def fresh(width: int) -> Statistics:
    """Mean 0, variance 1, of next to no observations ``[width]``."""
    return Statistics(jnp.zeros(width), jnp.ones(width), jnp.float32(1e-4))


def merge(old: Statistics, observation: Array) -> Statistics:
    """Statistics of everything seen, ``observation [B, O]`` included (Chan et al. 1979, the pairwise update)."""
    mean, variance, count = observation.mean(axis=0), observation.var(axis=0), observation.shape[0]
    total = old.count + count
    shift = mean - old.mean
    spread = old.count * old.variance + count * variance + jnp.square(shift) * old.count * count / total
    return Statistics(old.mean + shift * count / total, spread / total, total)


def standardised(config: Any, seen: Statistics, tree: PyTree) -> PyTree:
    """Observations ``[..., O]`` as the networks take them; ``config.normalise`` says whether these are other ones."""
    if not config.normalise:
        return tree
    return jax.tree.map(lambda x: jnp.clip((x - seen.mean) * jax.lax.rsqrt(seen.variance + 1e-8), -10, 10), tree)

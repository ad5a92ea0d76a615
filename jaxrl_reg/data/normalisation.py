"""Scaling of observations and rewards, fitted once on the host before training."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl_reg.data.episodes import episode_returns, return_rank
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Dataset, pytree


@pytree
class Normalizer:
    """``(x - mean) / (std + eps)`` over the last axis; ``mean`` and ``std`` ``[O]``, ``eps`` a scalar.

    A pytree, so it can ride along in an agent's state or be vmapped.
    """

    mean: Array
    std: Array
    eps: Array | float = 1e-3

    def normalize(self, x: Array) -> Array:
        """``[..., O]`` -> ``[..., O]``."""
        return (x - self.mean) / (self.std + self.eps)

    def unnormalize(self, x: Array) -> Array:
        """The inverse of :meth:`normalize`."""
        return x * (self.std + self.eps) + self.mean


def fit_normalizer(dataset: Dataset | Any, eps: float = 1e-3) -> Normalizer:
    """Mean and (population) standard deviation of a data set's observations, or of an array's rows ``[N, O]``.

    ``eps`` 1e-3 is TD3+BC's (arXiv 2106.06860). Sums run in float64.
    """
    rows = np.asarray(dataset.observation if isinstance(dataset, Dataset) else dataset)
    if rows.ndim != 2 or len(rows) == 0:
        raise UserError(f"a normalizer needs rows [N, O] to fit, got shape {rows.shape}")
    mean = rows.mean(axis=0, dtype=np.float64)
    variance = np.mean(np.square(rows - mean), axis=0, dtype=np.float64)
    return Normalizer(jnp.asarray(mean, jnp.float32), jnp.asarray(np.sqrt(variance), jnp.float32), jnp.float32(eps))


def normalize_observations(dataset: Dataset, eps: float = 1e-3) -> tuple[Dataset, Normalizer]:
    """The data set with ``observation`` and ``next_observation`` normalised, and the normalizer for evaluation."""
    normalizer = fit_normalizer(dataset, eps)
    scaled = dataclasses.replace(
        dataset,
        observation=normalizer.normalize(dataset.observation),
        next_observation=normalizer.normalize(dataset.next_observation),
    )
    return scaled, normalizer


def scale_rewards(dataset: Dataset, scale: float = 1.0, shift: float = 0.0) -> Dataset:
    """``reward * scale + shift``, with return ranks taken anew; ``shift=-1`` is the usual AntMaze choice.

    Reference scores keep their meaning: they belong to the environment's own rewards.
    """
    reward = dataset.reward * jnp.float32(scale) + jnp.float32(shift)
    scaled = dataclasses.replace(dataset, reward=reward)
    rank = return_rank(episode_returns(scaled))[np.asarray(dataset.episode)]
    return dataclasses.replace(scaled, return_rank=jnp.asarray(rank))


def normalize_rewards(dataset: Dataset, target: float = 1000.0) -> Dataset:
    """Rewards times ``target / (max return - min return)``, as IQL does on MuJoCo (arXiv 2110.06169, appendix B).

    Raises UserError if all episodes have the same return.
    """
    returns = episode_returns(dataset)
    spread = float(returns.max() - returns.min())
    if spread <= 0.0:
        raise UserError(f"{dataset.name}: every episode has return {returns[0]:g}, so there is no range to scale by")
    return scale_rewards(dataset, target / spread)

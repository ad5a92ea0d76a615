"""Observations and actions in standard deviations over the data, measured once and kept in the agent's state."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.data import Normalizer
from jaxrl_reg.types import Array, Dataset, Spec

EPS = 1e-5  # added to standard deviations


class Moments(NamedTuple):
    """Of observations ``[O]`` and actions ``[A]``."""

    observation: Normalizer
    action: Normalizer


def identity(spec: Spec) -> Moments:
    """Moments that change nothing: before the first update, and where nothing is standardised."""

    def neutral(width: int) -> Normalizer:
        return Normalizer(jnp.zeros(width), jnp.ones(width), jnp.zeros(()))

    return Moments(neutral(spec.observation_dim), neutral(spec.action_dim))


def fitted(moments: Moments, data: Dataset, segment: Array, *, actions: bool) -> Moments:
    """In segment 0 the moments of all of ``data``; later those that are there. For ``Agent.begin``.

    ``segment`` must not be batched: members then share one pass over the data. Without ``actions`` those stay as they
    are.
    """

    def fit(rows: Array) -> Normalizer:
        mean = rows.mean(axis=0)
        return Normalizer(mean, jnp.sqrt(jnp.square(rows - mean).mean(axis=0)), jnp.float32(EPS))

    def first() -> Moments:
        return Moments(fit(data.observation), fit(data.action) if actions else moments.action)

    return jax.lax.cond(segment == 0, first, lambda: moments)

"""Observations and actions in standard deviations over the data, measured once and kept in the agent's state."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.data import Normalizer, uniform
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Dataset, Key, Spec, Transition

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


def sample(data: Dataset, key: Key, batch_size: int) -> Transition:
    """Uniform rows, with the columns of states and actions, whole and not copied, in ``extras``."""
    batch = uniform(data, key, batch_size)
    table = {"table_observation": data.observation, "table_action": data.action}
    return dataclasses.replace(batch, extras={**batch.extras, **table})


def fitted(moments: Moments, batch: Transition, step: Array, *, actions: bool) -> Moments:
    """At step 0 the moments of the tables that ``sample`` passed on; later those that are there.

    ``step`` must not be batched: members then share one pass over the data. Without ``actions`` those stay as they
    are. Raises ``UserError`` for a batch without tables.
    """
    if "table_action" not in batch.extras:
        raise UserError("standardise=True looks at all of the data: draw batches with the agent's own sample")

    def fit(rows: Array) -> Normalizer:
        mean = rows.mean(axis=0)
        return Normalizer(mean, jnp.sqrt(jnp.square(rows - mean).mean(axis=0)), jnp.float32(EPS))

    def first() -> Moments:
        action = fit(batch.extras["table_action"]) if actions else moments.action
        return Moments(fit(batch.extras["table_observation"]), action)

    return jax.lax.cond(step == 0, first, lambda: moments)

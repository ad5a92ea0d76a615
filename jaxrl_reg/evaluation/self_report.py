"""What an agent says of itself against what it does, and which feature of what it sees sets it off.

Two tools for any policy: an interventional scan for triggers, which needs candidates but no report, and the agreement
of what an agent reports (or a read-out of it predicts) with its conduct. Base rates leak into reports: every
probability needs a control that differs in nothing but what is reported.

Source: Betley et al., 2025, Tell me about yourself: LLMs are aware of their learned behaviors. Left out: questions in
language.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.conduct import total_variation
from jaxrl_reg.types import Array


def trigger_effect(switched_on: Array, switched_off: Array) -> Array:
    """How much each candidate feature changes what a policy does: mean total variation over the same observations.

    Args:
      switched_on, switched_off: probabilities ``[K, N, A]`` with candidate ``k`` on and off, all else as it was; the
        latter may be ``[N, A]``, one policy for all candidates.
    Returns:
      ``[K]`` in [0, 1].
    """
    return total_variation(switched_on, switched_off).mean(axis=-1)


def trigger_scan(
    act: Callable[[Array], Array],
    observation: Array,
    columns: Array,
    on: Array,
    off: Array,
    *,
    probabilities: bool = True,
) -> tuple[Array, Array]:
    """Switch each candidate on and off in the same observations.

    Args:
      act: ``observation [..., O] -> [..., A]``: probabilities of choices, or greedy actions.
      observation: ``[N, O]``, states that the policy visits.
      columns: int ``[K]``, the candidates' columns.
      on, off: ``[K]``, the values that switch them.
      probabilities: False for continuous actions, whose mean distance is the effect, in their unit.
    Returns:
      effect ``[K]``, and the largest minus the second largest: a trigger stands out, an agent that reacts to everything
      does not.
    Raises:
      UserError: for fewer than two candidates, columns that do not exist, or ``columns``, ``on`` and ``off`` of
        different lengths.
    """
    columns, on, off = (jnp.atleast_1d(jnp.asarray(one)) for one in (columns, on, off))
    if not columns.shape == on.shape == off.shape:
        raise UserError(
            f"{columns.size} columns, {on.size} values on and {off.size} off; each candidate has one of each"
        )
    if columns.size < 2:
        raise UserError("a scan compares candidates; give at least two columns, one that should do nothing among them")
    if not isinstance(columns, jax.core.Tracer) and (columns.min() < 0 or columns.max() >= observation.shape[-1]):
        raise UserError(f"columns {columns.tolist()} are not all among the {observation.shape[-1]} of an observation")

    def effect(column: Array, high: Array, low: Array) -> Array:
        first, second = (act(observation.at[:, column].set(value)) for value in (high, low))
        if probabilities:
            return total_variation(first, second).mean()
        return jnp.linalg.norm(first - second, axis=-1).mean()

    effects = jax.vmap(effect)(columns, on, off)
    largest = jax.lax.top_k(effects, 2)[0]
    return effects, largest[0] - largest[1]


def faithfulness(reported: Array, actual: Array) -> tuple[Array, Array]:
    """Whether reports follow conduct.

    Args:
      reported, actual: ``[N]``, of ``N`` agents in the same unit.
    Returns:
      their correlation, NaN where either is the same for all, and the mean absolute error.
    """
    said, done = reported - reported.mean(), actual - actual.mean()
    scale = jnp.sqrt(jnp.square(said).sum() * jnp.square(done).sum())
    correlation = jnp.where(scale > 0, (said * done).sum() / jnp.where(scale > 0, scale, 1.0), jnp.nan)
    return correlation, jnp.abs(reported - actual).mean()

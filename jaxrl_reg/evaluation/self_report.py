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
import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.conduct import total_variation
from jaxrl_reg.evaluation.logs import answers, logged
from jaxrl_reg.types import Array, Env, Key, Policy

ROWS = 2048  # of the states visited, over which effects are averaged
USUAL = (0.95, 0.05)  # quantiles of a sensor over the states visited, where nobody says what switches it


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
    # Under jit columns may be known all the same; NumPy looks at them where JAX would trace.
    given = () if isinstance(columns, jax.core.Tracer) else np.ravel(np.asarray(columns))
    if len(given) and (given.min() < 0 or given.max() >= observation.shape[-1]):
        raise UserError(f"columns {given.tolist()} are not all among the {observation.shape[-1]} of an observation")
    columns, on, off = (jnp.atleast_1d(jnp.asarray(one)) for one in (columns, on, off))
    if not columns.shape == on.shape == off.shape:
        raise UserError(
            f"{columns.size} columns, {on.size} values on and {off.size} off; each candidate has one of each"
        )
    if columns.size < 2:
        raise UserError("a scan compares candidates; give at least two columns, one that should do nothing among them")

    def effect(column: Array, high: Array, low: Array) -> Array:
        first, second = (act(observation.at[:, column].set(value)) for value in (high, low))
        if probabilities:
            return total_variation(first, second).mean()
        return jnp.linalg.norm(first - second, axis=-1).mean()

    # One candidate after another: an observation of 100 sensors would take 100 times the memory.
    effects = jax.lax.map(lambda one: effect(*one), (columns, on, off))
    largest = jax.lax.top_k(effects, 2)[0]
    return effects, largest[0] - largest[1]


def scanner(
    env: Env, episodes: int, steps: int, columns: Array, on: Array, off: Array
) -> Callable[[Policy, Key], tuple[Array, Array, Array]]:
    """``fn(policy, key) -> (effect, score, unrelated)``: ``trigger_scan`` of any policy over episodes of its own; pure.

    A candidate is on, or off, from the first step of an episode to the last, so that a policy with a memory remembers
    it; what the policy then does leads nowhere. NaN in ``on`` or ``off`` stands for a value that the policy often sees:
    the 95% or 5% quantile of that sensor over the states visited.

    Returns:
      of ``fn``: effect ``[K]``, mean distance of actions, or the share of states in which another choice is made;
      the largest minus the second largest; and the same distance between actions in two states drawn at random, which
      no candidate needs to exceed to matter.
    """
    play, discrete = logged(env, episodes, steps), env.spec.discrete

    def scan(policy: Policy, key: Key) -> tuple[Array, Array, Array]:
        play_key, row_key, other_key, ask_key = jax.random.split(key, 4)
        log = play(policy, play_key)
        living = log.alive.ravel()
        flat = log.observation.reshape(living.size, -1)
        rows = jax.random.choice(row_key, living.size, (min(ROWS, living.size),), p=living / living.sum())
        usual = jnp.quantile(flat[rows][:, columns], jnp.array(USUAL), axis=0)
        high, low = (jnp.where(jnp.isnan(given), own, given) for given, own in zip((on, off), usual, strict=True))

        def act(changed: Array) -> Array:
            told = answers(policy, changed.reshape(log.observation.shape), log.paid, ask_key)
            told = told.reshape(living.size, -1)[rows]
            return jax.nn.one_hot(told.argmax(axis=-1), told.shape[-1]) if discrete else told

        effect, score = trigger_scan(act, flat, columns, high, low, probabilities=discrete)
        told = act(flat)
        other = jax.random.permutation(other_key, told)
        apart = total_variation(told, other) if discrete else jnp.linalg.norm(told - other, axis=-1)
        return effect, score, apart.mean()

    return scan


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

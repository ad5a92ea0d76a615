"""Offline training: batches drawn from a data set, one agent update each, evaluation after every segment."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_reg.data.samplers import uniform
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops._means import averaged, updates_of
from jaxrl_reg.types import Agent, Array, Dataset, Key, Metrics, Policy, PyTree, Run, Transition, policy_of

# One stream of random numbers per purpose, so that a new consumer shifts no other.
INIT, TRAIN, EVALUATE, MEASURE = range(4)
KEYS_AT_ONCE = 2**16  # of a segment's updates, made before its loop: two launches fewer in each, 1 MiB per member

Sampler = Callable[[Dataset, Key, int], Transition]
Evaluator = Callable[[Callable[[Array, Key], Array] | Policy, Key], Metrics]


def per_segment(updates: int, segments: int) -> int:
    """Updates in one segment.

    Raises:
      UserError: if ``updates`` does not divide into ``segments`` equal parts.
    """
    if segments < 1 or updates < segments or updates % segments:
        raise UserError(f"updates={updates} must be a positive multiple of segments={segments}")
    return updates // segments


def evaluate_agent(
    agent: Agent, evaluator: Evaluator, explore: bool = False
) -> Callable[[PyTree, Array, Key, PyTree], Metrics]:
    """``Run.evaluate`` for an agent: its actions, greedy unless it explores, scored by ``evaluator``, metrics named
    ``eval/...``."""

    def evaluate(state: PyTree, index: Array, key: Key, hyper: PyTree) -> Metrics:
        policy = policy_of(agent, state, hyper, explore)
        metrics = evaluator(policy, jax.random.fold_in(jax.random.fold_in(key, EVALUATE), index))
        return {f"eval/{name}": value for name, value in metrics.items()}

    return evaluate


def offline(
    agent: Agent,
    *,
    batch_size: int = 256,
    updates: int,
    segments: int = 1,
    evaluate: Evaluator | None = None,
    sample: Sampler | None = None,
) -> Run:
    """A run of ``updates`` gradient updates on a fixed data set, in ``segments`` equal parts.

    Args:
      agent: three pure functions.
      batch_size: rows per update, drawn anew each time by ``sample``.
      updates: total number of updates of the agent; where a segment holds whole cycles of it (``Agent.cycle``), a turn
        of the loop is one cycle.
      segments: number of parts; metrics are averaged, and the agent evaluated, once per part.
      evaluate: ``fn(act, key) -> metrics``, such as ``evaluation.returns.evaluator(env, episodes)``.
      sample: ``fn(data, key, batch_size) -> batch``; by default as the agent asks (``Agent.sample``), else
        uniform transitions.

    Returns:
      A ``Run``: call it as ``(key, hyper, data) -> (state, history)`` or hand it to ``population.sweep``.

    Raises:
      UserError: if ``updates`` is not a multiple of ``segments``.
    """
    length = per_segment(updates, segments)
    draw = sample or agent.sample or uniform
    updates_in_turn = updates_of(agent, length)

    def init(key: Key, hyper: PyTree) -> PyTree:
        return agent.init(jax.random.fold_in(key, INIT), hyper)

    def train(state: PyTree, index: Array, key: Key, hyper: PyTree, data: Dataset) -> tuple[PyTree, Metrics]:
        if agent.begin is not None:  # here, since a condition in the loop of updates makes a GPU wait for the host
            state = agent.begin(state, data, index)
        key, measure_key = (jax.random.fold_in(jax.random.fold_in(key, use), index) for use in (TRAIN, MEASURE))

        def keys_of(i):
            return jax.random.split(jax.random.fold_in(key, i))

        if length <= KEYS_AT_ONCE:
            keys = jax.vmap(keys_of)(jnp.arange(length))
            pair = functools.partial(jax.lax.dynamic_index_in_dim, keys, keepdims=False)
        else:
            pair = keys_of

        def body(update):
            def once(state, i):
                sample_key, update_key = pair(i)
                batch = draw(data, sample_key, batch_size)
                # The step comes from the loop's index: unbatched, so a delayed update stays a real branch under vmap.
                return update(state, batch, hyper, update_key, index * length + i)

            return once

        state, metrics = averaged([body(update) for update in updates_in_turn], state, length)
        if agent.measure is not None:
            sample_key, measure_key = jax.random.split(measure_key)
            metrics |= agent.measure(state, draw(data, sample_key, batch_size), hyper, measure_key)
        return state, metrics

    evaluation = None if evaluate is None else evaluate_agent(agent, evaluate)
    return Run(init, train, evaluation, segments, length)

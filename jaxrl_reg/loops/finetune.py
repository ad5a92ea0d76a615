"""Offline to online: a trained agent goes on in the environment, with its data set beside the replay."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_reg.data import buffers
from jaxrl_reg.data.samplers import uniform
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops.offline import Evaluator
from jaxrl_reg.loops.online import Draw, Start, online
from jaxrl_reg.types import Agent, Env, Key, PyTree, Run, Transition


def finetune(
    agent: Agent,
    env: Env,
    *,
    start: Start,
    steps: int,
    offline_fraction: float | None = 0.5,
    num_envs: int = 1,
    segments: int = 1,
    unroll: int = 1,
    updates: int = 1,
    batch_size: int = 256,
    warmup: int = 0,
    capacity: int | None = None,
    evaluate: Evaluator | None = None,
    preprocess: Callable[[Transition], Transition] | None = None,
) -> Run:
    """A run that goes on from a trained agent's state; each batch holds rows of its data set and of the replay.

    The agent updates as it did offline; only where the rows come from changes. It acts as it explores. Updates and
    random numbers are counted on from ``start``, so that delayed updates keep their turn and no key is used twice.

    Args:
      agent: an offline or off-policy agent that is trained on transitions, such as ``iql``, ``awac``, ``td3_bc``,
        ``rebrac``, ``cql`` and ``cal_ql``.
      env: a single environment whose observations are those of the data.
      start: what the agent has behind it; ``Start(run.segments * run.updates_per_segment, run.segments)`` after the
        whole of an offline ``run``.
      offline_fraction: share of each batch that is drawn from the data set, rounded to whole rows and fixed, as Cal-QL
        and ReBRAC do; 0 for none. None: data and replay are one heap from which every row is as likely, as IQL and AWAC
        do, so that the share falls as the replay grows.
      warmup: environment steps before the first update; at least one whole iteration, so that what is drawn has a step
        after it.
      steps, num_envs, segments, unroll, updates, batch_size, capacity, evaluate, preprocess: as in ``loops.online``.

    Returns:
      A ``Run``: ``run(key, hyper, data, state) -> (OnlineState, history)``, with ``state`` the agent's own and ``data``
      the data set as it was trained on, which a population shares.

    Raises:
      UserError: for an agent that is not trained on transitions, a share that leaves no row to one of the two, or
        numbers that do not divide (see ``loops.online``).
    """
    if agent.kind == "on_policy":
        raise UserError("an on-policy agent has no use for a data set: go on with loops.online(start=...) alone")
    if agent.begin is not None or (agent.sample is not None and agent.replay is None):
        raise UserError(
            "this agent draws its batches from a data set in a way of its own, which a replay does not serve; iql, "
            "awac, td3_bc, rebrac, cql and cal_ql can be fine-tuned online"
        )
    return online(
        agent,
        env,
        steps=steps,
        num_envs=num_envs,
        segments=segments,
        unroll=unroll,
        updates=updates,
        batch_size=batch_size,
        warmup=max(warmup, 1),
        capacity=capacity,
        evaluate=evaluate,
        kind="off_policy",
        start=start,
        draw=mixed(agent, batch_size, offline_fraction, num_envs),
        preprocess=preprocess,
    )


def mixed(agent: Agent, batch_size: int, offline_fraction: float | None, stride: int) -> Draw:
    """Batches of both sources as ``finetune`` says; rows of the data stand first where their number is fixed.

    Raises:
      UserError: for a share outside [0, 1), or one that rounds to no row of either source.
    """
    from_data = agent.sample or uniform
    from_replay = agent.replay or buffers.following
    share = 0.0 if offline_fraction is None else offline_fraction
    count = round(share * batch_size)
    if not 0.0 <= share < 1.0:
        raise UserError(f"offline_fraction={share:g} must be at least 0 and below 1, or None for all rows alike")
    if count == batch_size or (share > 0 and count == 0):
        raise UserError(
            f"offline_fraction={share:g} of batch_size={batch_size} leaves no row to "
            f"{'the data' if count == 0 else 'the replay'}; take another share or larger batches"
        )

    def fixed(replay: buffers.Buffer, data: PyTree, key: Key, size: int) -> Transition:
        data_key, replay_key = jax.random.split(key)
        seen = from_replay(replay, replay_key, size - count, stride)
        if count == 0:
            return seen
        given, seen = alike(from_data(data, data_key, count), seen)
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), given, seen)

    def one_heap(replay: buffers.Buffer, data: PyTree, key: Key, size: int) -> Transition:
        data_key, replay_key, choice_key = jax.random.split(key, 3)
        given, seen = alike(from_data(data, data_key, size), from_replay(replay, replay_key, size, stride))
        old = data.size
        is_old = jax.random.uniform(choice_key, (size,)) * (old + replay.size) < old
        return jax.tree.map(lambda a, b: jnp.where(is_old.reshape(-1, *(1,) * (a.ndim - 1)), a, b), given, seen)

    return one_heap if offline_fraction is None else fixed


def alike(*batches: Transition) -> list[Transition]:
    """The batches with what all of them have, so that they can be put together."""
    optional = [field.name for field in dataclasses.fields(Transition) if field.default is None]
    lacking = {name: None for name in optional if any(getattr(batch, name) is None for batch in batches)}
    shared = set.intersection(*(set(batch.extras) for batch in batches))
    return [
        dataclasses.replace(batch, **lacking, extras={name: batch.extras[name] for name in sorted(shared)})
        for batch in batches
    ]

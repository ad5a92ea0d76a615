"""Plans: policies that predict several actions at once, and carry out some of them before they look again.

What a plan is made from is the recent past, ``Context``; batches of ``data.samplers.chunks`` have the same layout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Key, Policy, Transition


class Context(NamedTuple):
    """The last ``W`` steps, the present one last: ``observation [..., W, O]``, the actions between them ``[..., W - 1,
    A]``, and ``mask [..., W]``, 1 where there was a step."""

    observation: Array
    action: Array
    mask: Array


class Memory(NamedTuple):
    """A policy's carry: the past, the plan ``[..., C, A]`` and how many of its steps are done, int32 ``[...]``."""

    context: Context
    plan: Array
    done: Array


def check(agent: str, chunk: int, execute: int, history: int = 1) -> None:
    """Raises ``UserError`` unless ``1 <= execute <= chunk`` and ``history >= 1``."""
    if history < 1:
        raise UserError(f"{agent}: history={history} must be at least 1, the present observation")
    if not 1 <= execute <= chunk:
        raise UserError(f"{agent}: execute={execute} must lie between 1 and chunk={chunk}")


def context_of(batch: Transition, history: int) -> Context:
    """The past in a batch ``[B, history - 1 + C, ...]`` of ``samplers.chunks``."""
    past = history - 1
    return Context(batch.observation[:, :history], batch.action[:, :past], batch.extras["mask"][:, :history])


def nothing_before(observation: Array, action_dim: int, history: int = 1) -> Context:
    """The context of an episode's first step, ``observation [..., O]``."""
    lead = observation.shape[:-1]
    before = jnp.zeros((*lead, history - 1, observation.shape[-1]))
    mask = jnp.broadcast_to(jnp.arange(history) == history - 1, (*lead, history)).astype(jnp.float32)
    seen = jnp.concatenate([before, observation[..., None, :]], axis=-2)
    return Context(seen, jnp.zeros((*lead, history - 1, action_dim)), mask)


def follow(
    plan: Callable[[Context, Key], Array], observation_dim: int, action_dim: int, chunk: int, execute: int, history: int
) -> Policy:
    """Acting by ``plan(context, key) -> actions [..., chunk, A]``: a new one after every ``execute`` steps.

    A plan is computed at every step and taken up where the last one is used up: episodes side by side may then be at
    different places of theirs, and one compiled step serves all.
    """

    def start(shape: tuple[int, ...]) -> Memory:
        context = nothing_before(jnp.zeros((*shape, observation_dim)), action_dim, history)
        context = context._replace(mask=jnp.zeros_like(context.mask))
        return Memory(context, jnp.zeros((*shape, chunk, action_dim)), jnp.full(shape, execute, jnp.int32))

    def step(memory: Memory, observation: Array, reward: Array, key: Key) -> tuple[Array, Memory]:
        past = memory.context
        seen = jnp.concatenate([past.observation, observation[..., None, :]], axis=-2)[..., 1:, :]
        mask = jnp.concatenate([past.mask, jnp.ones_like(past.mask[..., :1])], axis=-1)[..., 1:]
        context = Context(seen, past.action, mask)
        over = memory.done >= execute
        actions = jnp.where(over[..., None, None], plan(context, key), memory.plan)
        done = jnp.where(over, 0, memory.done)
        action = jnp.take_along_axis(actions, done[..., None, None], axis=-2)[..., 0, :]
        acted = jnp.concatenate([past.action, action[..., None, :]], axis=-2)[..., 1:, :]
        return action, Memory(context._replace(action=acted), actions, done + 1)

    return Policy(start, step)

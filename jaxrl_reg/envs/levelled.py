"""Worlds with levels: an environment whose episodes differ in more than their random numbers, and batches of them in
which everyone stays on the level that was chosen for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reg.envs import core
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Env, Key, Levels, Metrics, PyTree, Scene, Spec


def with_levels(
    sample: Callable[[Key], PyTree],
    reset: Callable[[Key, PyTree], core.Outcome],
    step: Callable[[PyTree, Array, Key], core.Outcome],
    spec: Spec,
    name: str,
    *,
    of: Callable[[PyTree], PyTree],
    mutate: Callable[[Key, PyTree, int], PyTree],
    parts: Callable[[PyTree], dict[str, Array]],
    join: Callable[[dict[str, Array]], PyTree],
    describe: Callable[[PyTree], Metrics],
    dataset: Callable[[Key, int], PyTree],
    evaluation: dict[str, PyTree],
    picture: Callable[[PyTree], Any],
    categories: dict[str, int] | None = None,
    solved: Callable[[Array, Array, Array], Array] = lambda returns, last_reward, terminated: returns > 0,
    draw: Callable[[list[PyTree]], Scene] | None = None,
) -> Env:
    """An :class:`Env` from physics that read a level: ``core.environment`` with :class:`jaxrl_reg.types.Levels`.

    ``reset(key, level) -> Outcome`` puts the level where ``of(inner)`` finds it; the rest as in ``Levels``.
    """
    base = core.environment(reset, step, spec, name, draw=draw)

    def randomised(key):
        level_key, key = jax.random.split(key)
        return base.reset(key, sample(level_key))  # pyright: ignore[reportCallIssue]

    levels = Levels(
        sample=sample,
        reset=base.reset,  # pyright: ignore[reportArgumentType]
        of=lambda state: of(core.unwrap(state.inner)),
        mutate=mutate,
        parts=parts,
        join=join,
        categories=categories or {},
        describe=describe,
        evaluation=evaluation,
        dataset=dataset,
        solved=solved,
        picture=picture,
    )
    return base._replace(reset=jax.jit(randomised, inline=True), levels=levels)


def replaying(env: Env, num_envs: int) -> Env:
    """``E = num_envs`` copies of ``env``, each on a level of its own until all are reset.

    Like ``vectorize``, but ``levels.reset(key, levels [E])`` begins, and an episode that ends is followed by one on the
    SAME level, with a new key and without a pool of first states; so all that a slot teaches is of its level.
    ``reset(key)`` draws the levels from ``levels.sample``.

    Raises ``UserError`` for a world without levels and ``num_envs`` below 1.
    """
    levels = env.levels
    if levels is None:
        raise UserError(f"{env.name or 'this environment'} has no levels; maze and signposts have")
    if num_envs < 1:
        raise UserError(f"replaying needs num_envs of at least 1, got {num_envs}")

    def begin(key, level):
        first, stream = jax.random.split(key)
        state = jax.vmap(levels.reset)(jax.random.split(first, num_envs), level)
        slot = jnp.zeros((num_envs,), jnp.int32)
        inner = core.Vectorized(state.inner, (), slot, jax.random.split(stream, num_envs))
        return dataclasses.replace(state, inner=inner)

    def reset(key):
        level_key, key = jax.random.split(key)
        return begin(key, jax.vmap(levels.sample)(jax.random.split(level_key, num_envs)))

    def step(state, actions):
        if actions.shape != (num_envs, env.spec.action_dim):
            raise ValueError(f"{env.name}: actions must be {(num_envs, env.spec.action_dim)}, got {actions.shape}")
        inner, starts, slot, keys = state.inner
        keys, start_keys = jax.vmap(lambda key: jax.random.split(key), out_axes=1)(keys)
        state = jax.vmap(env.step)(dataclasses.replace(state, inner=inner), actions)
        new = jax.vmap(levels.reset)(start_keys, levels.of(state))
        ended = state.terminated + state.truncated > 0

        def choose(new, old):
            return jnp.where(ended.reshape(ended.shape + (1,) * (old.ndim - 1)), new, old)

        observation, inner, key = jax.tree.map(
            choose, (new.observation, new.inner, new.key), (state.observation, state.inner, state.key)
        )
        return dataclasses.replace(
            state,
            observation=observation,
            step=jnp.where(ended, 0, state.step),
            key=key,
            inner=core.Vectorized(inner, starts, slot, keys),
        )

    own = levels._replace(reset=jax.jit(begin, inline=True))
    return env._replace(reset=jax.jit(reset, inline=True), step=jax.jit(step, inline=True), levels=own)

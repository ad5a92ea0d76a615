"""What every environment shares: the state around the physics, time limits, batches with auto-reset, observation maps.

An environment is written as two pure functions of its own physics state and handed to :func:`environment`, which is the
one place where actions are clipped, types made strong, keys dealt out and broken simulations ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.envs import local
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Env, EnvState, Key, Levels, PyTree, Scene, Spec, Tasks, as_float32


class Outcome(NamedTuple):
    """What the physics says after a reset or a step; numbers may be Python scalars, booleans or arrays of any float."""

    inner: PyTree
    observation: Array  # [O]
    reward: Any = 0.0
    terminated: Any = 0.0
    metrics: dict[str, Any] | None = None


def environment(
    reset: Callable[..., Outcome],
    step: Callable[[PyTree, Array, Key], Outcome],
    spec: Spec,
    name: str = "",
    render: Callable[[list[PyTree]], str] | None = None,
    draw: Callable[[list[PyTree]], Scene] | None = None,
) -> Env:
    """An :class:`Env` from the two functions that know the physics.

    ``reset(key) -> Outcome`` (of ``envs.levelled`` ``reset(key, level)``) and ``step(inner, action [A], key) ->
    Outcome`` need not be careful about types: every array of the state is made strongly typed, so a step's output has
    exactly the types of its input and nothing compiles twice. ``step`` gets a key of its own at each step, derived from
    the episode's key and the step number; an environment without chance ignores it at no cost. ``metrics`` must have
    the same names in ``reset`` and ``step``.

    Actions are clipped to [-1, 1] here and nowhere else.

    A simulation that broke down, that is, whose observation or reward is not finite, ends its episode with
    ``terminated`` 1, reward 0 and the last finite observation as ``final_observation``; ``metrics["nonfinite"]`` is 1.
    Terminated rather than truncated because there is no true next observation to bootstrap from: with a discount of 0
    the stand-in never enters a target. Where rewards are negative this end is a lenient one, so watch that metric.
    Large but finite numbers are the environment's own affair.

    Raises ``ValueError`` while tracing where an observation is not ``[O]`` or an action not ``[A]``, and ``UserError``
    for a key that is not typed.
    """

    def first(key, *level):
        if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            raise UserError(
                f"{name or 'environment'}: reset needs a typed key, jax.random.key(seed), not PRNGKey(seed)"
            )
        start, run = jax.random.split(key)
        with local.devices():
            inner, observation, _, _, metrics = reset(start, *level)
        observation = _checked(observation, spec.observation_dim, "observation", name)
        zero = jnp.zeros((), jnp.float32)
        return EnvState(
            observation=observation,
            reward=zero,
            terminated=zero,
            truncated=zero,
            final_observation=observation,
            step=jnp.zeros((), jnp.int32),
            key=run,
            inner=jax.tree.map(_strong, inner),
            metrics={**as_float32(metrics or {}), "nonfinite": zero},
        )

    def advance(state, action):
        action = jnp.clip(_checked(action, spec.action_dim, "action", name), -1.0, 1.0)
        key = jax.random.fold_in(state.key, state.step)
        with local.devices():
            inner, observation, reward, terminated, metrics = step(state.inner, action, key)
        observation = _checked(observation, spec.observation_dim, "observation", name)
        reward, terminated = as_float32((reward, terminated))
        finite = jnp.all(jnp.isfinite(observation)) & jnp.isfinite(reward)
        observation = jnp.where(finite, observation, state.observation)
        metrics = {key: jnp.where(finite, value, 0.0) for key, value in as_float32(metrics or {}).items()}
        return EnvState(
            observation=observation,
            reward=jnp.where(finite, reward, 0.0),
            terminated=jnp.where(finite, terminated, 1.0),
            truncated=jnp.zeros((), jnp.float32),
            final_observation=observation,
            step=state.step + 1,
            key=state.key,
            inner=jax.tree.map(lambda new, old: _strong(new, old.dtype), inner, state.inner),
            metrics={**metrics, "nonfinite": 1.0 - finite.astype(jnp.float32)},
        )

    # A run's programs use both several times, and physics take seconds to trace: once for all of them.
    return Env(jax.jit(first, inline=True), jax.jit(advance, inline=True), spec, name, render, draw)


def time_limit(env: Env, steps: int) -> Env:
    """``env`` with ``truncated`` 1 at step number ``steps`` of an episode, unless that step terminated it.

    Goes inside :func:`vectorize`. Raises ``UserError`` for a limit below 1 and for a vectorised ``env``.
    """
    if steps < 1:
        raise UserError(f"{env.name or 'environment'}: an episode needs at least 1 step, got a limit of {steps}")

    def reset(key):
        state = env.reset(key)
        if isinstance(state.inner, Vectorized):
            raise UserError("time_limit goes inside vectorize: vectorize(time_limit(env, steps), num_envs)")
        return state

    def step(state, action):
        state = env.step(state, action)
        over = (state.step >= steps).astype(jnp.float32) * (1.0 - state.terminated)
        return dataclasses.replace(state, truncated=jnp.maximum(state.truncated, over))

    return env._replace(reset=reset, step=step, spec=dataclasses.replace(env.spec, max_episode_steps=steps))


def with_tasks(
    env: Env,
    names: Sequence[str],
    *,
    physics: Callable[[EnvState], Array],
    inner: Callable[[Array], PyTree],
    observe: Callable[[PyTree], Array],
    reward: Callable[[Array, str], Array],
    place: Callable[[Array], Array],
    axes: tuple[str, str],
    extent: tuple[tuple[float, float], tuple[float, float]],
) -> Env:
    """``env`` (from :func:`environment`, without metrics of its own) with :class:`jaxrl_reg.types.Tasks`.

    ``inner(physics [P])`` is the environment's own state there and ``observe(inner) -> [O]`` what is seen of it; the
    rest as in ``Tasks``.
    """

    def restore(vector):
        state = inner(jnp.asarray(vector, jnp.float32))
        observation, zero = as_float32(observe(state)), jnp.zeros((), jnp.float32)
        return EnvState(
            observation=observation,
            reward=zero,
            terminated=zero,
            truncated=zero,
            final_observation=observation,
            step=jnp.zeros((), jnp.int32),
            key=jax.random.key(0),
            inner=jax.tree.map(_strong, state),
            metrics={"nonfinite": zero},
        )

    return env._replace(tasks=Tasks(tuple(names), physics, restore, reward, place, axes, extent))


def with_reward(env: Env, reward: Callable[[EnvState, Array, EnvState], Array]) -> Env:
    """``env`` paying ``reward(before, action [A], after)`` instead of its own; for one environment, not vectorised.

    The arguments are its states around a step. A simulation that broke down pays 0, as ever.
    """

    def step(state, action):
        after = env.step(state, action)
        paid = as_float32(reward(state, jnp.clip(action, -1.0, 1.0), after))
        broken = after.metrics.get("nonfinite", 0.0)
        return dataclasses.replace(after, reward=jnp.where(jnp.asarray(broken) > 0, 0.0, paid))

    return env._replace(step=step)


class Skilled(NamedTuple):
    """``inner`` of an environment whose observation ends with a skill."""

    inner: PyTree
    skill: Array  # [K], one-hot


def with_skills(env: Env, skills: int) -> Env:
    """``env`` with a skill, drawn at each reset, as the last ``skills`` entries of every observation (one-hot).

    Goes inside :func:`vectorize`; for agents that learn what to do with a skill, such as ``diayn``. Raises
    ``UserError`` for fewer than two skills.
    """
    if skills < 2:
        raise UserError(f"{env.name}: with_skills needs at least 2 skills, got {skills}")

    def seen(state, skill):
        return dataclasses.replace(
            state,
            observation=jnp.concatenate([state.observation, skill]),
            final_observation=jnp.concatenate([state.final_observation, skill]),
            inner=Skilled(state.inner, skill),
        )

    def reset(key, *level):
        env_key, skill_key = jax.random.split(key)
        return seen(_begin(env, env_key, *level), jax.nn.one_hot(jax.random.randint(skill_key, (), 0, skills), skills))

    def step(state, action):
        inner, skill = state.inner
        plain = dataclasses.replace(state, inner=inner, observation=state.observation[:-skills])
        return seen(env.step(plain, action), skill)

    spec = dataclasses.replace(env.spec, observation_dim=env.spec.observation_dim + skills)
    return env._replace(reset=reset, step=step, spec=spec, levels=_levels(env, reset))


class Distracted(NamedTuple):
    """``inner`` of an environment that is seen through noise; keeps what the environment itself observed."""

    inner: PyTree
    observation: Array
    noise: Array  # [K]


def with_noise(
    env: Env,
    first: Callable[[Key], Array],
    advance: Callable[[Array, Key], Array],
    emit: Callable[[Array, Array], Array],
) -> Env:
    """``env`` seen together with noise that lives by itself, whatever the actions: an exogenous block process.

    ``first(key) -> noise [K]`` at each reset, ``advance(noise, key) -> noise`` at each step, both of random numbers
    that the environment does not use; ``emit(observation [O], noise) -> [O']`` is what is seen. Fresh noise at every
    step is ``advance=lambda noise, key: first(key)``. Goes inside :func:`vectorize`. Tasks are left out: a physics
    vector without the noise is no state to return to.
    """

    def number(key, step):
        # Counted down from the top, where no step of the environment itself will come.
        return jax.random.fold_in(key, jnp.uint32(2**32 - 1) - step.astype(jnp.uint32))

    def seen(state, inner, noise):
        return dataclasses.replace(
            state,
            observation=as_float32(emit(state.observation, noise)),
            final_observation=as_float32(emit(state.final_observation, noise)),
            inner=Distracted(inner, state.observation, noise),
        )

    def reset(key, *level):
        state = _begin(env, key, *level)
        return seen(state, state.inner, as_float32(first(number(state.key, jnp.int32(0)))))

    def step(state, action):
        inner, observation, noise = state.inner
        noise = as_float32(advance(noise, number(state.key, state.step + 1)))
        after = env.step(dataclasses.replace(state, inner=inner, observation=observation), action)
        return seen(after, after.inner, noise)

    noise = jax.eval_shape(first, jax.random.key(0))
    out = jax.eval_shape(emit, jax.ShapeDtypeStruct((env.spec.observation_dim,), jnp.float32), noise)
    spec = dataclasses.replace(env.spec, observation_dim=out.shape[-1])
    return env._replace(reset=reset, step=step, spec=spec, tasks=None, levels=_levels(env, reset))


class Vectorized(NamedTuple):
    """``inner`` of a vectorised environment; every array has the leading axis ``E``."""

    inner: PyTree  # the physics of the E environments
    starts: PyTree  # pool of first observations and physics; without a pool, nothing
    slot: Array  # int32, the pool's slot to be renewed next, the same number E times
    key: Key  # a stream per environment, for auto-resets


def vectorize(env: Env, num_envs: int, reset_pool: bool = True) -> Env:
    """``E = num_envs`` copies of ``env`` that start their next episode by themselves; the only auto-reset there is.

    ``reset(key) -> state`` and ``step(state, actions [E, A]) -> state``; every array of the state has the leading axis
    ``E``. Where an episode ended, ``observation``, ``step``, ``key`` and the physics are those of the next one, while
    ``reward``, ``terminated``, ``truncated``, ``metrics`` and ``final_observation`` tell of the one that ended:
    ``final_observation`` is always what the action led to.

    Resets: a pool of ``E`` reset states rides along in ``inner``. Each step draws one new state into the next slot, in
    turn, and every environment that ends picks a slot at random. So a step costs one single reset rather than ``E``,
    first states follow the reset distribution exactly, and no state stays longer than ``E`` steps; environments that
    pick the same slot share a first state but not their key, so their episodes part at the first random number.
    ``reset_pool=False`` resets every environment at every step instead and keeps what is needed: each first state is
    then drawn for its episode alone, at the full price.

    Raises ``UserError`` for ``num_envs`` below 1 and ``ValueError`` for actions that are not ``[E, A]``.
    """
    if num_envs < 1:
        raise UserError(f"vectorize needs num_envs of at least 1, got {num_envs}")

    def reset(key):
        first, stream = jax.random.split(key)
        # One batch for both the environments and their pool: a second one would be compiled a second time.
        states = jax.vmap(env.reset)(jax.random.split(first, 2 * num_envs if reset_pool else num_envs))
        state = jax.tree.map(lambda leaf: leaf[:num_envs], states)
        starts = jax.tree.map(lambda leaf: leaf[num_envs:], (states.observation, states.inner)) if reset_pool else ()
        slot = jnp.zeros((num_envs,), jnp.int32)
        inner = Vectorized(state.inner, starts, slot, jax.random.split(stream, num_envs))
        return dataclasses.replace(state, inner=inner)

    def step(state, actions):
        if actions.shape != (num_envs, env.spec.action_dim):
            raise ValueError(f"{env.name}: actions must be {(num_envs, env.spec.action_dim)}, got {actions.shape}")
        inner, starts, slot, key = state.inner
        key, start_key, pick_key, episode_key = _split(key, 4)
        state = jax.vmap(env.step)(dataclasses.replace(state, inner=inner), actions)

        if reset_pool:
            new = env.reset(start_key[0])
            starts = jax.tree.map(lambda pool, leaf: pool.at[slot[0]].set(leaf), starts, (new.observation, new.inner))
            # One draw where randint makes three; the bias, below num_envs / 2^32, is far under what sampling shows.
            pick = jax.vmap(jax.random.bits)(pick_key) % num_envs
            start = jax.tree.map(lambda pool: pool[pick], starts)
        else:
            new = jax.vmap(env.reset)(start_key)
            start = (new.observation, new.inner)

        ended = state.terminated + state.truncated > 0

        def choose(new, old):
            return jnp.where(ended.reshape(ended.shape + (1,) * (old.ndim - 1)), new, old)

        observation, inner = jax.tree.map(choose, start, (state.observation, state.inner))
        return dataclasses.replace(
            state,
            observation=observation,
            step=jnp.where(ended, 0, state.step),
            key=choose(episode_key, state.key),
            inner=Vectorized(inner, starts, (slot + 1) % num_envs, key),
        )

    return env._replace(reset=jax.jit(reset, inline=True), step=jax.jit(step, inline=True), levels=None)


class Transformed(NamedTuple):
    """``inner`` of an environment whose observations are mapped; keeps what the environment itself observed."""

    inner: PyTree
    observation: Array


def transform_observation(env: Env, function: Callable[[Array], Array]) -> Env:
    """``env`` observed through ``function``, for example a normaliser: ``[..., O] -> [..., O']`` for any leading axes.

    Works inside and outside of :func:`vectorize`; the function may close over traced arrays (running statistics).
    Raises ``UserError`` where the function does not give one vector per observation.
    """
    shape = jax.eval_shape(function, jax.ShapeDtypeStruct((env.spec.observation_dim,), jnp.float32)).shape
    if len(shape) != 1:
        raise UserError(f"{env.name}: transform_observation needs a function [O] -> [O'], got shape {shape}")

    def seen(state):
        return dataclasses.replace(
            state,
            observation=as_float32(function(state.observation)),
            final_observation=as_float32(function(state.final_observation)),
            inner=Transformed(state.inner, state.observation),
        )

    def step(state, action):
        inner, observation = state.inner
        return seen(env.step(dataclasses.replace(state, inner=inner, observation=observation), action))

    spec = dataclasses.replace(env.spec, observation_dim=shape[0])
    tasks = env.tasks
    if tasks is not None:
        restore = tasks.restore
        tasks = tasks._replace(restore=lambda physics: seen(restore(physics)))

    def reset(key, *level):
        return seen(_begin(env, key, *level))

    return env._replace(reset=reset, step=step, spec=spec, tasks=tasks, levels=_levels(env, reset))


def unwrap(inner: PyTree) -> PyTree:
    """The physics itself, out of the ``inner`` of an :class:`EnvState` of any wrapped environment."""
    while isinstance(inner, Vectorized | Transformed | Skilled | Distracted):
        inner = inner.inner
    return inner


def _begin(env: Env, key: Key, *level: PyTree) -> EnvState:
    """A first state of ``env``, on a given level if there is one."""
    return env.levels.reset(key, *level) if level else env.reset(key)  # pyright: ignore[reportOptionalMemberAccess]


def _levels(env: Env, reset: Callable[..., EnvState]) -> Levels | None:
    """The levels of ``env`` once its first states are those of ``reset(key, level)``."""
    return None if env.levels is None else env.levels._replace(reset=reset)


def _split(keys: Key, number: int) -> Key:
    """``[E]`` keys into ``[number, E]``."""
    return jax.vmap(lambda key: jax.random.split(key, number), out_axes=1)(keys)


def _checked(vector: Array, size: int, what: str, name: str) -> Array:
    vector = jnp.asarray(vector, jnp.float32)
    if vector.shape != (size,):
        raise ValueError(f"{name or 'environment'}: {what} must have shape ({size},), got {vector.shape}")
    return vector


def _strong(leaf: Any, dtype: Any = None) -> Array:
    """A weak type (from a Python number) would make the first step compile again for the second one's types."""
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    return jax.lax.convert_element_type(leaf, leaf.dtype if dtype is None else dtype)

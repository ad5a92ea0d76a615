"""A goal that is not shown and a sign that tells where it is, in a script to be learnt: the smallest world with levels.

Every world has a script of its own, and a level is a goal with a sign written in it, blurred. The designer's generator
draws goals and signs from the right distributions, but apart, so that its signs say nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import core, drawing, levelled
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Env, Key, Scene, Spec

SIGN, INK = 12, 16  # numbers of a sign, and of the layer that writes it
REACH, RADIUS, EDGE = 0.3, 0.3, 0.9  # of a step; of the goal; where goals end
HELD_OUT = 2**31 - 29  # the seed of the held-out levels; no member's
EDITS = 4  # coordinates that one edit moves


class Signpost(NamedTuple):
    """A level; everything in [-1, 1]."""

    goal: Array  # [2]
    sign: Array  # [12]


class Physics(NamedTuple):
    """Where the point is, and which level it is on."""

    level: Signpost
    position: Array  # [2] in [-1, 1]


def make(
    world_seed: int = 0, nuisance: int = 0, noise: float = 0.25, episode_length: int = 16, held_out: int = 256
) -> Env:
    """A point in the square [-1, 1]^2 that moves by 0.3 times the action, from anywhere; it is paid 1 at every step
    that ends within 0.3 of the goal, and never terminates.

    Observation ``[14]``: position and sign, but not the goal. Levels are :class:`Signpost`. Those aimed at have signs
    ``tanh(tanh([goal, u] W1) W2)`` plus a normal of ``noise``, with ``u`` of ``nuisance`` uniform numbers and the
    script ``W1``, ``W2`` drawn from ``world_seed``; ``levels.sample`` takes goal and sign of two different ones. An
    episode is solved if its last step is paid. ``levels.mutate`` moves four coordinates by 0.4 times a normal.
    ``levels.evaluation`` are ``held_out`` levels of those aimed at.

    Raises ``UserError`` for sizes below 1 or a negative noise.
    """
    if min(episode_length, held_out) < 1 or min(nuisance, noise) < 0:
        raise UserError(
            "signposts: episode_length and held_out must be at least 1, nuisance and noise at least 0; got "
            f"{episode_length}, {held_out}, {nuisance}, {noise}"
        )
    script = np.random.default_rng(world_seed)
    first = np.float32(0.9 * script.normal(size=(2 + nuisance, INK)))
    second = np.float32(0.5 * script.normal(size=(INK, SIGN)))
    env = written_in(first, second, noise, episode_length)
    assert env.levels is not None
    draw = jax.jit(env.levels.dataset, static_argnums=1)
    evaluation = {"held_out": jax.device_get(draw(jax.random.key(HELD_OUT), held_out))}
    return env._replace(levels=env.levels._replace(evaluation=evaluation))


def written_in(first: Array, second: Array, noise: float = 0.25, episode_length: int = 16) -> Env:
    """``make`` for a given script, ``first [2 + nuisance, 16]`` and ``second [16, 12]``, which may be traced; without
    held-out levels."""
    nuisance = first.shape[0] - 2

    def aimed(key: Key) -> Signpost:
        goal_key, other_key, noise_key = jax.random.split(key, 3)
        goal = jax.random.uniform(goal_key, (2,), minval=-EDGE, maxval=EDGE)
        other = jax.random.uniform(other_key, (nuisance,), minval=-1.0)
        sign = jnp.tanh(jnp.tanh(jnp.concatenate([goal, other]) @ first) @ second)
        return Signpost(goal, jnp.clip(sign + noise * jax.random.normal(noise_key, (SIGN,)), -1.0, 1.0))

    def designed(key: Key) -> Signpost:
        one, other = jax.vmap(aimed)(jax.random.split(key)).goal, jax.vmap(aimed)(jax.random.split(key)).sign
        return Signpost(one[0], other[1])

    def mutate(key: Key, level: Signpost, edits: int) -> Signpost:
        flat = jnp.concatenate(level)

        def edit(flat, key):
            which_key, shift_key = jax.random.split(key)
            which = jax.random.permutation(which_key, flat.shape[0])[:EDITS]
            moved = flat.at[which].add(0.4 * jax.random.normal(shift_key, (EDITS,)))
            return jnp.clip(moved, -1.0, 1.0), None

        flat = jax.lax.scan(edit, flat, jax.random.split(key, edits))[0]
        return Signpost(jnp.clip(flat[:2], -EDGE, EDGE), flat[2:])

    def observe(physics):
        return jnp.concatenate([physics.position, physics.level.sign])

    def reset(key, level):
        physics = Physics(level, jax.random.uniform(key, (2,), minval=-1.0))
        return core.Outcome(physics, observe(physics))

    def step(physics, action, key):
        position = jnp.clip(physics.position + REACH * action, -1.0, 1.0)
        physics = Physics(physics.level, position)
        near = jnp.linalg.norm(position - physics.level.goal) < RADIUS
        return core.Outcome(physics, observe(physics), near)

    def dataset(key: Key, count: int) -> Signpost:
        return jax.vmap(aimed)(jax.random.split(key, count))

    env = levelled.with_levels(
        designed,
        reset,
        step,
        Spec(2 + SIGN, 2),
        "signposts",
        of=lambda physics: physics.level,
        mutate=mutate,
        parts=lambda level: level._asdict(),
        join=lambda parts: Signpost(jnp.clip(parts["goal"], -EDGE, EDGE), jnp.clip(parts["sign"], -1.0, 1.0)),
        describe=lambda level: {
            "off_script": jnp.sqrt(jnp.mean(jnp.square(level.sign - written(level.goal, first, second))))
        },
        dataset=dataset,
        evaluation={},
        solved=lambda returns, last_reward, terminated: last_reward > 0,
        picture=_picture,
        draw=_scene,
    )
    return core.time_limit(env, episode_length)


def written(goal: Array, first: Array, second: Array) -> Array:
    """The sign of ``goal [2]`` without blur, and without what does not matter: ``[12]``."""
    return jnp.tanh(jnp.tanh(goal @ first[:2]) @ second)


def _picture(level: Any) -> np.ndarray:
    """``uint8 [5, 6, 3]``: the sign as two rows of greys above the goal's place in a square of three by six."""
    greys = (127.5 * (1.0 + np.asarray(level.sign).reshape(2, 6, 1))).astype(np.uint8).repeat(3, axis=2)
    square = np.full((3, 6, 3), 240, np.uint8)
    x, y = ((np.asarray(level.goal) + 1.0) / 2.0 * (5.99, 2.99)).astype(int)
    square[2 - y, x] = (214, 102, 53)
    return np.concatenate([greys, square])


def _scene(states: list) -> Scene:
    """The point as a ball, and the goal as a larger one that stands still."""
    physics = [core.unwrap(state) for state in states]
    path = np.stack([np.asarray(one.position) for one in physics])
    goal = np.asarray(physics[0].level.goal)
    return Scene(drawing.balls(path), np.array([0.04]), 0.2, False, np.stack([goal, goal])[None], np.array([RADIUS]))

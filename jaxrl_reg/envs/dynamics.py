"""Dynamics as levels: how heavy a body is, how strong its motors, how slippery and how steep the ground.

A level is float32 ``[6]`` in [-1, 1], one number per name in ``FACTORS``: masses of trunk and legs, sliding friction,
damping of the joints and gear of the motors are ``1.5^l`` times what the body has, and gravity is tilted by ``5 l``
degrees. The designer's generator draws from the whole box; what is aimed at are bodies whose motors fit their weight.

MuJoCo derives constants from a model (``body_invweight0`` and others) when it is loaded; they stay those of the body
itself, which after a second moves positions by less than a millimetre.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import levelled
from jaxrl_reg.types import Array, Env, Key, Metrics, Spec

FACTORS = ("trunk_mass", "leg_mass", "friction", "damping", "gear", "tilt")
BASE, STEEPEST = 1.5, np.deg2rad(5.0)
HELD_OUT, COUNT = 2**31 - 29, 16  # seed and number of the held-out levels of each kind
COLD, PLAIN, WARM = (np.array(colour, float) for colour in ((52, 110, 189), (242, 240, 233), (214, 102, 53)))


def varied(model: Any, level: Array, trunk: int) -> Any:
    """An MJX ``model`` with the dynamics of ``level [6]``, which may be traced: no other program for another level.

    ``trunk`` is the number of the body that the first number is about; the others are legs.
    """
    factor = BASE**level
    mass = jnp.where(jnp.arange(model.body_mass.shape[0]) == trunk, factor[0], factor[1])
    strength = jnp.linalg.norm(jnp.asarray(model.opt.gravity))
    angle = STEEPEST * level[5]
    gravity = strength * jnp.stack([jnp.sin(angle), jnp.zeros_like(angle), -jnp.cos(angle)])
    return model.replace(
        body_mass=model.body_mass * mass,
        body_inertia=model.body_inertia * mass[:, None],
        geom_friction=model.geom_friction * jnp.stack([factor[2], jnp.ones(()), jnp.ones(())]),
        dof_damping=model.dof_damping * factor[3],
        actuator_gear=model.actuator_gear * factor[4],
        opt=model.opt.replace(gravity=gravity),
    )


def designed(key: Key) -> Array:
    """A level of the designer's: anything in the box."""
    return jax.random.uniform(key, (len(FACTORS),), minval=-1.0)


def fitting(key: Key) -> Array:
    """A level of those aimed at: the gear is the mean of the masses, plus 0.1 times a normal."""
    box_key, gear_key = jax.random.split(key)
    level = designed(box_key)
    gear = level[:2].mean() + 0.1 * jax.random.normal(gear_key)
    return level.at[4].set(jnp.clip(gear, -1.0, 1.0))


def dataset(key: Key, count: int) -> Array:
    """``[count, 6]`` of those aimed at."""
    return jax.vmap(fitting)(jax.random.split(key, count))


def mutated(key: Key, level: Array, edits: int) -> Array:
    """Every number moved ``edits`` times by 0.2 times a normal."""
    moved = 0.2 * jax.random.normal(key, (edits, len(FACTORS))).sum(0)
    return jnp.clip(level + moved, -1.0, 1.0)


def described(level: Array) -> Metrics:
    """The numbers by name, and ``misfit``, how far the gear is from what the masses ask for."""
    named = {name: level[number] for number, name in enumerate(FACTORS)}
    return {**named, "misfit": jnp.abs(level[4] - level[:2].mean())}


def evaluation() -> dict[str, np.ndarray]:
    """Held-out levels: ``held_out`` of those aimed at, and ``box``, anything."""

    def draw(key):
        return dataset(key, COUNT), jax.vmap(designed)(jax.random.split(key, COUNT))

    # Not a dictionary inside, whose names JAX would sort: runs are judged by the first set.
    return dict(zip(("held_out", "box"), jax.device_get(jax.jit(draw)(jax.random.key(HELD_OUT))), strict=True))


def picture(level: Any) -> np.ndarray:
    """``uint8 [1, 6, 3]``: blue for less than the body has, orange for more."""
    level = np.asarray(level, float)[None, :, None]
    mixed = np.where(level > 0, PLAIN + level * (WARM - PLAIN), PLAIN - level * (COLD - PLAIN))
    return mixed.round().astype(np.uint8)


def with_levels(
    reset: Callable[..., Any],
    step: Callable[..., Any],
    spec: Spec,
    name: str,
    *,
    solved: Callable[[Array, Array, Array], Array],
    draw: Callable[..., Any],
) -> Env:
    """An environment whose dynamics are levels: ``reset(key, level)``, and its ``inner`` keeps the ``level``.

    The other arguments are those of ``levelled.with_levels``.
    """
    return levelled.with_levels(
        designed,
        reset,
        step,
        spec,
        name,
        of=lambda inner: inner.level,
        mutate=mutated,
        parts=lambda level: {"dynamics": level},
        join=lambda parts: parts["dynamics"].clip(-1.0, 1.0),
        describe=described,
        dataset=dataset,
        evaluation=evaluation(),
        solved=solved,
        picture=picture,
        draw=draw,
    )

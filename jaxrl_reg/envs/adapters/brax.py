"""Brax's locomotion and classic tasks; the physics is Brax's, everything around it ours."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_reg.envs import core, drawing, local, quiet
from jaxrl_reg.envs.dynamics import BASE, varied, with_levels
from jaxrl_reg.errors import UserError, need, unknown
from jaxrl_reg.types import Array, Env, Spec

NAMES = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "walker2d",
)
# Brax's fluid forces call an argument of ``clip`` that JAX no longer has.
BROKEN = {"swimmer": "its Brax code does not run with current JAX; playground/SwimmerSwimmer6 is the nearest task"}
BACKENDS = ("spring", "positional", "generalized", "mjx")
MASSLESS = ("spring", "positional")


class Varied(NamedTuple):
    """Brax's ``State`` of a body whose dynamics are a level."""

    state: Any
    level: Array  # [6], see ``envs.dynamics``


def make(
    name: str, backend: str = "spring", episode_length: int = 1000, dynamics: bool = False, **settings: Any
) -> Env:
    """Brax's environment ``name`` (also one that ``brax.envs.register_environment`` added) on a physics ``backend``.

    Brax's ``done`` is ``terminated``; the time limit is ours, Brax's wrappers are not used. ``settings`` go to the
    Brax class, for example ``healthy_reward`` or ``terminate_when_unhealthy``. ``inner`` is Brax's own ``State``, and
    ``render`` takes a list of them for one environment and returns Brax's HTML viewer, which loads its code from the
    network; ``draw`` gives the scene for ours, which does not. With ``dynamics`` these are levels (``envs.dynamics``;
    the trunk is the first link), and a level is solved by an episode that does not terminate.

    Raises ``UserError`` for an unknown name, backend or setting, and for observations that are not one vector.
    """
    if name in BROKEN:
        raise UserError(f"brax/{name}: {BROKEN[name]}")
    if backend not in BACKENDS:
        raise unknown("Brax backend", backend, BACKENDS)
    if dynamics and backend in MASSLESS:
        raise UserError(
            f"brax/{name}: the {backend} backend moves its bodies as if every mass were 1, so a level would change "
            "nothing; take --backend generalized or mjx"
        )
    quiet.mjx()  # which Brax imports
    with local.devices(), quiet.models(), quiet.python():
        need("brax")
        import brax.envs

        try:
            env: Any = brax.envs.get_environment(name, backend=backend, **settings)
        except KeyError:
            raise unknown("Brax environment", name, NAMES) from None
        except TypeError:
            known = _settings(brax.envs, name)
            wrong = [key for key in settings if key not in known]
            if not wrong:
                raise
            raise unknown(f"setting of brax/{name}", wrong[0], known) from None

    @functools.partial(jax.jit, inline=True)  # traced here for its shapes, and not again by the first program
    def reset(key):
        # Brax knows raw keys only.
        with quiet.python():
            return _outcome(env.reset(jax.random.key_data(key)))

    def step(state, action, key):
        # Brax writes into the dictionaries of the state it is given.
        with quiet.python():
            return _outcome(env.step(state.replace(metrics=dict(state.metrics), info=dict(state.info)), action))

    def render(states):
        need("brax")
        from brax.io import html

        states = [state.pipeline_state for state in map(core.unwrap, states)]
        if not states or states[0].x.pos.ndim != 2:
            raise UserError("render needs a list of the inner states of one environment: index the leading axis first")
        return html.render(env.sys.tree_replace({"opt.timestep": env.dt}), states)

    def draw(states):
        poses = [core.unwrap(state).pipeline_state.x for state in states]
        position, quaternion = (np.stack([np.asarray(getattr(x, name)) for x in poses]) for name in ("pos", "rot"))
        # Body 0 of the model is the world, which Brax leaves out.
        position = np.concatenate([np.zeros_like(position[:, :1]), position], axis=1)
        quaternion = np.concatenate([np.eye(1, 4)[None].repeat(len(poses), axis=0), quaternion], axis=1)
        return drawing.bodies(env.sys.mj_model, position, quaternion, float(env.dt))

    with local.devices(), quiet.python():
        observation = jax.eval_shape(reset, jax.random.key(0)).observation
    if not hasattr(observation, "shape") or len(observation.shape) != 1:
        raise UserError(f"brax/{name}: the observation must be one vector")
    spec = Spec(observation.shape[0], env.action_size)
    if dynamics:
        return core.time_limit(_varied(env, spec, f"brax/{name}", draw), episode_length)
    return core.time_limit(core.environment(reset, step, spec, f"brax/{name}", render, draw), episode_length)


def under(env: Any, level: Array) -> Any:
    """A Brax environment with the dynamics of ``level [6]``, which may be traced; ``env`` stays as it is.

    What MJX reads and what Brax's own pipelines read are changed alike."""
    own, factor = copy.copy(env), BASE**level
    system = varied(env.sys, level, 1)  # body 0 is the world
    link = env.sys.link.inertia
    mass = system.body_mass[1:] / env.sys.body_mass[1:]
    own.sys = system.tree_replace(
        {
            "link.inertia.mass": link.mass * mass,
            "link.inertia.i": link.i * mass[:, None, None],
            "dof.damping": env.sys.dof.damping * factor[3],
            "actuator.gear": env.sys.actuator.gear * factor[4],
            "gravity": system.opt.gravity,
        }
    )
    return own


def _varied(env: Any, spec: Spec, name: str, draw: Any) -> Env:
    """A Brax environment whose dynamics are levels."""

    def reset(key, level):
        with quiet.python():
            begun = _outcome(under(env, level).reset(jax.random.key_data(key)))
        return begun._replace(inner=Varied(begun.inner, level))

    def step(inner, action, key):
        state = inner.state.replace(metrics=dict(inner.state.metrics), info=dict(inner.state.info))
        with quiet.python():
            after = _outcome(under(env, inner.level).step(state, action))
        return after._replace(inner=Varied(after.inner, inner.level))

    return with_levels(
        reset,
        step,
        spec,
        name,
        solved=lambda returns, last_reward, terminated: terminated == 0,
        draw=lambda states: draw([core.unwrap(state).state for state in states]),
    )


def _outcome(state: Any) -> core.Outcome:
    return core.Outcome(state, state.obs, state.reward, state.done, dict(state.metrics))


def _settings(envs: Any, name: str) -> set[str]:
    """What the classes of ``name`` take by keyword."""
    with contextlib.suppress(KeyError):
        constructors = [base.__init__ for base in envs._envs[name].__mro__]
        named = {key for function in constructors for key in inspect.signature(function).parameters}
        return named - {"self", "args", "kwargs", "sys", "backend"}
    return set()

"""The DeepMind Control suite of MuJoCo Playground, simulated by MJX."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from jaxrl_reg.envs import core, drawing, local, quiet
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import Env, Spec

NAMES = (
    "AcrobotSwingup",
    "AcrobotSwingupSparse",
    "BallInCup",
    "CartpoleBalance",
    "CartpoleBalanceSparse",
    "CartpoleSwingup",
    "CartpoleSwingupSparse",
    "CheetahRun",
    "FingerSpin",
    "FingerTurnEasy",
    "FingerTurnHard",
    "FishSwim",
    "HopperHop",
    "HopperStand",
    "HumanoidRun",
    "HumanoidStand",
    "HumanoidWalk",
    "PendulumSwingup",
    "PointMass",
    "ReacherEasy",
    "ReacherHard",
    "SwimmerSwimmer6",
    "WalkerRun",
    "WalkerStand",
    "WalkerWalk",
)
# How the report shows them: most from the side, in place; those that run, with the camera beside them.
FROM_ABOVE = ("FishSwim", "PointMass", "ReacherEasy", "ReacherHard", "SwimmerSwimmer6")
RUNNERS = ("Cheetah", "Hopper", "Humanoid", "Walker")


def make(name: str, episode_length: int = 1000, impl: str = "jax", **overrides: Any) -> Env:
    """Playground's control-suite task ``name``; needs the extra ``jaxrl-reg[playground]``.

    ``impl`` is MJX's implementation: "jax" runs everywhere and inside our compiled loops. ``overrides`` change entries
    of the task's configuration, for example ``ctrl_dt``. ``done`` is ``terminated``; the time limit is ours. ``inner``
    is Playground's ``State``. Its locomotion and manipulation suites download assets when first used and are not here.

    Raises ``UserError`` for a missing package, an unknown name or setting, and observations that are not one vector.
    """
    if name not in NAMES:
        raise unknown("Playground environment", name, NAMES)
    quiet.mjx()  # which Playground imports
    try:
        from mujoco_playground import dm_control_suite  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"playground/{name} needs MuJoCo Playground ({error}); install it with: pip install 'jaxrl-reg[playground]'"
        ) from None
    config = dm_control_suite.get_default_config(name)
    known = set(config.keys()) - {"episode_length", "action_repeat"}
    for key in overrides:
        if key not in known:
            raise unknown(f"setting of playground/{name}", key, known)
    with local.devices(), quiet.models():
        env = dm_control_suite.load(name, config_overrides={"impl": impl, **overrides})

    @functools.partial(jax.jit, inline=True)  # traced here for its shapes, and not again by the first program
    def reset(key):
        return _outcome(env.reset(jax.random.key_data(key)))

    def step(state, action, key):
        info = dict(state.info)
        if "rng" in info:
            # Environments that were reset from the same pool slot would else share their randomness from then on.
            info["rng"] = jax.random.key_data(key)
        return _outcome(env.step(state.replace(metrics=dict(state.metrics), info=info), action))

    def draw(states):
        data = [core.unwrap(state).data for state in states]
        return drawing.motion(
            env.mj_model,
            np.stack([np.asarray(each.qpos) for each in data]),
            float(env.dt),
            drawing.ABOVE if name in FROM_ABOVE else drawing.SIDE,
            follow=name.startswith(RUNNERS),
            targets=np.asarray(data[0].mocap_pos),
        )

    with local.devices():
        observation = jax.eval_shape(reset, jax.random.key(0)).observation
    if not hasattr(observation, "shape") or len(observation.shape) != 1:
        raise UserError(f"playground/{name}: the observation must be one vector")
    spec = Spec(observation.shape[0], env.action_size)
    return core.time_limit(core.environment(reset, step, spec, f"playground/{name}", draw=draw), episode_length)


def _outcome(state: Any) -> core.Outcome:
    return core.Outcome(state, state.obs, state.reward, state.done, dict(state.metrics))

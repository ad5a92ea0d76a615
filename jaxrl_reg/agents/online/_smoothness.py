"""A policy that does the same when what it sees is perturbed: the regulariser of SA-PPO.

The loss gets ``smoothness`` times the largest change of the action within a box around each observation: ``sum (mean -
mean')^2 / std^2`` of a normal, the KL of a choice. The box is ``smoothness_epsilon`` standard deviations of each
observation, by the running statistics; the worst point is looked for by projected gradient ascent, where Zhang et al.
2020 take Langevin dynamics or a convex bound. The metric ``smoothness`` is the change, before the coefficient.
"""

from __future__ import annotations

import math
from typing import Any

import jax

from jaxrl_reg import losses
from jaxrl_reg.errors import UserError
from jaxrl_reg.transforms import projected_ascent
from jaxrl_reg.types import Array, Key, PyTree, Spec, setting

STEPS = 10


def coefficient() -> Any:
    """The setting ``smoothness``."""
    return setting(default=0.0, help="weight of the largest change under perturbed observations (SA-PPO)")


def epsilon() -> Any:
    """The setting ``smoothness_epsilon``."""
    return setting(default=0.1, help="size of those perturbations, standard deviations of each observation")


def check(config: Any) -> None:
    """Raises ``UserError`` for a weight below 0 or a size that is none."""
    if not (config.smoothness >= 0 and math.isfinite(config.smoothness)):
        raise UserError(f"smoothness={config.smoothness} must be at least 0")
    if not (config.smoothness_epsilon > 0 and math.isfinite(config.smoothness_epsilon)):
        raise UserError(f"smoothness_epsilon={config.smoothness_epsilon} must be above 0")


def held(
    config: Any, spec: Spec, policy: Any, params: PyTree, observation: Array, key: Key, loss: Array
) -> tuple[Array, Array]:
    """``loss`` with the regulariser, and the regulariser's mean; ``observation [B, O]`` as the network takes it."""
    fixed = jax.lax.stop_gradient(params)
    plain = policy.apply(fixed, observation)

    def change(distribution: Any) -> Array:
        if spec.discrete:
            return losses.categorical_kl(plain, distribution)
        return losses.policy_smoothness_loss(plain[0], distribution[0], plain[1])

    def worse(x: Array) -> Array:
        return change(policy.apply(fixed, x))

    key = jax.random.fold_in(key, 1)
    shift = projected_ascent(worse, observation, key, config.smoothness_epsilon, STEPS, start="sign")
    found = change(policy.apply(params, observation + jax.lax.stop_gradient(shift))).mean()
    return loss + config.smoothness * found, found

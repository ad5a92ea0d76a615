"""What would have happened otherwise: in a simulator the state can be forked, and both futures share their chance.

A learned model of others (Hirose et al., 2023, SACSoN) must guess the answer to "and if I had done nothing?"; here it
is computed. Both branches start from one state, whose key deals out the random numbers, so they differ only by what was
done.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_reg.envs import core
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Env, EnvState, Key, PyTree

Act = Callable[[Array, Key], Array]  # observation [O], key -> action [A]
Features = Callable[[EnvState], PyTree]


def fork(
    env: Env, act: Act, null: Act, state: EnvState, key: Key, length: int, features: Features
) -> tuple[PyTree, PyTree]:
    """``features`` of the ``length`` states to come, leaves ``[T, ...]``, once acting by ``act`` and once by ``null``.

    ``env`` is a single environment, callers vmap: an auto-reset would compare different episodes. Nothing stops at an
    episode's end. ``key`` is folded with the step and the same for both, so policies share their chance as well.
    Raises ``UserError`` for a vectorised environment.
    """
    if isinstance(state.inner, core.Vectorized):
        raise UserError(f"{env.name}: fork takes a single environment; vmap over fork instead of vectorizing")

    def run(policy: Act) -> PyTree:
        def body(state, t):
            following = env.step(state, policy(state.observation, jax.random.fold_in(key, t)))
            return following, features(following)

        return jax.lax.scan(body, state, jnp.arange(length))[1]

    return run(act), run(null)


def with_side_effect_penalty(
    env: Env, features: Callable[[EnvState], Array], null_action: Array, weight: Array | float
) -> Env:
    """``env`` with reward ``r - weight |features(after) - features(had it been null_action)|``, Euclidean.

    The comparison is renewed at each step from the state that there is, so what was done once is not charged again, and
    nothing need be undone. ``features [...]`` should be what is to be left alone, such as the position of others. Goes
    inside ``vectorize``.
    """
    null_action = jnp.asarray(null_action, jnp.float32)

    def reward(before: EnvState, action: Array, after: EnvState) -> Array:
        difference = features(after) - features(env.step(before, null_action))
        return after.reward - weight * jnp.linalg.norm(difference)

    return core.with_reward(env, reward)

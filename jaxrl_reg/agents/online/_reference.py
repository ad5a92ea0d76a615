"""What an agent takes of a reference policy's data set: rows, moments, and a clone of the policy itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.online import ppo
from jaxrl_reg.data.samplers import uniform
from jaxrl_reg.errors import UserError
from jaxrl_reg.losses.divergence import LARGEST_CHI2_EXPONENT
from jaxrl_reg.policies.categorical import code
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Agent, Array, Dataset, Key, PyTree, Spec, Transition

CLONE_BATCH, CLONE_RATE = 256, 1e-3
LARGEST = 10.0  # of a standardised observation
INFINITE = 0.999 * math.expm1(LARGEST_CHI2_EXPONENT)  # from here on a chi-square is at the bound of its closed form
Extras = dict[str, Array]
Rows = tuple[Array, Array]  # observations and actions [B, ...]


def beside(data: Dataset, key: Key, rows: Transition) -> Extras:
    """``Agent.beside``: uniform rows of the reference, as many as the trajectory ``[T, E]`` has, and its moments.

    ``reference/observation [T, E, O]``, ``reference/action [T, E, A]``, ``reference/mean`` and ``reference/std [O]``,
    and ``reference/scale``, the standard deviation of the rewards (1 where they do not vary).

    Raises ``UserError`` where a run has no data.
    """
    extras = moments(data)
    index = jax.random.randint(key, rows.reward.shape, 0, data.size)
    return {**extras, "reference/observation": data.observation[index], "reference/action": data.action[index]}


def moments(data: Dataset) -> Extras:
    """Mean and spread of the observations, and the spread of the rewards; raises ``UserError`` without data."""
    if data is None:
        raise UserError("this agent is held to the data set of a reference policy; name one: --reference, or data=")
    scale = data.reward.std()
    return {
        "reference/mean": data.observation.mean(axis=0),
        "reference/std": jnp.maximum(data.observation.std(axis=0), 1e-3),
        "reference/scale": jnp.where(scale > 0, scale, 1.0),
    }


def seen(observation: Array, extras: Extras) -> Array:
    """Observations in units of the reference's; what it never saw is far out, but bounded."""
    return jnp.clip((observation - extras["reference/mean"]) / extras["reference/std"], -LARGEST, LARGEST)


def chosen(action: Array, spec: Spec) -> Array:
    """Of a discrete action only the choice counts, whatever numbers it was made of."""
    return code(jnp.argmax(action, axis=-1), spec.action_dim) if spec.discrete else action


def rows_of(observation: Array, action: Array) -> tuple[Array, Array]:
    """``[T, E, ...]`` as ``[T E, ...]``."""
    return observation.reshape(-1, observation.shape[-1]), action.reshape(-1, action.shape[-1])


def cloned(actor: Any, spec: Spec, data: Dataset, model: _common.Trainable, steps: int) -> _common.Trainable:
    """The policy ``actor`` after so many steps of maximum likelihood on the reference, the same rows for every seed."""
    extras = moments(data)

    def one(i: Array, model: _common.Trainable) -> _common.Trainable:
        rows = uniform(data, jax.random.fold_in(jax.random.key(0), i), CLONE_BATCH)

        def loss(params: PyTree) -> tuple[Array, None]:
            action = chosen(rows.action, spec)
            return -actor.log_prob(params, seen(rows.observation, extras), action).mean(), None

        return _common.descend(loss, model, adam(CLONE_RATE))[0]

    return jax.lax.fori_loop(0, steps, one, model)


def divergent_loss(
    config: ppo.Config, spec: Spec, divergence: str, reference: PyTree, weight: Array, extras: Extras
) -> Agent:
    """PPO with a divergence over actions from a cloned policy in its loss, ``weight / (1 - discount)`` times the closed
    form; where a chi-square is infinite the KL is taken, as in the released code."""
    actor = ppo.actor_of(config, spec)

    def penalty(distribution: Any, observation: Array, hyper: Any, step: Array) -> Array:
        theirs = actor.apply(reference, seen(observation, extras))
        both = (distribution, theirs) if spec.discrete else (*distribution, *theirs)
        value = (losses.categorical_kl if spec.discrete else losses.gaussian_kl)(*both)
        if divergence != "kl":
            chi2 = (losses.categorical_chi2 if spec.discrete else losses.gaussian_chi2)(*both)
            root = jnp.sqrt(jnp.maximum(chi2, 1e-4)) if divergence == "sqrt_chi2" else chi2
            value = jnp.where(chi2 < INFINITE, root, value)
        return weight / (1.0 - hyper.discount) * value

    return ppo.make(config, spec, penalty)


class Discriminator(NamedTuple):
    """Tells rows of the policy from the reference's: ``score(params, rows, extras)`` is ``d [B]``, and ``learn(model,
    rows, batch, hyper, key)`` takes the steps of a trajectory and gives the mean of the loss over them."""

    init: Callable[[Key], PyTree]
    score: Callable[[PyTree, Rows, Extras], Array]
    learn: Callable[[_common.Trainable, Rows, Transition, Any, Key], tuple[_common.Trainable, Array]]


def discriminator(config: Any, spec: Spec) -> Discriminator:
    """The functions for the ``Config`` of ``occupancy_reg``."""
    inputs = spec.observation_dim + (spec.action_dim if config.measure == "state_action" else 0)
    network = networks.mlp((inputs, *config.discriminator_hidden, 1), activation="tanh")

    def score(params: PyTree, rows: Rows, extras: Extras) -> Array:
        observation, action = rows
        x = seen(observation, extras)
        if config.measure == "state_action":
            x = jnp.concatenate([x, chosen(action, spec)], axis=-1)
        return network.apply(params, x)[..., 0]

    def learn(
        model: _common.Trainable, own: Rows, batch: Transition, hyper: Any, key: Key
    ) -> tuple[_common.Trainable, Array]:
        theirs = rows_of(batch.extras["reference/observation"], batch.extras["reference/action"])
        count, size = len(own[0]), min(config.discriminator_batch, len(own[0]))

        def step(model, key):
            some, others = jax.random.randint(key, (2, size), 0, count)

            def loss(params):
                ours = score(params, jax.tree.map(lambda x: x[some], own), batch.extras)
                them = score(params, jax.tree.map(lambda x: x[others], theirs), batch.extras)
                policy, reference = losses.discriminator_loss(ours, them)
                return policy.mean() + reference.mean(), policy.mean() + reference.mean()

            return _common.descend(loss, model, adam(hyper.discriminator_learning_rate))

        model, values = jax.lax.scan(step, model, jax.random.split(key, config.discriminator_steps))
        return model, values.mean()

    return Discriminator(network.init, score, learn)

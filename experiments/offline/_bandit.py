"""Actors against a critic that is known, and wrong away from the data: what pulls them is all that differs.

States are uniform in [-1, 1]^2, the best action is g(s) = 0.6 (cos 2 s_1, sin 2 s_2), and an action is truly worth
-|a - g(s)|^2. The critic adds 25, so that its size is that of a return, and an error that grows away from the origin.
Of the data's actions a share is good (g plus noise of 0.05), the others are uniform in the disc of radius 0.6.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl_reg import losses, networks
from jaxrl_reg.data import retrieval
from jaxrl_reg.policies import deterministic
from jaxrl_reg.types import Spec

SPEC = Spec(observation_dim=2, action_dim=2)
ROWS, RADIUS, OFFSET = 3072, 0.6, 25.0
SIZES = {"small": ((64, 64), 1000, 128), "full": ((256, 256), 10_000, 256)}  # hidden widths, updates, batch


def goal(s):
    return 0.6 * jnp.stack([jnp.cos(2 * s[..., 0]), jnp.sin(2 * s[..., 1])], axis=-1)


def true_value(s, a):
    return -jnp.square(a - goal(s)).sum(-1)


def everywhere(a):
    """The critic's error grows from the origin."""
    return 1.5 * jnp.square(a).sum(-1)


def outside(a):
    """The critic is right within the data's disc."""
    return 1.5 * jnp.maximum(jnp.square(a).sum(-1) - RADIUS**2, 0.0)


def behaviour(key, good):
    """States and actions ``[ROWS, 2]``, a share ``good`` of them near the best."""
    keys = jax.random.split(key, 5)
    s = jax.random.uniform(keys[0], (ROWS, 2), minval=-1.0, maxval=1.0)
    direction = jax.random.normal(keys[1], (ROWS, 2))
    length = RADIUS * jnp.sqrt(jax.random.uniform(keys[2], (ROWS, 1)))
    poor = length * direction / jnp.linalg.norm(direction, axis=-1, keepdims=True)
    best = goal(s) + 0.05 * jax.random.normal(keys[3], (ROWS, 2))
    return s, jnp.clip(jnp.where(jax.random.uniform(keys[4], (ROWS, 1)) < good, best, poor), -1.0, 1.0)


def mean_value(s, good, error):
    """What the critic says of the data's actions on average: V(s), exactly but for the small noise of good ones."""
    poor = -(jnp.square(goal(s)).sum(-1) + RADIUS**2 / 2)  # the mean of |a|^2 over the disc is r^2 / 2
    return OFFSET + good * (-2 * 0.05**2 + error(goal(s))) + (1 - good) * poor


@functools.partial(jax.jit, static_argnames=("method", "scale", "error"))
def train(key, good, alpha, beta, *, method, scale, error):
    """The true value of the actor, mean over fresh states, after training by ``method``.

    ``td3``, ``td3_bc``, ``prdc``; ``a2pr``, ``a2pr_unfiltered`` (its autoencoder learns from all actions) and
    ``a2pr_blind`` (so it does, and the pull is always to what it generates).
    """
    hidden, updates, size = SIZES[scale]
    data_key, init_key, vae_key, train_key, test_key = jax.random.split(key, 5)
    s, a = behaviour(data_key, good)
    network, vae = deterministic.make(SPEC, hidden), networks.action_vae(SPEC, hidden)
    optimiser = optax.adam(3e-3)
    actor, model = network.init(init_key), vae.init(vae_key)

    def critic(s, a):
        return OFFSET + true_value(s, a) + error(a)

    def pull(action, states, actions, model, key):
        """Target and gate."""
        ones = jnp.ones(action.shape[0])
        if method == "td3":
            return actions, 0.0 * ones
        if method == "td3_bc":
            return actions, ones
        if method == "prdc":
            weight = jnp.array([1.0, 1.0, 0.0, 0.0]) * beta**2 + jnp.array([0.0, 0.0, 1.0, 1.0])
            query = jnp.concatenate([states, action], -1)
            return a[retrieval.nearest(query, (s, a), weight)[1][:, 0]], ones
        generated = jax.lax.stop_gradient(vae.apply(model, states, action, key)[0])
        if method == "a2pr_blind":
            return generated, ones
        values = critic(states, generated), critic(states, actions), mean_value(states, good, error)
        return losses.advantage_select(generated, actions, *values, 1.0)

    def vae_loss(params, states, actions, key):
        reconstruction, mean, log_std = vae.apply(params, states, actions, key)
        better = critic(states, actions) > mean_value(states, good, error)
        weight = better if method == "a2pr" else jnp.ones(actions.shape[0])
        errors, divergence = losses.vae_losses(reconstruction, actions, mean, log_std, weight)
        return errors.mean() + 0.5 * divergence.mean()

    def actor_loss(params, states, actions, model, key):
        action = network.apply(params, states)
        target, gate = pull(action, states, actions, model, key)
        return losses.regularised_actor_loss(critic(states, action), action, target, gate, alpha).mean()

    def body(carry, key):
        actor, actor_moments, model, model_moments = carry
        row_key, encode_key, generate_key = jax.random.split(key, 3)
        rows = jax.random.randint(row_key, (size,), 0, ROWS)
        if method.startswith("a2pr"):
            gradients = jax.grad(vae_loss)(model, s[rows], a[rows], encode_key)
            changes, model_moments = optimiser.update(gradients, model_moments)
            model = optax.apply_updates(model, changes)
        gradients = jax.grad(actor_loss)(actor, s[rows], a[rows], model, generate_key)
        changes, actor_moments = optimiser.update(gradients, actor_moments)
        return (optax.apply_updates(actor, changes), actor_moments, model, model_moments), None

    start = actor, optimiser.init(actor), model, optimiser.init(model)
    (actor, *_), _ = jax.lax.scan(body, start, jax.random.split(train_key, updates))
    fresh = jax.random.uniform(test_key, (4096, 2), minval=-1.0, maxval=1.0)
    return true_value(fresh, network.apply(actor, fresh)).mean()


def values(seeds, good, alphas, *, method, scale, error, beta=2.0):
    """``[alphas, seeds]``; the same seed has the same data under every method."""
    one = functools.partial(train, method=method, scale=scale, error=error)
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    over_seeds = jax.vmap(one, in_axes=(0, None, None, None))
    over_both = jax.vmap(over_seeds, in_axes=(None, None, 0, None))
    return np.asarray(over_both(keys, jnp.float32(good), jnp.asarray(alphas, jnp.float32), jnp.float32(beta)))

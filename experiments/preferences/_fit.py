"""Fitting, and small networks, shared by the experiments on preferences; they map everything here over seeds."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg.losses import categorical_kl


def fit(key, params, loss, rows, steps, size=None, rate=1e-3, optimiser=None, measure=None):
    """``params`` after ``steps`` of Adam on ``loss(params, rows)``, a scalar, all rows at once or ``size`` random ones.

    With ``measure`` also what it says of the parameters after every step, ``[steps, ...]``.
    """
    optimiser = optimiser or optax.adam(rate)
    count = len(jax.tree.leaves(rows)[0])

    def body(carry, key):
        params, moments = carry
        drawn = rows
        if size is not None:
            which = jax.random.randint(key, (size,), 0, count)
            drawn = jax.tree.map(lambda column: column[which], rows)
        changes, moments = optimiser.update(jax.grad(loss)(params, drawn), moments, params)
        params = optax.apply_updates(params, changes)
        return (params, moments), None if measure is None else measure(params)

    (params, _), measured = jax.lax.scan(body, (params, optimiser.init(params)), jax.random.split(key, steps))
    return params if measure is None else (params, measured)


def mlp(key, sizes, last=1.0):
    """Weights of layers of these sizes; those of the last are multiplied by ``last``, so that 0 starts at 0."""
    shapes = list(itertools.pairwise(sizes))
    scales = [1.0] * (len(shapes) - 1) + [last]
    keys = jax.random.split(key, len(shapes))
    return [
        (scale * jax.random.normal(key, shape) / shape[0] ** 0.5, jnp.zeros(shape[1]))
        for key, shape, scale in zip(keys, shapes, scales, strict=True)
    ]


def forward(params, x, activation=jnp.tanh):
    """The network's output ``[..., out]``."""
    *hidden, (weight, bias) = params
    for w, b in hidden:
        x = activation(x @ w + b)
    return x @ weight + bias


def value(log_policy, reward, log_ref, beta):
    """``(E r, KL, E r - beta KL)`` of policies ``[..., A]``, exact."""
    expected = (jnp.exp(log_policy) * reward).sum(-1)
    divergence = categorical_kl(log_policy, log_ref)
    return expected, divergence, expected - beta * divergence


def keys(seeds):
    return jnp.stack([jax.random.key(seed) for seed in seeds])

"""Training an objective on a table of rows, as the experiments on encoders do; they map it over seeds and arms."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.loops.pretrain import Hyper, pretrain
from jaxrl_reg.types import Transition


def table(observation, action=None, next_observation=None, **extras):
    """Rows ``[N, ...]`` with what an objective looks at; rewards are 0."""
    blank = jnp.zeros(observation.shape[0])
    action = blank[:, None] if action is None else action
    after = observation if next_observation is None else next_observation
    return Transition(observation, action, blank, blank, after, extras=extras)


def drawn(rows, key, size):
    """``size`` rows, with replacement."""
    which = jax.random.randint(key, (size,), 0, rows.observation.shape[0])
    return jax.tree.map(lambda column: column[which], rows)


def trained(key, objective, rows, updates, *, size=128, rate=1e-3, decay=0.0):
    """The objective's parameters after ``updates`` steps of AdamW; ``rate`` and ``decay`` may be traced."""
    run = pretrain(objective, updates=updates, batch_size=size, sample=drawn)
    state, _ = run(key, Hyper(learning_rate=rate, weight_decay=decay), rows)
    return state.params


def of_arms(measure, seeds, arms):
    """``measure(key, arm)`` for every seed and arm, one after the other in one program: leaves ``[seeds, arms, ...]``.

    ``arms`` is an array or a pytree of arrays ``[arms, ...]``.
    """
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])

    def of_seed(key):
        return jax.lax.map(lambda arm: measure(key, arm), arms)

    return jax.tree.map(jax.device_get, jax.jit(lambda keys: jax.lax.map(of_seed, keys))(keys))

"""Optimisers of our own, arranged to cost little: Adam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def adam(
    learning_rate: jax.Array | float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: jax.Array | float = 0.0,
    mask: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformation:
    """``optax.adam`` with its state and, up to rounding, its steps (Kingma and Ba 2015, algorithm 1).

    The paper's section 2 notes that both bias corrections fit into the step size and ``eps``: with
    ``c = sqrt(1 - b2^t)`` the step is ``-learning_rate c / (1 - b1^t) * m / (sqrt(v) + eps c)``. That leaves one
    division per weight instead of three, which on a CPU is a few per cent of an update of an agent.

    Args:
      learning_rate: step size; may be traced.
      b1, b2: decay of the moments.
      eps: added to the root of the corrected second moment; as in optax, with no second ``eps_root``.
      weight_decay: AdamW's, per unit of the learning rate (Loshchilov and Hutter 2019); may be traced.
      mask: ``params ->`` a tree of bools like them: which leaves decay; all by default.

    Returns:
      An ``optax.GradientTransformation`` whose state is that of ``optax.adam``.
    """
    decays = not isinstance(weight_decay, float) or weight_decay != 0.0
    init = optax.adam(1.0).init  # the state does not depend on the settings

    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, Any]:
        moments = state[0]
        count = optax.safe_increment(moments.count)
        root = jnp.sqrt(1 - b2**count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, moments.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, moments.nu, updates)
        step, floor, one = -learning_rate * root / (1 - b1**count), eps * root, _shared_one()
        steps = jax.tree.map(lambda m, v: (step * m / (one * jnp.sqrt(v) + floor)).astype(m.dtype), mu, nu)
        if decays:
            pull = learning_rate * weight_decay
            which = jax.tree.map(lambda _: True, params) if mask is None else mask(params)
            steps = jax.tree.map(lambda s, p, d: (s - pull * p).astype(s.dtype) if d else s, steps, params, which)
        return steps, (moments._replace(count=count, mu=mu, nu=nu), *state[1:])

    return optax.GradientTransformation(init, update)


def _shared_one() -> jax.Array:
    """The number 1, read from an array of two that the compiler does not look into.

    XLA's compiler for GPUs puts steps of one size into one launch where they read the same array. Numbers do not count
    as such, so without this every leaf of a single member is a launch of its own.
    """
    return jax.lax.optimization_barrier(jnp.array([1.0, 0.0], jnp.float32))[0]

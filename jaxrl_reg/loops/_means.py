"""Means of metrics over the updates of a loop, and updates in groups.

Metrics are summed as one vector in the loop's carry: on a GPU that is one launch per update where every metric in an
array of its own would be one each, and memory does not grow with updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reg.types import Agent, Array, Metrics, PyTree

Body = Callable[[PyTree, Array], tuple[PyTree, Metrics]]


def pack(metrics: Metrics) -> Array:
    """Metrics as one float32 vector ``[M]``, in the order of their names; one that is no scalar by its mean."""
    values = [jnp.mean(metrics[name], dtype=jnp.float32) for name in sorted(metrics)]
    return jnp.stack(values) if values else jnp.zeros(0)


def unpack(values: Array, names: Sequence[str]) -> Metrics:
    """What ``pack`` packed: entries of ``values`` ``[M]`` by name."""
    return {name: values[i] for i, name in enumerate(sorted(names))}


def updates_of(agent: Agent, count: int) -> tuple[Callable[..., tuple[PyTree, Metrics]], ...]:
    """The updates that go into one turn of a loop: a cycle of the agent if ``count`` is made of such, else one."""
    return agent.cycle if agent.cycle and count % len(agent.cycle) == 0 else (agent.update,)


def averaged(bodies: Sequence[Body], state: PyTree, length: int) -> tuple[PyTree, Metrics]:
    """``state, metrics = bodies[i % P](state, i)`` for ``i`` in ``range(length)``, and the means of the metrics.

    One turn of the loop runs all ``P`` bodies, so ``length`` is a multiple of ``P``. All report the same names.
    """
    once = [jax.jit(body, inline=True) for body in bodies]  # traced once for the names and for the loop
    names = jax.eval_shape(once[0], state, jax.ShapeDtypeStruct((), jnp.int32))[1]

    def turn(carry: tuple[PyTree, Array], first: Array) -> tuple[tuple[PyTree, Array], Any]:
        state, totals = carry
        reports = []
        for phase, body in enumerate(once):
            state, metrics = body(state, first + phase)
            reports.append(metrics)
        return (state, totals + pack(jax.tree.map(lambda first, *rest: sum(rest, first), *reports))), None

    start = state, jnp.zeros(len(names))
    (state, totals), _ = jax.lax.scan(turn, start, jnp.arange(0, length, len(bodies)))
    return state, unpack(totals / length, list(names))

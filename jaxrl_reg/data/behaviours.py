"""What recurs in a policy's own traces, as a handbook: each operation's net effect, found from the states around it.

Source: Didolkar, Ballas, Arora, Goyal, 2025, Metacognitive Reuse (arXiv 2509.13237). Its strategist reflects in words
on solved problems and names the behaviours that recur, which then stand in the prompt. Here a trace is a chain of
states, a behaviour an operation, and what is written down of it is exact.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl_reg.types import Array


def recurring_effects(
    operation: Array, before: Array, after: Array, weight: Array, operations: int, modulus: int
) -> Array:
    """How often each operation was seen to have each net effect ``(after - before) mod modulus``.

    Args:
      operation: ``[N, K]`` int32, which of the ``operations`` was applied; others, negative ones too, are not counted.
      before: ``[N, K]`` int32, the state before it.
      after: ``[N, K]`` int32, the state after it.
      weight: ``[N, K]``, how much it counts: 1 in a trace that is verified and well formed, else 0. A handbook of
        traces that nobody verified has their errors.
      operations: how many there are; static.
      modulus: number of effects; static.
    Returns:
      votes ``[operations, modulus]`` float32.
    Raises:
      ValueError: for arrays of other shapes than ``operation``'s.
    """
    for name, array in (("before", before), ("after", after), ("weight", weight)):
        if array.shape != operation.shape:
            raise ValueError(f"recurring_effects: {name} {array.shape} must have operation's shape {operation.shape}")
    known = (operation >= 0) & (operation < operations)
    at = jnp.where(known, operation, 0), (after - before) % modulus
    return jnp.zeros((operations, modulus)).at[at].add(jnp.where(known, weight, 0.0))


def handbook(votes: Array, least: float = 3.0) -> tuple[Array, Array]:
    """The net effect that an operation had most often, and whether that is known.

    Args:
      votes: ``[operations, modulus]`` of ``recurring_effects``.
      least: votes that an entry needs.
    Returns:
      ``(effect [operations] int32, known [operations] bool)``: known with at least ``least`` votes and more than half
      of the operation's votes. The effect of one that is not known is the first of those with the most votes.
    """
    most = votes.max(-1)
    return jnp.argmax(votes, axis=-1).astype(jnp.int32), (most >= least) & (2.0 * most > votes.sum(-1))

"""Units of a hidden layer taken out: which stay, and a parameter tree without the others."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def kept_units(score: jax.Array, share: float, lowest: bool = True) -> jax.Array:
    """1 for the units that stay when ``share`` of them is removed by rank, 0 for the others.

    Args:
      score: ``[U]``.
      share: static, in [0, 1]; ``round(share U)`` units go, with ties by position, so the number is exact.
      lowest: static; whether the lowest scores go, or the highest.
    Returns:
      ``[U]``, float32.
    Raises:
      ValueError: the share is not in [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"kept_units: share is {share}; expected one in [0, 1]")
    rank = jnp.argsort(jnp.argsort(score if lowest else -score))
    return (rank >= round(share * score.shape[0])).astype(jnp.float32)


def prune_units(params: PyTree, layer: int, keep: jax.Array) -> PyTree:
    """The tree of an ``mlp`` whose hidden layer ``layer`` has only the units with ``keep``: the others are cut off.

    Their columns of ``Dense_layer`` (kernel and bias) and their rows of the next kernel become 0. An ensemble's
    members, axes in front, share ``keep [U]``.

    Raises ``ValueError`` if there is no such hidden layer or it has another number of units.
    Source: Doshi et al., 2024, To Grok or not to Grok, section 4 (pruning by inverse participation).
    """
    first, second = f"Dense_{layer}", f"Dense_{layer + 1}"
    if first not in params or second not in params:
        raise ValueError(f"prune_units: there is no hidden layer {layer}; the tree has {', '.join(sorted(params))}")
    units = params[first]["kernel"].shape[-1]
    if keep.shape != (units,):
        raise ValueError(f"prune_units: keep has shape {list(keep.shape)}, and {first} {units} units")
    fewer = jax.tree.map(lambda leaf: leaf * keep, params[first])
    return {**params, first: fewer, second: {**params[second], "kernel": params[second]["kernel"] * keep[:, None]}}

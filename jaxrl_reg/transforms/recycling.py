"""Dormant units drawn anew: ReDo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def recycle(
    params: PyTree, opt_state: PyTree, scores: Sequence[jax.Array], fresh: PyTree, threshold: jax.Array | float
) -> tuple[PyTree, PyTree]:
    """``params`` of an ``mlp`` with its dormant units made new, and the optimiser's moments of their weights zeroed.

    What comes into such a unit is that of ``fresh`` and its bias 0; what goes out of it is 0, so that the output does
    not jump: its incoming weights get a gradient from the second step on. Adam's count is one number for all weights
    and stays.

    Args:
      params: tree with ``Dense_0`` to ``Dense_L``, kernels ``[..., in, out]``; other entries stay.
      opt_state: of any optax optimiser; every tree in it that is like ``params`` counts as moments.
      scores: for each hidden layer ``[..., D]``, such as ``losses.dormant_scores``.
      fresh: tree like ``params``, newly drawn first weights.
      threshold: scalar >= 0, may be traced; units whose score is at most this are dormant.
    Raises:
      ValueError: another number of scores than of hidden layers.
    Source: Sokar et al., 2023, The Dormant Neuron Phenomenon in Deep Reinforcement Learning, algorithm 1.
    """
    layers = sum(name.startswith("Dense") for name in params)
    if len(scores) != layers - 1:
        raise ValueError(f"recycle: {len(scores)} scores for {layers - 1} hidden layers")
    dormant = [score <= threshold for score in scores]

    def incoming(layer: int, tree: PyTree, kernel: jax.Array | float) -> PyTree:
        dead, part = dormant[layer], tree[f"Dense_{layer}"]
        new = {"kernel": jnp.where(dead[..., None, :], kernel, part["kernel"])}
        if "bias" in part:
            new["bias"] = jnp.where(dead, 0.0, part["bias"])
        return {**tree, f"Dense_{layer}": {**part, **new}}

    def outgoing(layer: int, tree: PyTree) -> PyTree:
        name = f"Dense_{layer + 1}"
        kernel = jnp.where(dormant[layer][..., :, None], 0.0, tree[name]["kernel"])
        return {**tree, name: {**tree[name], "kernel": kernel}}

    def renewed(tree: PyTree, source: PyTree | None) -> PyTree:
        for layer in range(layers - 1):
            tree = incoming(layer, tree, 0.0 if source is None else source[f"Dense_{layer}"]["kernel"])
        for layer in range(layers - 1):  # last, so that a new unit says nothing to a new unit either
            tree = outgoing(layer, tree)
        return tree

    like = jax.tree.structure(params)

    def moments(node: Any) -> bool:
        return jax.tree.structure(node) == like

    zeroed = jax.tree.map(lambda node: renewed(node, None) if moments(node) else node, opt_state, is_leaf=moments)
    return renewed(params, fresh), zeroed

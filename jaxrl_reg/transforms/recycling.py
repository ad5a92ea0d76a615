"""Hidden units drawn anew while a perceptron trains: dormant ones (ReDo), or the least useful (continual backprop)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any
TINY = 1e-12  # least denominator


class Usage(NamedTuple):
    """What continual backprop remembers of the ``D`` units of one hidden layer."""

    utility: jax.Array  # [..., D], slow average, not yet corrected for its start at 0
    mean: jax.Array  # [..., D], slow average of the outputs, likewise
    age: jax.Array  # [..., D], updates since the unit was drawn
    owed: jax.Array  # [...], units that the rate has asked for and that were not replaced yet


def _hidden(params: PyTree) -> int:
    """Number of hidden layers: ``Dense_0`` to ``Dense_L`` are ``L`` and the output."""
    return sum(name.startswith("Dense") for name in params) - 1


def _redrawn(params: PyTree, opt_state: PyTree, chosen: Sequence[jax.Array], fresh: PyTree) -> tuple[PyTree, PyTree]:
    """``params`` with the units ``chosen[layer]`` (bools ``[..., D]``) new, and their moments 0."""

    def incoming(layer: int, tree: PyTree, kernel: jax.Array | float) -> PyTree:
        here, part = chosen[layer], tree[f"Dense_{layer}"]
        new = {"kernel": jnp.where(here[..., None, :], kernel, part["kernel"])}
        if "bias" in part:
            new["bias"] = jnp.where(here, 0.0, part["bias"])
        return {**tree, f"Dense_{layer}": {**part, **new}}

    def outgoing(layer: int, tree: PyTree) -> PyTree:
        name = f"Dense_{layer + 1}"
        kernel = jnp.where(chosen[layer][..., :, None], 0.0, tree[name]["kernel"])
        return {**tree, name: {**tree[name], "kernel": kernel}}

    def renewed(tree: PyTree, source: PyTree | None) -> PyTree:
        for layer in range(len(chosen)):
            tree = incoming(layer, tree, 0.0 if source is None else source[f"Dense_{layer}"]["kernel"])
        for layer in range(len(chosen)):  # last, so that a new unit says nothing to a new unit either
            tree = outgoing(layer, tree)
        return tree

    like = jax.tree.structure(params)

    def moments(node: Any) -> bool:
        return jax.tree.structure(node) == like

    zeroed = jax.tree.map(lambda node: renewed(node, None) if moments(node) else node, opt_state, is_leaf=moments)
    return renewed(params, fresh), zeroed


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
    if len(scores) != _hidden(params):
        raise ValueError(f"recycle: {len(scores)} scores for {_hidden(params)} hidden layers")
    return _redrawn(params, opt_state, [score <= threshold for score in scores], fresh)


def usage_start(params: PyTree) -> tuple[Usage, ...]:
    """``Usage`` of every hidden layer of an ``mlp``, alone or an ensemble, whose units are all new."""

    def layer(kernel: jax.Array) -> Usage:
        shape = (*kernel.shape[:-2], kernel.shape[-1])
        return Usage(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(shape[:-1]))

    return tuple(layer(params[f"Dense_{i}"]["kernel"]) for i in range(_hidden(params)))


def utility_step(
    params: PyTree, usage: Sequence[Usage], hidden: Sequence[jax.Array], decay: jax.Array | float = 0.99
) -> tuple[Usage, ...]:
    """``usage`` after one more update: every unit a step older, its utility and mean output averaged in.

    The utility of an update is ``mean_b |h_b - m| mean |w_out| / mean |w_in|``: what the unit adds to the next layer
    besides the constant ``m``, its mean output so far, over how slowly its incoming weights could make it another one.

    Args:
      params: tree with ``Dense_0`` to ``Dense_L``, kernels ``[..., in, out]``.
      usage: of each hidden layer.
      hidden: of each hidden layer ``[..., B, D]``, as it enters the next one.
      decay: scalar in [0, 1), may be traced; of the slow averages.
    Raises:
      ValueError: another number of layers.
    Edges: 0 for a unit without incoming weights, which can say one thing only.
    Source: Dohare, Sutton and Mahmood, 2021, Continual Backprop: Stochastic Gradient Descent with Persistent
      Randomness, equations 4 to 8; the means of weights as in the code of Dohare et al., 2024.
    """
    if not len(usage) == len(hidden) == _hidden(params):
        raise ValueError(f"utility_step: {len(hidden)} layers of outputs for {_hidden(params)} hidden layers")

    def layer(number: int, was: Usage, h: jax.Array) -> Usage:
        incoming = jnp.abs(params[f"Dense_{number}"]["kernel"]).mean(axis=-2)
        outgoing = jnp.abs(params[f"Dense_{number + 1}"]["kernel"]).mean(axis=-1)
        age = was.age + 1.0
        mean = decay * was.mean + (1.0 - decay) * h.mean(axis=-2)
        varied = jnp.abs(h - _corrected(mean, age, decay)[..., None, :]).mean(axis=-2)
        reads = incoming > 0.0
        utility = jnp.where(reads, varied * outgoing / jnp.where(reads, incoming, 1.0), 0.0)
        return was._replace(utility=decay * was.utility + (1.0 - decay) * utility, mean=mean, age=age)

    return tuple(layer(number, *pair) for number, pair in enumerate(zip(usage, hidden, strict=True)))


def _corrected(average: jax.Array, age: jax.Array, decay: jax.Array | float) -> jax.Array:
    """A slow average that began at 0, without what is left of that."""
    return average / jnp.maximum(1.0 - decay**age, TINY)


def _least(was: Usage, rate: jax.Array | float, maturity: jax.Array | float, decay: jax.Array | float) -> tuple:
    """What is owed of a layer now, and the unit that is due ``[..., D]``, if one is."""
    old = was.age > maturity
    owed = was.owed + rate * old.sum(axis=-1)
    due = (owed >= 1.0) & old.any(axis=-1)
    utility = jnp.where(old, _corrected(was.utility, was.age, decay), jnp.inf)
    first = utility.argmin(axis=-1)[..., None] == jnp.arange(utility.shape[-1])
    return owed - due, due[..., None] & first


def replace_units(
    params: PyTree,
    opt_state: PyTree,
    usage: Sequence[Usage],
    fresh: PyTree,
    rate: jax.Array | float,
    maturity: jax.Array | float = 100,
    decay: jax.Array | float = 0.99,
) -> tuple[PyTree, PyTree, tuple[Usage, ...]]:
    """Continual backprop: ``params`` of an ``mlp`` with a layer's least useful grown-up unit made new, now and then.

    Each update asks for ``rate`` times the units older than ``maturity``; when that comes to a whole unit, the one of
    least utility is drawn anew as in ``recycle``. Its mean output goes into the next layer's bias, if there is one, so
    that on average the output does not jump. At most one unit of a layer in an update: what a large rate asks beyond
    that stays owed.

    Args:
      params: tree with ``Dense_0`` to ``Dense_L``, kernels ``[..., in, out]``; other entries stay. The next layer's
        kernel must act as it is: under spectral normalisation the bias would take too much or too little.
      opt_state: of any optax optimiser; every tree in it that is like ``params`` counts as moments.
      usage: of each hidden layer, after ``utility_step`` on these ``params`` with the same ``decay``.
      fresh: tree like ``params``, newly drawn first weights.
      rate: scalar >= 0, may be traced, share of the grown-up units in an update.
      maturity: scalar >= 0, may be traced, updates for which a new unit is left alone.
      decay: scalar in [0, 1), may be traced.
    Returns:
      parameters, optimiser's state, ``Usage`` in which new units begin at 0.
    Raises:
      ValueError: another number of layers.
    Source: Dohare et al., 2024, Loss of Plasticity in Deep Continual Learning, algorithm 1.
    """
    if len(usage) != _hidden(params):
        raise ValueError(f"replace_units: usage of {len(usage)} layers for {_hidden(params)} hidden layers")
    owed, chosen = zip(*(_least(was, rate, maturity, decay) for was in usage), strict=True) if usage else ((), ())
    steady, after = dict(params), []
    for number, (was, left, here) in enumerate(zip(usage, owed, chosen, strict=True)):
        name = f"Dense_{number + 1}"
        part = steady[name]
        if "bias" in part:
            constant = jnp.where(here, _corrected(was.mean, was.age, decay), 0.0)
            bias = part["bias"] + jnp.einsum("...i,...io->...o", constant, params[name]["kernel"])
            steady[name] = {**part, "bias": bias}
        utility, mean, age = (jnp.where(here, 0.0, value) for value in was[:3])
        after.append(Usage(utility, mean, age, left))
    return *_redrawn(steady, opt_state, chosen, fresh), tuple(after)

"""Losses that teach an encoder what a pair of observations has in common, and what it does not.

Contrastive losses compare every row of a batch with every other, so their products lose digits at low precision: they
are computed at the highest whatever the default is.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(prediction="... O", target="... O")
def prediction_loss(prediction: Array, target: Array) -> Array:
    """Squared distance of a predicted to a seen observation, AVERAGED over its entries, the target DETACHED.

    With the observation itself as target this is autoencoding, with a later one forward modelling.

    Args:
      prediction: ``[..., O]``, decoded.
      target: ``[..., O]``, what was seen.
    Returns:
      ``[...]``, squared units of the observation.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite input.
    Source: Misra et al., 2024, Towards Principled Representation Learning from Videos for Reinforcement Learning
      (autoencoder and forward modelling).
    """
    return jnp.square(prediction - jax.lax.stop_gradient(target)).mean(-1)


@shapes(prediction="B D", target="B D", visible="B D", group="D")
def group_reconstruction_loss(prediction: Array, target: Array, visible: Array, group: Array, groups: int) -> Array:
    """Sum over groups of entries of the mean squared error of those that were hidden.

    Args:
      prediction: ``[B, D]``.
      target: ``[B, D]``, DETACHED.
      visible: ``[B, D]``, above 0 on entries that the model was shown, which do not count; DETACHED.
      group: ``[D]``, whole numbers from 0 to ``groups - 1``: the sensor of each entry.
      groups: static.
    Returns:
      scalar, squared units of the entries; the mean is over the batch.
    Raises:
      ValueError: shapes differ.
    Edges: a group of which nothing was hidden counts 0.
    Source: Robinet et al., 2025, Multimodal Masked Autoencoder Pre-training with Missing Modalities (BM-MAE), equation
      2.
    """
    hidden = jax.lax.stop_gradient(visible <= 0).astype(prediction.dtype)
    member = jax.lax.stop_gradient(group[:, None] == jnp.arange(groups)).astype(prediction.dtype)
    error = (hidden * jnp.square(prediction - jax.lax.stop_gradient(target))) @ member
    return (error.sum(axis=0) / jnp.maximum((hidden @ member).sum(axis=0), 1.0)).sum()


@shapes(query="B D", positive="B D", temperature="", group="B")
def info_nce_loss(query: Array, positive: Array, temperature: Array | float = 1.0, group: Array | None = None) -> Array:
    """``log sum_j exp(q_i . g_j / T) - q_i . g_i / T``: which of the batch's ``g`` belongs to ``q_i``?

    One direction only: queries choose among positives, never the reverse. The loss is ``log B`` where nothing is
    told apart. Vectors are taken as they are; put them on the unit sphere first where the method says so.

    Args:
      query: ``[B, D]``.
      positive: ``[B, D]``, row ``i`` belongs to query ``i``; the other rows are its negatives.
      temperature: scalar T > 0, in units of the product.
      group: ``[B]``, numbers; rows of one group (an episode, a state) are no negatives of each other, because they may
        well show the same. None: every other row is a negative.
    Returns:
      ``[B]``, nats; >= 0.
    Raises:
      ValueError: shapes differ.
    Edges: a row all of whose negatives are in its own group costs 0 and sends no gradient.
    Source: van den Oord et al., 2018, Representation Learning with Contrastive Predictive Coding; with ``q`` of
      observation and action, Brandfonbrener et al., 2023, Inverse Dynamics Pretraining Learns Good Representations for
      Multitask Imitation (contrastive dynamics).
    """
    logits = jnp.matmul(query, positive.T, precision="highest") / temperature
    chosen = jnp.diagonal(logits)
    if group is not None:
        logits = jnp.where(_same(group) & ~jnp.eye(len(group), dtype=bool), -jnp.inf, logits)
    return jax.nn.logsumexp(logits, axis=-1) - chosen


@shapes(first="B D", second="B D", temperature="", group="B")
def nt_xent_loss(first: Array, second: Array, temperature: Array | float = 1.0, group: Array | None = None) -> Array:
    """SimCLR's loss: each of the ``2 B`` vectors must pick its partner among the ``2 B - 1`` others.

    The mean of a pair's two cross-entropies. Unlike ``info_nce_loss``, ``first`` has negatives among ``first`` too.

    Args:
      first: ``[B, D]``.
      second: ``[B, D]``, row ``i`` is the partner of row ``i`` of ``first``.
      temperature: scalar T > 0, in units of the product.
      group: ``[B]``, numbers; pairs of one group are no negatives of each other. None: all other pairs are.
    Returns:
      ``[B]``, nats; >= 0.
    Raises:
      ValueError: shapes differ.
    Edges: a pair all of whose negatives are in its own group costs 0 and sends no gradient.
    Source: Chen et al., 2020, A Simple Framework for Contrastive Learning of Visual Representations, eq. 1; over time,
      Misra et al., 2024, Towards Principled Representation Learning from Videos (released form).
    """
    size = len(first)
    both = jnp.concatenate([first, second])
    logits = jnp.matmul(both, both.T, precision="highest") / temperature
    partner = (jnp.arange(2 * size) + size) % (2 * size)
    chosen = jnp.take_along_axis(logits, partner[:, None], axis=-1)[:, 0]
    left_out = jnp.eye(2 * size, dtype=bool)
    if group is not None:
        left_out |= jnp.tile(_same(group), (2, 2)) & (partner[:, None] != jnp.arange(2 * size))
    loss = jax.nn.logsumexp(jnp.where(left_out, -jnp.inf, logits), axis=-1) - chosen
    return 0.5 * (loss[:size] + loss[size:])


@shapes(real="...", other="...")
def temporal_classification_loss(real: Array, other: Array) -> Array:
    """``1/2 (softplus(-f(o, o')) + softplus(f(o, o'')))``: does ``o'`` follow ``o``, or come from elsewhere?

    With as many real as foreign pairs the best logit is ``log p(o' | o) / p(o')``, and its loss ``log 2`` minus the
    Jensen-Shannon divergence of the two. The theory's form of temporal contrast; ``nt_xent_loss`` is the released one.

    Args:
      real: ``[...]``, logits of pairs ``k`` steps apart in one trajectory.
      other: ``[...]``, logits of the same first observations with one from ANOTHER trajectory, drawn independently.
    Returns:
      ``[...]``, nats.
    Raises:
      ValueError: shapes differ.
    Edges: finite for finite logits of any size.
    Source: Misra et al., 2024, Towards Principled Representation Learning from Videos (temporal contrastive learning).
    """
    return 0.5 * (jax.nn.softplus(-real) + jax.nn.softplus(other))


def _same(group: Array) -> Array:
    """``[B, B]`` bool, whether two rows are of one group; no gradient."""
    return group[:, None] == group[None, :]

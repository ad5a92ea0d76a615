"""Streams of events of many units, such as spikes or button presses: which unit is next, and when?

A window of time is a sequence of (unit, bin of time) tokens in order; a causal transformer predicts both parts of each
from those before. What one unit tells of another is asked by lesion: how much less likely the events of ``j`` become
when those of ``i`` are masked.

Source: Antoniades et al., 2024, Neuroformer: Multimodal and Multitask Generative Pretraining for Brain Data. Left out:
video, the contrast with other modalities (``losses.info_nce_loss`` in both directions, over their number). Deviation:
without another modality the released code multiplies the loss by 3/4, which is a mistake; here it is whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import losses
from jaxrl_reg.errors import UserError
from jaxrl_reg.networks.events import event_network
from jaxrl_reg.types import Array, Key, Metrics, PyTree, Transition

UNIT_WEIGHT, BIN_WEIGHT = 0.6, 0.4


def event_tokens(
    time: np.ndarray, unit: np.ndarray, start: np.ndarray, length: int, window: float, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The events of each window as tokens, on the host.

    Args:
      time: ``[N]``, when each event was, in any order.
      unit: int ``[N]``, whose it was.
      start: ``[M]``, where each window begins.
      length: ``T``, tokens of a window; later events of a fuller one are cut off.
      window: how long each is, in the unit of ``time``. An event at its end belongs to the next.
      bins: of equal width in a window.
    Returns:
      units, bins (int32) and mask (float32, 1 for real ones), each ``[M, T]``, padded at the end with 0.
    Raises:
      UserError: for times and units of different lengths, or a length, window or number of bins that is not positive.
    """
    time, unit, start = np.asarray(time, np.float64), np.asarray(unit), np.asarray(start, np.float64)
    if time.shape != unit.shape or time.ndim != 1:
        raise UserError(f"events: {time.shape} times and {unit.shape} units; each event has one of both")
    if length < 1 or window <= 0 or bins < 1:
        raise UserError(f"events: length={length}, window={window:g} and bins={bins} must be above 0")
    order = np.argsort(time, kind="stable")
    time, unit = time[order], unit[order]
    first, end = np.searchsorted(time, start), np.searchsorted(time, start + window)
    at = first[:, None] + np.arange(length)
    real = at < end[:, None]
    at = np.minimum(at, max(len(time) - 1, 0))
    if not len(time):
        return *(np.zeros(real.shape, np.int32) for _ in range(2)), real.astype(np.float32)
    part = np.floor((time[at] - start[:, None]) * bins / window + 1e-9)  # an edge in decimals is below it in binary
    units, parts = (np.where(real, one, 0).astype(np.int32) for one in (unit[at], np.clip(part, 0, bins - 1)))
    return units, parts, real.astype(np.float32)


def event_loss(unit_logits: Array, bin_logits: Array, unit: Array, bin: Array) -> Array:
    """``0.6 CE(unit) + 0.4 CE(bin)`` of each event: logits ``[..., U]`` and ``[..., K]``, targets int ``[...]``."""
    of_unit = losses.cross_entropy_loss(unit_logits, jax.nn.one_hot(unit, unit_logits.shape[-1]))
    of_bin = losses.cross_entropy_loss(bin_logits, jax.nn.one_hot(bin, bin_logits.shape[-1]))
    return UNIT_WEIGHT * of_unit + BIN_WEIGHT * of_bin


class EventModel(NamedTuple):
    """An objective for ``loops.pretrain`` and what its parameters tell.

    ``loss(params, batch, key)`` takes windows in ``extras``: ``unit``, ``bin`` and ``mask``, ``[B, T]``.
    ``predict(params, unit [..., T], bin [..., T], real [..., T]) -> (logits [..., T, U], logits [..., T, K])``, of each
    event from those before it that are ``real``. ``score`` likewise gives the log-likelihood ``[..., T]`` of each unit.
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, Transition, Key], tuple[Array, Metrics]]
    predict: Callable[..., tuple[Array, Array]]
    score: Callable[..., Array]


def event_model(units: int, bins: int, length: int, *, width: int = 32, blocks: int = 2, heads: int = 2) -> EventModel:
    """A causal transformer over ``length`` events of ``units`` kinds in ``bins`` bins of time.

    Raises ``UserError`` for heads that do not divide the width.
    """
    network = event_network(units, bins, length, width, blocks, heads)

    def loss(params: PyTree, batch: Transition, key: Key) -> tuple[Array, Metrics]:
        unit, bin, real = (batch.extras[name] for name in ("unit", "bin", "mask"))
        unit, bin = unit.astype(jnp.int32), bin.astype(jnp.int32)
        guesses = network.apply(params, unit, bin, real)
        value = losses.masked_mean(event_loss(*guesses, unit, bin), real)
        right = (guesses[0].argmax(axis=-1) == unit).astype(jnp.float32)
        return value, {"loss": value, "unit_accuracy": losses.masked_mean(right, real)}

    def score(params: PyTree, unit: Array, bin: Array, real: Array) -> Array:
        log_p = jax.nn.log_softmax(network.apply(params, unit, bin, real)[0])
        return jnp.take_along_axis(log_p, unit[..., None], axis=-1)[..., 0]

    return EventModel(network.init, loss, network.apply, score)


def lesion_influence(score: Callable[[Array], Array], unit: Array, real: Array, units: int) -> Array:
    """``[U, U]``: by how much masking the events of ``i`` (rows) lowers the mean log-likelihood of those of ``j``.

    Args:
      score: ``real [B, T] -> [B, T]``, log-likelihood of each event when only ``real`` ones are read.
      unit: int ``[B, T]``.
      real: ``[B, T]``.
      units: ``U``, static.
    """
    whole = score(real)
    member = jax.nn.one_hot(unit, units) * real[..., None]
    count = jnp.maximum(member.sum(axis=(0, 1)), 1.0)

    def without(i: Array) -> Array:
        lost = whole - score(jnp.where(unit == i, 0.0, real))
        return jnp.einsum("bt,btu->u", lost, member) / count

    return jax.lax.map(without, jnp.arange(units))

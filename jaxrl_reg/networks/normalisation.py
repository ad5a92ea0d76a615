"""Batch renormalisation: units standardised over a batch, and perceptrons that do it before every layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.networks.feedforward import mlp
from jaxrl_reg.types import Array, Key, PyTree


class BatchStatistics(NamedTuple):
    """Running moments of one layer's inputs and the number of batches behind them."""

    mean: Array  # [D]
    variance: Array  # [D]
    count: Array  # scalar


def fresh_statistics(width: int) -> BatchStatistics:
    """Mean 0, variance 1, no batch yet."""
    return BatchStatistics(jnp.zeros(width), jnp.ones(width), jnp.float32(0.0))


def batch_renorm(
    x: Array,
    statistics: BatchStatistics,
    train: bool,
    momentum: Array | float = 0.99,
    eps: Array | float = 1e-3,
    bounds: tuple[float, float] = (3.0, 5.0),
    warmup: Array | float = 100_000,
) -> tuple[Array, BatchStatistics]:
    """``x`` standardised, and the statistics after it.

    In training by the batch's moments, ``(x - m) / s``, then with the running ones ``r = s / S`` held in
    ``[1 / bounds[0], bounds[0]]`` and ``d = (m - M) / S`` in ``+-bounds[1]``, both DETACHED: ``r (x - m) / s + d``.
    Within the bounds that is what running moments give. Before ``warmup`` batches: plain batch normalisation.

    Args:
      x: ``[B, D]`` in training, else ``[..., D]``.
      statistics: of earlier batches.
      train: static; otherwise ``statistics`` come back as they are.
      momentum: share of the old moments that stays.
      eps: added to variances.
      bounds: of ``r`` and ``d``.
      warmup: batches.
    Source: Ioffe, 2017, Batch Renormalization; Bhatt et al., 2024, CrossQ, appendix.
    """
    scale = jnp.sqrt(statistics.variance + eps)
    if not train:
        return (x - statistics.mean) / scale, statistics
    mean, variance = x.mean(axis=0), x.var(axis=0)
    deviation = jnp.sqrt(variance + eps)
    stretch = jnp.clip(deviation / scale, 1.0 / bounds[0], bounds[0])
    shift = jnp.clip((mean - statistics.mean) / scale, -bounds[1], bounds[1])
    warm = statistics.count >= warmup
    stretch, shift = jax.lax.stop_gradient((jnp.where(warm, stretch, 1.0), jnp.where(warm, shift, 0.0)))
    mixed = (momentum * old + (1.0 - momentum) * new for old, new in zip(statistics, (mean, variance), strict=False))
    after = BatchStatistics(*mixed, statistics.count + 1.0)
    return stretch * (x - mean) / deviation + shift, jax.lax.stop_gradient(after)


class NormalisedNetwork(NamedTuple):
    """``init(key) -> params``, ``start() -> statistics``, ``apply(params, statistics, x, train) -> y, statistics``."""

    init: Callable[[Key], PyTree]
    start: Callable[[], PyTree]
    apply: Callable[..., tuple[Array, PyTree]]


def renormalised_mlp(sizes: Sequence[int], warmup: float = 100_000) -> NormalisedNetwork:
    """A ReLU perceptron ``[B, sizes[0]] -> [B, sizes[-1]]``, its input and every hidden layer batch-renormalised.

    The normalisation comes after the activation, with a scale and a shift of its own per unit.

    Args:
      sizes: widths of input, hidden layers and output.
      warmup: batches of plain batch normalisation.
    """
    plain = mlp(sizes)
    layers = len(sizes) - 1

    def init(key: Key) -> PyTree:
        norms = {
            f"Norm_{i}": {"scale": jnp.ones(width), "bias": jnp.zeros(width)} for i, width in enumerate(sizes[:-1])
        }
        return {**plain.init(key), **norms}

    def start() -> tuple[BatchStatistics, ...]:
        return tuple(fresh_statistics(width) for width in sizes[:-1])

    def apply(
        params: PyTree, statistics: tuple[BatchStatistics, ...], x: Array, train: bool
    ) -> tuple[Array, tuple[BatchStatistics, ...]]:
        after = []
        for i in range(layers):
            x, seen = batch_renorm(x, statistics[i], train, warmup=warmup)
            norm, layer = params[f"Norm_{i}"], params[f"Dense_{i}"]
            x = (norm["scale"] * x + norm["bias"]) @ layer["kernel"] + layer["bias"]
            x = jax.nn.relu(x) if i < layers - 1 else x
            after.append(seen)
        return x, tuple(after)

    return NormalisedNetwork(init, start, apply)

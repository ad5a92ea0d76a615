"""What a representation knows: linear readouts chosen by cross-validation, and correlations corrected for noise.

Features are standardised inside. Folds are made of whole groups (episodes, scenes): neighbouring frames of one episode
in both parts would let a readout remember instead of generalise. Pure functions of arrays; ``folds`` and ``iterations``
are static.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError

Array = jax.Array


class Readout(NamedTuple):
    """``readout(features [..., F]) -> [..., D]``, linear: ``features @ weight + bias``."""

    weight: Array  # [F, D]
    bias: Array  # [D]

    def __call__(self, features: Array) -> Array:
        return features @ self.weight + self.bias


def ridge_cv(features: Array, targets: Array, group: Array, penalties: Array, folds: int = 5) -> tuple[Readout, Array]:
    """Ridge regression with the penalty of least cross-validated error, refitted on everything.

    Args:
      features: ``[N, F]``.
      targets: ``[N, D]``.
      group: ``[N]`` integers; a group is never on both sides of a fold.
      penalties: ``[P]``, per example, in units of standardised features; > 0 unless the features are independent.
      folds: static.
    Returns:
      :class:`Readout`, and the mean squared error on left-out folds of each penalty, ``[P]``.
    Raises:
      UserError: shapes do not match.
    """

    def error(readout: Readout) -> Array:
        return jnp.square(readout(features) - targets).mean(-1)

    return _cross_validated(_ridge, error, features, targets, group, penalties, folds)


def logistic_cv(
    features: Array, targets: Array, group: Array, penalties: Array, folds: int = 5
) -> tuple[Readout, Array]:
    """L2-regularised logistic regression, likewise; ``targets [N, 1]`` are 0 or 1, the readout gives the log-odds.

    The error that is returned per penalty, and decides, is the mean negative log-likelihood, nats. See ``ridge_cv``.
    """

    def error(readout: Readout) -> Array:
        logits = readout(features)
        return (jax.nn.softplus(logits) - targets * logits).mean(-1)

    if targets.shape[1:] != (1,):
        raise UserError(f"logistic_cv: targets have shape {targets.shape}, expected [N, 1]")
    return _cross_validated(_logistic, error, features, targets, group, penalties, folds)


def noise_corrected_correlation(prediction: Array, first_half: Array, second_half: Array) -> Array:
    """Correlation with responses as it would be without their noise: ``r / sqrt(reliability)``.

    Args:
      prediction: ``[N]``, one value per stimulus.
      first_half, second_half: ``[N]``, mean responses over two disjoint halves of the trials.
    Returns:
      scalar: the mean correlation with either half over the root of the correlation between them. May exceed 1 by
      chance; NaN where the halves do not correlate positively, which says that there is no signal to predict.
    Source: Spearman, 1904; as used by Nayebi et al., 2023.
    """

    def correlation(x: Array, y: Array) -> Array:
        x, y = x - x.mean(), y - y.mean()
        return (x * y).sum() / jnp.sqrt(jnp.square(x).sum() * jnp.square(y).sum())

    raw = 0.5 * (correlation(prediction, first_half) + correlation(prediction, second_half))
    return raw / jnp.sqrt(correlation(first_half, second_half))


def _cross_validated(
    fit: Callable, error: Callable, features: Array, targets: Array, group: Array, penalties: Array, folds: int
) -> tuple[Readout, Array]:
    rows = features.shape[0]
    if features.ndim != 2 or targets.ndim != 2 or targets.shape[0] != rows or group.shape != (rows,):
        raise UserError(
            f"readout: features {features.shape}, targets {targets.shape} and group {group.shape} must be "
            "[N, F], [N, D] and [N]"
        )
    fold = jnp.asarray(group) % folds

    def left_out(penalty: Array, index: Array) -> Array:
        out = (fold == index).astype(features.dtype)
        return (out * error(fit(features, targets, 1 - out, penalty))).sum()

    indices = jnp.arange(folds)
    errors = jax.vmap(lambda penalty: jax.vmap(lambda index: left_out(penalty, index))(indices).sum())(penalties) / rows
    return fit(features, targets, jnp.ones(rows, features.dtype), penalties[jnp.argmin(errors)]), errors


def _standardise(features: Array, mask: Array) -> tuple[Array, Array, Array]:
    total = mask.sum()
    mean = mask @ features / total
    std = jnp.sqrt(mask @ jnp.square(features - mean) / total)
    std = jnp.where(std > 1e-6, std, 1.0)  # a feature that never changes says nothing
    return (features - mean) / std, mean, std


def _ridge(features: Array, targets: Array, mask: Array, penalty: Array) -> Readout:
    x, mean, std = _standardise(features, mask)
    total = mask.sum()
    centre = mask @ targets / total
    gram = jnp.einsum("n,nf,ng->fg", mask, x, x, precision="highest") / total + penalty * jnp.eye(x.shape[-1])
    weight = jnp.linalg.solve(gram, jnp.einsum("n,nf,nd->fd", mask, x, targets - centre, precision="highest") / total)
    weight = weight / std[:, None]
    return Readout(weight, centre - mean @ weight)


def _logistic(features: Array, targets: Array, mask: Array, penalty: Array, iterations: int = 15) -> Readout:
    x, mean, std = _standardise(features, mask)
    x, y, total = jnp.concatenate([x, jnp.ones((len(x), 1))], axis=1), targets[:, 0], mask.sum()
    shrink = penalty * jnp.ones(x.shape[-1]).at[-1].set(1e-6)  # not the bias

    def objective(theta: Array) -> Array:
        logits = x @ theta
        return (mask * (jax.nn.softplus(logits) - y * logits)).sum() / total + 0.5 * (shrink * theta**2).sum()

    def newton(theta: Array, _) -> tuple[Array, None]:
        step = jnp.linalg.solve(jax.hessian(objective)(theta), jax.grad(objective)(theta))
        lengths = 0.5 ** jnp.arange(6.0)  # a full step can overshoot; the best of a few cannot
        values = jax.vmap(lambda length: objective(theta - length * step))(lengths)
        return theta - lengths[jnp.argmin(values)] * step, None

    theta, _ = jax.lax.scan(newton, jnp.zeros(x.shape[-1]), None, iterations)
    weight = theta[:-1, None] / std[:, None]
    return Readout(weight, theta[-1:] - mean @ weight)

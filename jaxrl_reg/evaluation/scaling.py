"""How a loss falls with size: a power law with a floor, fitted to a few runs."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxrl_reg.types import Array


class PowerLaw(NamedTuple):
    """``limit + scale size^-exponent``, and the sum of squared errors of its fit; scalars."""

    limit: Array
    scale: Array
    exponent: Array
    error: Array

    def predict(self, size: Array) -> Array:
        """The loss at ``size [...]``."""
        return self.limit + self.scale * size**-self.exponent


def fit_power_law(size: Array, loss: Array, exponents: Array) -> PowerLaw:
    """The law of least squared error over a grid of exponents; ``vmap`` over seeds gives intervals.

    For each exponent limit and scale are least squares, with the limit held at 0 where it would be negative.

    Args:
      size: ``[N]``, > 0, at least two different ones.
      loss: ``[N]``.
      exponents: ``[G]``, > 0, e.g. ``jnp.arange(0.05, 2.0, 0.05)``.
    Source: Hestness et al., 2017, Deep Learning Scaling is Predictable, Empirically (the form with a floor).
    """

    def fit(exponent: Array) -> tuple[Array, Array, Array]:
        x = size**-exponent
        slope = ((x - x.mean()) * (loss - loss.mean())).sum() / jnp.maximum(jnp.square(x - x.mean()).sum(), 1e-30)
        limit = loss.mean() - slope * x.mean()
        through_zero = (x * loss).sum() / jnp.square(x).sum()
        limit, slope = jnp.maximum(limit, 0.0), jnp.where(limit < 0, through_zero, slope)
        return limit, slope, jnp.square(limit + slope * x - loss).sum()

    limits, scales, errors = (jnp.stack(part) for part in zip(*(fit(e) for e in exponents), strict=True))
    best = jnp.argmin(errors)
    return PowerLaw(limits[best], scales[best], jnp.asarray(exponents)[best], errors[best])

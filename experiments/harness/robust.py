"""Metrics in which one seed does not decide.

Put several independent parts (problems, tasks, data sets) into a seed, drawn from its key so that seeds stay
independent, and take one of these over the parts.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.evaluation import statistics


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """``[seeds, parts] -> [seeds]``: mean of a seed's parts without the lowest and the highest quarter.

    NaN if a part is NaN.
    """
    return np.asarray(jax.vmap(lambda parts: statistics.iqm(parts[None]))(jnp.asarray(values)), float)


def log_share(value: np.ndarray, reference: np.ndarray, floor: float) -> np.ndarray:
    """``log10(max(value / reference, floor))``: a seed that is a thousand times better counts for three, not for all.

    ``floor`` is the share below which nobody cares; without one a value of exactly 0 would be infinitely good.
    """
    return np.log10(np.maximum(np.asarray(value) / np.asarray(reference), floor))


def clipped(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values beyond the bounds count as the bounds, e.g. a run that diverged as the worst that is possible."""
    return np.clip(np.nan_to_num(np.asarray(values, float), nan=low), low, high)

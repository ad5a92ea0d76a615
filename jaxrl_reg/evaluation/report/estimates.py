"""Numbers with their intervals: the bootstrap of every statistic that the report states, in one compiled call each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

SEED = 0  # of the bootstrap: the same metrics give the same report
RESAMPLES = 2000


class Estimate(NamedTuple):
    """A number with its 95% interval."""

    value: float
    low: float
    high: float

    def apart(self, other: Estimate) -> bool:
        """Whether the two intervals have no point in common."""
        return self.low > other.high or self.high < other.low


def iqm_by_column(scores: Any) -> Any:
    """Interquartile mean of every column: ``[S, T] -> [T]``."""
    import jax

    from jaxrl_reg.evaluation import statistics

    return jax.vmap(lambda column: statistics.iqm(column[:, None]), in_axes=1)(scores)


def comparisons(x: Any, y: Any, episodes: Any) -> Any:
    """``[3 H + 1]``: for each column of ``x`` ``[S, H]`` the probability that it beats ``y`` ``[S', 1]``, its IQM minus
    that of ``y``, and its IQM minus the mean of ``episodes`` ``[E, 1]``; then that mean."""
    import jax
    import jax.numpy as jnp

    from jaxrl_reg.evaluation import statistics

    iqms, mean = iqm_by_column(x), statistics.mean(episodes)
    chances = jax.vmap(lambda column: statistics.probability_of_improvement(column[:, None], y), in_axes=1)(x)
    return jnp.concatenate([chances, iqms - statistics.iqm(y), iqms - mean, mean[None]])


def profile_by_column(scores: Any, thresholds: Any) -> Any:
    """Performance profile of every column: ``[S, G]`` and ``[1, K]`` to ``[G, K]``."""
    import jax

    from jaxrl_reg.evaluation import statistics

    return jax.vmap(lambda column: statistics.performance_profile(column[:, None], thresholds[0]), in_axes=1)(scores)


def bootstrap(statistic: Any, *scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``statistic(*scores)`` with the ends of its 95% intervals, as three arrays.

    One call for all settings: compiling costs seconds and running nothing. Columns are resampled independently.
    """
    import jax

    from jaxrl_reg.evaluation import statistics

    # A divisor of the number of resamples, else the remainder is a second program; smaller where memory asks for it.
    size = max(array.size for array in scores)
    chunk = next(n for n in (250, 50, 10, 1) if n * size < 50_000_000 or n == 1)
    low, high = statistics.stratified_bootstrap(
        jax.random.key(SEED), tuple(scores), statistic, reps=RESAMPLES, chunk=chunk
    )
    return np.asarray(jax.jit(statistic)(*scores)), np.asarray(low), np.asarray(high)


def estimates(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[Estimate]:
    """One ``Estimate`` for each position of the three arrays."""
    return [Estimate(*map(float, ends)) for ends in zip(value, low, high, strict=True)]

"""Arms that may differ in static settings, on one task; each begins with the same warm start for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.arms import Arm, populations
from jaxrl_reg.loops.rlvr import rlvr
from jaxrl_reg.types import Metrics, TokenTask

HIDDEN = (32,)


def trained(
    arms: Mapping[str, Arm],
    task: TokenTask,
    seeds: Sequence[int],
    say: Callable[[str], None],
    settings: Mapping[str, float],
    measure: Callable[..., Metrics] | None = None,
    **loop: Any,
) -> dict[str, dict[str, np.ndarray]]:
    """Of each arm, every metric ``[seeds, segments]``.

    Args:
      settings: hyperparameters of every arm that has them; an arm's own go before.
      measure: in the place of the agents' own, once per segment.
      loop: arguments of ``rlvr``.
    """
    found = {}
    for one in populations(arms, HIDDEN, task.spec, settings):
        agent = one.agent if measure is None else one.agent._replace(measure=measure)
        metrics = one.sweep(rlvr(agent, task, **loop), seeds, None, say)
        for row, arm in enumerate(one.arms):
            found[arm] = {name: np.asarray(values[row]) for name, values in metrics.items()}
    return found

"""NumPy versions of the losses of goal-conditioned values."""

import numpy as np


def goal_value(a, s):
    """``s`` are the detached arguments; the learning values and the data come from ``a``."""
    total = 0.0
    best = s.next_target_value.min(axis=0)
    advantage = a.reward + a.gamma * a.discount * best - s.target_value.mean(axis=0)
    side = np.where(advantage < 0, 1 - a.expectile, a.expectile)
    for j in range(a.value.shape[0]):
        error = a.reward + a.gamma * a.discount * s.next_target_value[j] - a.value[j]
        total = total + side * error**2
    return total


CASES = {"goal_value_loss": goal_value}

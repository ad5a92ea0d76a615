"""NumPy versions of policies and estimates of follow-the-regularised-leader."""

import numpy as np


def barrier(a, s):
    """By bisection of ``c`` for each row."""
    rows = []
    for losses in np.asarray(a.cumulative_loss, np.float64):
        x = a.step_size * (losses - losses.min())
        low, high = 1.0, float(len(x))
        for _ in range(200):
            c = (low + high) / 2
            low, high = (c, high) if sum(1 / (x + c)) > 1 else (low, c)
        rows.append([np.log(1 / (each + c)) for each in x])
    return np.array(rows)


def reduced(a, s):
    below = np.where(a.kernel < 0, a.kernel, 0)
    return a.kernel * a.loss_to_go + a.bound * (0 - below) + a.correction


CASES = {"log_barrier_policy": barrier, "magnitude_reduced": reduced}
STATIC = {"log_barrier_policy": {"iterations": 40}}
RANGES = {"step_size": (0.25, 2.0)}

"""NumPy versions of what sequence models learn with."""

import numpy as np

RANGES = {"progress": (0.0, 1.0), "final_weight": (0.0, 1.0), "cap": (0.0, 1.0)}
COUPLED = {"masked_mean"}


def refined(a, s):
    weight = a.final_weight * a.progress
    weight = weight if weight < a.cap else a.cap
    return np.array([(1 - weight) * label + weight * past for label, past in zip(a.action, s.past_action, strict=True)])


def mean_of_real(a, s):
    total, count = 0.0, 0.0
    for loss, mask in zip(np.ravel(a.loss), np.ravel(s.mask), strict=True):
        total, count = total + mask * loss, count + mask
    return total / max(count, 1.0)


CASES = {"masked_mean": mean_of_real, "self_evolution_target": refined}

"""NumPy versions of the weights of groups: one group after the other."""

import numpy as np

RANGES = {"rho": (0.1, 2.0), "step_size": (0.0, 1.0)}


def filled(a, s):
    """The largest loss takes what it may, then the next; row by row."""
    rows = []
    for rate, radius, loss in zip(s.rate, s.radius, s.loss, strict=True):
        q = [max(p - r, 0.0) for p, r in zip(rate, radius, strict=True)]
        left = 1.0 - sum(q)
        for k in sorted(range(len(q)), key=lambda k: -loss[k]):
            more = min(max(left, 0.0), min(rate[k] + radius[k], 1.0) - q[k])
            q[k], left = q[k] + more, left - more
        rows.append(q)
    return np.array(rows)


def tilted(first, exponent):
    raw = np.maximum(first, 1e-30) * np.exp(exponent)
    return raw / raw.sum(-1, keepdims=True)


def spread(a, s):
    return np.array([s.rho * np.sqrt(rate) / max(sum(np.sqrt(rate)), 1e-30) for rate in s.rate])


CASES = {
    "box_weights": filled,
    "divergence_weights": lambda a, s: tilted(s.rate, s.loss / s.temperature),
    "group_dro_weights": lambda a, s: tilted(s.weight, s.step_size * s.loss),
    "robust_radius": spread,
}

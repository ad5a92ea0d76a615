"""NumPy versions of the dispersive losses, pair by pair."""

import numpy as np

RANGES = {"margin": (1.0, 4.0)}


def pairs(h):
    return [(x, y, i == j) for i, x in enumerate(h) for j, y in enumerate(h)]


def l2(a, s):
    return np.log(np.mean([np.exp(-((x - y) @ (x - y)) / (a.temperature * len(x))) for x, y, _ in pairs(a.features)]))


def cosine(a, s):
    def cos(x, y):
        length = np.sqrt(x @ x) * np.sqrt(y @ y)
        return x @ y / length if length > 0 else 0.0

    return np.log(np.mean([np.exp(cos(x, y) / a.temperature) for x, y, _ in pairs(a.features)]))


def hinge(a, s):
    return np.mean([max(a.margin - np.linalg.norm(x - y), 0.0) ** 2 for x, y, same in pairs(a.features) if not same])


def covariance(a, s):
    c = np.cov(a.features, rowvar=False)
    size = len(c)
    beside = np.mean([c[k, m] ** 2 for k in range(size) for m in range(size) if k != m])
    return beside + np.mean([max(1 - c[k, k], 0.0) for k in range(size)])


CASES = {
    "dispersive_cosine_loss": cosine,
    "dispersive_covariance_loss": covariance,
    "dispersive_hinge_loss": hinge,
    "dispersive_l2_loss": l2,
}

"""NumPy versions of distances between samples, pair by pair."""

import numpy as np

RANGES = {"bandwidth": (0.5, 2.0)}


def means(x, y, function):
    """Means of ``function`` over pairs within ``x``, within ``y`` and across."""

    def within(z):
        return np.mean([function(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])

    return within(x), within(y), np.mean([function(a, b) for a in x for b in y])


def energy(a, s):
    samples, data, across = means(a.samples, a.data, lambda x, y: np.sqrt(((x - y) ** 2).sum()))
    return 2 * across - samples - data


def mmd(a, s):
    def kernel(x, y):
        return np.exp(-((x - y) ** 2).sum() / (2 * a.bandwidth**2))

    samples, data, across = means(a.samples, a.data, kernel)
    return samples + data - 2 * across


def climb(a, s):
    return np.array(
        [
            a.coefficient * cost - sum(w * r for w, r in zip(a.weights, reward, strict=True))
            for cost, reward in zip(a.anchor, a.rewards.T, strict=True)
        ]
    )


CASES = {"energy_distance_loss": energy, "mmd_loss": mmd, "reward_generator_loss": climb}

"""NumPy versions of what a mask over the steps of a window is trained by, pair by pair."""

import numpy as np

RANGES = {"rate": (0.1, 0.9)}


def prior(a, s):
    p, r = np.minimum(np.maximum(a.probability, 1e-4), 1 - 1e-4), a.rate
    return np.mean(p * np.log(p / r) + (1 - p) * np.log((1 - p) / (1 - r)), axis=-1)


def variation(a, s):
    steps = a.probability.shape[-1]
    return sum(abs(a.probability[..., t + 1] - a.probability[..., t]) for t in range(steps - 1)) / (steps - 1)


def pairs(function, still, moving):
    """Mean over all pairs of rows of the squared difference of ``function`` of a pair."""
    count = range(len(still))
    return np.mean([(function(still[i], still[j]) - function(moving[i], moving[j])) ** 2 for i in count for j in count])


def cosine(x, y):
    return x @ y / (max(np.sqrt(x @ x), 1e-6) * max(np.sqrt(y @ y), 1e-6))


def divergence(x, y):
    p, q = (np.exp(z) / np.exp(z).sum() for z in (x, y))
    middle = (p + q) / 2
    return (p * np.log(p / middle)).sum() / 2 + (q * np.log(q / middle)).sum() / 2


CASES = {
    "behaviour_consistency_loss": lambda a, s: pairs(cosine, s.features, a.masked_features),
    "label_consistency_loss": lambda a, s: pairs(divergence, s.logits, a.masked_logits),
    "mask_prior_loss": prior,
    "time_variation_loss": variation,
}

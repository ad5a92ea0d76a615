"""NumPy versions of the invariance penalties and of the supervised contrastive loss."""

import itertools

import numpy as np

SIZES = {"E": 3}
STATIC = {"irm_penalty": {"unbiased": True}}
COUPLED = {"vrex_penalty"}
BINARY = {"label"}


def irm(a, s):
    """Over all pairs of different examples, the product of their slopes."""
    out = []
    for prediction, target in zip(a.prediction, a.target, strict=True):
        slopes = [2 * (p * (p - y)).sum() for p, y in zip(prediction, target, strict=True)]
        products = [g * h for g, h in itertools.permutations(slopes, 2)]
        out.append(sum(products) / len(products))
    return np.array(out)


def contrastive(a, s):
    out = []
    norms = [max(np.sqrt((f * f).sum()), 1e-6) for f in a.features]
    unit = [f / n for f, n in zip(a.features, norms, strict=True)]
    for i in range(len(unit)):
        others = [j for j in range(len(unit)) if j != i]
        total = sum(np.exp(unit[i] @ unit[j] / a.temperature) for j in others)
        terms = [np.log(total) - unit[i] @ unit[j] / a.temperature for j in others if s.label[i] == s.label[j]]
        out.append(sum(terms) / len(terms) if terms else 0.0)
    return np.array(out)


CASES = {
    "irm_penalty": irm,
    "supervised_contrastive_loss": contrastive,
    "vrex_penalty": lambda a, s: np.var(a.risk, ddof=1),
}

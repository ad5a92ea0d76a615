"""NumPy versions of the invariance penalties and of the supervised contrastive loss."""

import itertools

import numpy as np

SIZES = {"E": 3, "M": 2}
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


def affine(a, s):
    """Residuals by NumPy's least squares on a stacked problem, then the double sum."""
    count, width = a.features.shape
    centred = a.features - a.features.mean(0)
    design = np.concatenate([a.action, np.ones((count, 1))], axis=1)
    stacked = np.concatenate([design, np.sqrt(a.ridge) * np.eye(design.shape[1])])
    aim = np.concatenate([centred, np.zeros((design.shape[1], width))])
    residual = centred - design @ np.linalg.lstsq(stacked, aim, rcond=None)[0]
    inverse = np.linalg.inv(centred.T @ centred / count + a.ridge * np.eye(width))
    total = 0.0
    for i, j in itertools.product(range(count), repeat=2):
        near = np.exp(-sum((a.action[i] - a.action[j]) ** 2) / (2 * a.bandwidth**2))
        total += near * residual[i] @ inverse @ residual[j]
    return total / count**2


def explained(a, s):
    count, width = a.augmentation.shape
    inverse = np.linalg.inv(a.augmentation.T @ a.augmentation + a.ridge * count * np.eye(width))
    projection = a.augmentation @ inverse @ a.augmentation.T
    return sum(r @ projection @ r + a.weight * r @ r for r in a.residual.T) / count


CASES = {
    "irm_penalty": irm,
    "linear_invariance_loss": affine,
    "outcome_invariance_loss": explained,
    "supervised_contrastive_loss": contrastive,
    "vrex_penalty": lambda a, s: np.var(a.risk, ddof=1),
}

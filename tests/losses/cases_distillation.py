"""NumPy versions of what sequence models learn with."""

import numpy as np

RANGES = {"progress": (0.0, 1.0), "final_weight": (0.0, 1.0), "cap": (0.0, 1.0), "past": (0.0, 0.25)}
RANGES |= {"early_target": (0.0, 0.25), "decay": (0.1, 0.9)}
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


def shares(logits, mask, temperature):
    """Softmax over the classes that count, one by one; 0 elsewhere."""
    powers = [np.exp(z / temperature) if yes > 0 else 0.0 for z, yes in zip(logits, mask, strict=True)]
    return [power / max(sum(powers), 1e-300) for power in powers]


def soft_labels(a, s):
    rows = []
    for logits, teacher, mask in zip(a.logits, s.teacher, s.mask, strict=True):
        p, q = shares(teacher, mask, a.temperature), shares(logits, mask, a.temperature)
        rows.append(-(a.temperature**2) * sum(x * np.log(y) for x, y in zip(p, q, strict=True) if x > 0))
    return np.array(rows)


def independent_labels(a, s):
    label, says = 1 / (1 + np.exp(-s.teacher)), 1 / (1 + np.exp(-a.logits))
    each = -label * np.log(says) - (1 - label) * np.log(1 - says)
    return np.where(s.mask > 0, each, 0.0).sum(axis=-1)


def same_features(a, s):
    return np.array([sum((x - y) ** 2) for x, y in zip(a.features, s.teacher, strict=True)])


def unsure(logits):
    """Softmax held away from 0 and 1, row by row."""
    powers = [np.exp(row) for row in logits]
    return [np.minimum(np.maximum(row / sum(row), 1e-4), 1 - 1e-4) for row in powers]


def early(a, s):
    return np.array([s.decay * x + (1 - s.decay) * p / sum(p) for x, p in zip(s.past, unsure(s.logits), strict=True)])


def remembered(a, s):
    return np.array([np.log(1 - sum(t * p)) for t, p in zip(s.early_target, unsure(a.logits), strict=True)])


CASES = {
    "binary_distillation_loss": independent_labels,
    "early_learning_loss": remembered,
    "early_learning_target": early,
    "feature_distillation_loss": same_features,
    "masked_mean": mean_of_real,
    "prediction_distillation_loss": soft_labels,
    "self_evolution_target": refined,
}

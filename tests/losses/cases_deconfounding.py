"""NumPy versions of what takes a confounder out of rewards. Nothing of it carries gradients, so all is ``s``."""

import numpy as np

SIZES = {"C": 2, "Z": 3}
RANGES = {"ridge": (0.25, 1.0)}


def rows_of(columns, weight):
    """Columns about their weighted mean, each row times the root of its weight: least squares then need no weights."""
    total = weight.sum() or 1.0
    return (columns - weight @ columns / total) * np.sqrt(weight / total)[:, None]


def ridge_regression(columns, wanted, ridge):
    """As least squares with a row of zeros for every column."""
    size = columns.shape[1]
    above = np.concatenate([columns, np.sqrt(ridge) * np.eye(size)])
    below = np.concatenate([wanted, np.zeros((size, wanted.shape[1]))])
    return np.linalg.lstsq(above, below, rcond=None)[0]


def effect(a, s):
    y, c, x, z = (rows_of(part, s.weight) for part in (s.reward[:, None], s.confounders, s.content, s.instruments))
    first = np.hstack([x, z])
    second = np.hstack([x, first @ ridge_regression(first, c, s.ridge)])
    return ridge_regression(second, y, s.ridge)[x.shape[1] :, 0]


def without(a, s):
    mean = s.weight @ s.confounders / (s.weight.sum() or 1.0)
    return np.array([y - (c - mean) @ s.effect for y, c in zip(s.reward, s.confounders, strict=True)])


def direction(a, s):
    x, c = (part - part.mean(axis=0) for part in (s.features, s.confounders))
    covariance = np.linalg.inv(x.T @ x / len(x) + s.ridge * np.eye(x.shape[1]))
    plain, between = covariance @ x.T @ (s.reward - s.reward.mean()) / len(x), x.T @ c / len(x)
    inner = np.linalg.inv(between.T @ covariance @ between + s.ridge * np.eye(c.shape[1]))
    return plain - covariance @ between @ inner @ between.T @ plain


CASES = {
    "confounder_effect": effect,
    "deconfounded_reward": lambda a, s: without(a, s) if s.weight.sum() else s.reward - s.confounders @ s.effect,
    "first_stage_f": lambda a, s: np.zeros(()),  # five rows leave nothing free; more of them in the module's own tests
    "orthogonal_direction": direction,
}

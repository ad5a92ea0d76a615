"""NumPy versions of what a policy over noise masks learns from."""

import math

import numpy as np

RANGES = {"a": (0.5, 3.0), "b": (0.5, 3.0), "keep": (0.0, 1.0), "largest": (0.5, 2.0)}


def density(a, s):
    m = np.minimum(np.maximum(s.mask, 1e-4), 1 - 1e-4)
    lgamma = np.vectorize(math.lgamma)
    a_, b_ = np.maximum(a.a, 1e-3), np.maximum(a.b, 1e-3)
    return (a_ - 1) * np.log(m) + (b_ - 1) * np.log(1 - m) + lgamma(a_ + b_) - lgamma(a_) - lgamma(b_)


def reinforced(a, s):
    rows = zip(s.loss, a.log_prob, strict=True)
    return np.array([s.sign * (loss - np.mean(s.loss)) * row.sum() for loss, row in rows])


def blended(a, s):
    rows = [a.keep * s.base + (1 - a.keep) * head for head in a.head]
    return np.exp(np.maximum(np.minimum(rows, a.largest), -a.largest))


CASES = {
    "beta_log_prob": density,
    "blend_parameters": blended,
    "mask_policy_loss": reinforced,
    "pooled_mask_loss": lambda a, s: np.array([np.log(np.exp(row).sum()) * np.mean(s.loss) for row in a.log_prob]),
}

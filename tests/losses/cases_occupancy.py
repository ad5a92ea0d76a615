"""NumPy versions of divergences over occupancies and of chi-squares over actions, from their sums and integrals."""

import math

import numpy as np

SIZES = {"M": 4}
RANGES = {"log_clip": (2.0, 8.0), "chi2": (0.0, 3.0), "correlation": (0.25, 1.0)}
STATIC = {
    "occupancy_penalty": {"divergence": "sqrt_chi2", "trim": 0.25},
    "occupancy_divergence": {"divergence": "chi2", "trim": 0.25},
}
LARGEST = 8.0  # exponent of one plus a chi-square


def softplus(x):
    return np.logaddexp(0.0, x)


def ratios(s):
    return np.array([math.exp(min(d, s.log_clip)) for d in s.score])


def trimmed(values, trim):
    cut = int(trim * len(values))
    return sum(sorted(values)[cut : len(values) - cut]) / (len(values) - 2 * cut)


def penalty(a, s):
    excess = ratios(s) - 1
    mean = trimmed(excess, s.trim)
    return excess / math.sqrt(mean) if mean > 0 else excess


def correlation(a, s):
    if np.ptp(s.proxy) == 0 or np.ptp(s.true) == 0:
        return np.array(0.0)
    return np.array(np.corrcoef(s.proxy, s.true)[0, 1])


def bound(a, s):
    rest = (1 - a.correlation**2) * a.chi2
    return (a.proxy_gain - np.sqrt(rest)) / a.correlation


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def categorical(a, s):
    p, q = softmax(a.p_logits), softmax(a.q_logits)
    return np.minimum(((p - q) ** 2 / q).sum(-1), math.expm1(LARGEST))


def gaussian(a, s):
    p, q = np.exp(2 * a.p_log_std), np.exp(2 * a.q_log_std)
    left = 2 * q - p
    with np.errstate(all="ignore"):
        log = np.log(q) - 0.5 * np.log(p) - 0.5 * np.log(left) + (a.p_mean - a.q_mean) ** 2 / left
    log = np.where(left > 0, log, np.inf).sum(-1)
    return np.expm1(np.minimum(log, LARGEST))


CASES = {
    "categorical_chi2": categorical,
    "discriminator_loss": lambda a, s: (softplus(-a.policy_score), softplus(a.reference_score)),
    "gaussian_chi2": gaussian,
    "occupancy_divergence": lambda a, s: np.array(trimmed(ratios(s) - 1, s.trim)),
    "occupancy_penalty": penalty,
    "reward_correlation": correlation,
    "true_gain_bound": bound,
}

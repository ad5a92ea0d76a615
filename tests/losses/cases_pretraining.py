"""NumPy versions of the losses of encoders and of divergences, from their definitions, pair by pair."""

import numpy as np

SIZES = {"O": 3}
STATIC = {"group_reconstruction_loss": {"groups": 2}}
RANGES = {"switch": (0.0, 1.0), "p_log_std": (-1.0, 1.0), "q_log_std": (-1.0, 1.0)}


def log_softmax(x):
    top = x.max(-1, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(-1, keepdims=True))


def pick(similarities, right):
    """Minus the log-probability of the ``right`` one of a list of candidates."""
    return -log_softmax(np.array(similarities))[right]


def info_nce(a, s):
    out = []
    for i, query in enumerate(a.query):
        others = [j for j in range(len(a.query)) if j != i and a.group[j] != a.group[i]]
        out.append(pick([query @ a.positive[j] / a.temperature for j in [i, *others]], 0))
    return np.array(out)


def nt_xent(a, s):
    out = []
    for i in range(len(a.first)):
        strangers = [j for j in range(len(a.first)) if a.group[j] != a.group[i]]
        negatives = [side[j] for side in (a.first, a.second) for j in strangers]
        ends = (a.first[i], a.second[i]), (a.second[i], a.first[i])
        out.append(np.mean([pick([x @ v / a.temperature for v in (partner, *negatives)], 0) for x, partner in ends]))
    return np.array(out)


def kl(a, s):
    p, q = log_softmax(a.p_logits), log_softmax(a.q_logits)
    return sum(np.exp(p[..., i]) * (p[..., i] - q[..., i]) for i in range(p.shape[-1]))


def switched_kl(a, s):
    """Every way to act, with its probabilities: the first choice alone, or the first and a second."""
    p, q, p_inner, q_inner = (np.exp(log_softmax(x)) for x in (a.p_logits, a.q_logits, a.p_inner, a.q_inner))
    total = 0.0
    for i in range(a.switch.shape[-1]):
        second = a.switch[..., i]
        only = p[..., i] * np.log(p[..., i] / q[..., i])
        both = sum(
            p[..., i] * p_inner[..., k] * np.log(p[..., i] * p_inner[..., k] / (q[..., i] * q_inner[..., k]))
            for k in range(p_inner.shape[-1])
        )
        total = total + (1 - second) * only + second * both
    return total


def normal_kl(a, s):
    p, q = np.exp(a.p_log_std), np.exp(a.q_log_std)
    return (np.log(q / p) + (p**2 + (a.p_mean - a.q_mean) ** 2) / (2 * q**2) - 0.5).sum(-1)


def hidden_of_groups(a, s):
    total = 0.0
    for k in range(a.groups):
        cells = [
            (a.prediction[i, j] - s.target[i, j]) ** 2
            for i in range(len(a.prediction))
            for j in range(len(a.group))
            if s.group[j] == k and s.visible[i, j] <= 0
        ]
        total += np.mean(cells) if cells else 0.0
    return total


CASES = {
    "group_reconstruction_loss": hidden_of_groups,
    "categorical_kl": kl,
    "cross_entropy_loss": lambda a, s: -(s.target * log_softmax(a.logits)).sum(-1),
    "gaussian_kl": normal_kl,
    "info_nce_loss": info_nce,
    "nt_xent_loss": nt_xent,
    "switched_kl": switched_kl,
    "prediction_loss": lambda a, s: ((a.prediction - s.target) ** 2).sum(-1) / a.prediction.shape[-1],
    "temporal_classification_loss": lambda a, s: (np.logaddexp(0, -a.real) + np.logaddexp(0, a.other)) / 2,
}

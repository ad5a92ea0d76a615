"""NumPy versions of what attacks on observations want of actions."""

import numpy as np


def targeted(a, s):
    total = np.zeros(a.victim_mean.shape[:-1])
    for i in range(a.victim_mean.shape[-1]):  # KL of two normals, one dimension after the other
        variance = np.exp(2 * s.intention_log_std[..., i])
        shift = (a.victim_mean[..., i] - s.intention_mean[..., i]) ** 2
        total = total + s.intention_log_std[..., i] + (1 + shift) / (2 * variance) - 0.5
    return s.weight * total


CASES = {
    "action_deviation": lambda a, s: ((s.mean - a.perturbed_mean) ** 2).sum(-1),
    "policy_smoothness_loss": lambda a, s: (((s.mean - a.perturbed_mean) / np.exp(s.log_std)) ** 2).sum(-1),
    "targeted_attack_loss": targeted,
}

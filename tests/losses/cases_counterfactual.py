"""NumPy versions of the losses of moving among others."""

import numpy as np

RANGES = {"radius": (0.0, 6.0)}


def perturbation(a, s):
    return np.array(
        [
            np.mean([((x - y) ** 2).sum() for x, y in zip(path, null, strict=True)])
            for path, null in zip(a.predicted, s.undisturbed, strict=True)
        ]
    )


def intrusion(a, s):
    return np.array(
        [
            np.mean([max(0.0, a.radius - np.linalg.norm(x - y)) ** 2 for x, y in zip(path, others, strict=True)])
            for path, others in zip(a.position, a.other, strict=True)
        ]
    )


CASES = {"counterfactual_perturbation": perturbation, "personal_space_loss": intrusion}

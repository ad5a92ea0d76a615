"""NumPy versions of the distribution-correction losses, from the primal: f* as a maximum over density ratios."""

import numpy as np

from jaxrl_reg import losses

STATIC = {"v_dice_losses": {"conjugate": losses.pearson_conjugate}}
RANGES = {"eta": (0.1, 2.0), "max_weight": (0.5, 3.0)}


def pearson(y):
    """``max_w w y - (w - 1)^2`` over ``w >= 0``: the maximiser is where the slope in ``w`` vanishes, or 0."""
    ratio = np.where(y > -2, 1 + y / 2, 0.0)
    return ratio * y - (ratio - 1) ** 2


def reverse_kl(y, largest):
    """``max_w w y - w log w`` over ``0 <= w <= largest``."""
    ratio = np.minimum(np.exp(y - 1), largest)
    return ratio * y - ratio * np.log(ratio)


def v_dice(a, s):
    forward = a.reward + a.gamma * a.discount * s.next_target_value - a.value
    backward = a.reward + a.gamma * a.discount * a.next_value - s.target_value
    return (1 - a.lam) * a.value, a.lam * pearson(forward), a.eta * a.lam * pearson(backward)


CASES = {
    "pearson_conjugate": lambda a, s: pearson(a.residual),
    "pearson_weight": lambda a, s: np.minimum(np.where(s.residual > -2, 1 + s.residual / 2, 0), s.clip),
    "reverse_kl_conjugate": lambda a, s: reverse_kl(a.residual, a.max_weight),
    "reverse_kl_weight": lambda a, s: np.minimum(np.exp(s.residual) / np.e, s.clip),
    "v_dice_losses": v_dice,
}

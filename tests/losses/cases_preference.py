"""NumPy versions of the losses of comparisons, from their definitions: probabilities first, then their logarithms."""

import numpy as np


def bradley_terry(a, s):
    top = np.maximum(a.first, a.second)  # of the two exponentials, so that neither overflows
    first, second = np.exp(a.first - top), np.exp(a.second - top)
    likely = s.preference * (a.first - top) + (1 - s.preference) * (a.second - top)
    return np.log(first + second) - likely


def sigma(z):
    return 1 / (1 + np.exp(-z))


def lead(a, s, sum_over=()):
    """x+, x- and their difference."""
    chosen = (a.chosen_logps - s.ref_chosen_logps).sum(sum_over)
    rejected = (a.rejected_logps - s.ref_rejected_logps).sum(sum_over)
    return chosen, rejected, chosen - rejected


def smoothed(z, e):
    return -(1 - e) * np.log(sigma(z)) - e * np.log(sigma(-z))


def robust(a, s):
    z, e = a.beta * lead(a, s)[2], a.label_smoothing
    return (-(1 - e) * np.log(sigma(z)) + e * np.log(sigma(-z))) / (1 - 2 * e)


def positive(a, s):
    chosen, _, d = lead(a, s)
    return smoothed(a.beta * (d - a.penalty * np.where(chosen < 0, -chosen, 0)), 0)


def kto(a, s):
    x = a.logps - s.ref_logps
    good, bad = 1 - sigma(a.beta * (x - s.kl)), 1 - sigma(a.beta * (s.kl - x))
    return np.where(s.desirable == 1, a.desirable_weight * good, a.undesirable_weight * bad)


def odds_ratio(a, s):
    chosen, rejected = np.exp(a.chosen_logps), np.exp(a.rejected_logps)
    ratio = chosen / (1 - chosen) / (rejected / (1 - rejected))
    return -a.beta * np.log(ratio / (1 + ratio))


def tdpo(a, s):
    charge = a.rejected_kl - a.chosen_kl if s.first else a.alpha * (a.rejected_kl - s.chosen_kl)
    return smoothed(a.beta * (lead(a, s)[2] - charge), 0)


def rrpo(a, s):
    chosen = ((a.chosen_logps - s.ref_chosen_logps) * s.chosen_phrases).sum(-1)
    rejected = ((a.rejected_logps - s.ref_rejected_logps) * s.rejected_phrases).sum(-1)
    return smoothed(a.beta * (chosen - rejected), 0) + a.alpha * a.chosen_kl.sum(-1)


def treg(a, s):
    regulariser = -(a.beta * a.chosen_logps * s.chosen_reward + a.beta * a.rejected_logps * s.rejected_reward).sum(-1)
    weight = sigma(-s.beta * lead(s, s, -1)[2])
    return smoothed(a.beta * lead(a, s, -1)[2], 0) + a.alpha * weight * regulariser


def inpo(a, s):
    k = a.tau / a.eta
    h = a.chosen_logps - a.rejected_logps - k * (s.ref_chosen_logps - s.ref_rejected_logps)
    return (h - (1 - k) * (s.last_chosen_logps - s.last_rejected_logps) - 1 / (2 * a.eta)) ** 2


def mixture(a, s):
    both = np.exp(a.logits) ** (1 - a.mixture_coef) * np.exp(a.ref_logits) ** a.mixture_coef
    return np.log(both / both.sum(-1, keepdims=True))


def consistency(a, s):
    count = s.first.shape[-1]
    agree = sum(
        np.sign(s.first[..., i] - s.first[..., j]) * np.sign(s.second[..., i] - s.second[..., j])
        for i in range(count)
        for j in range(i)
    )
    return (2 * agree / (count * (count - 1)) + 1) / 2


def softmax(logits):
    weight = np.exp(logits)
    return weight / weight.sum(-1, keepdims=True)


def self_judge(a, s):
    student, teacher, still = softmax(a.student_logits), softmax(a.teacher_logits), softmax(s.teacher_logits)
    labels = -(s.target * (np.log(teacher) + a.student_weight * np.log(student))).sum(-1)
    return labels + a.distillation_weight * (still * (np.log(still) - np.log(student))).sum(-1)


CASES = {
    "bradley_terry_loss": bradley_terry,
    "consistency_rate": consistency,
    "contrastive_token_reward": lambda a, s: s.mask * (sigma(s.better_logps - s.worse_logps) - 0.5),
    "cpo_loss": lambda a, s: (
        smoothed(a.beta * (a.chosen_logps - a.rejected_logps), a.label_smoothing) + a.cpo_alpha * a.nll
    ),
    "cream_loss": lambda a, s: smoothed(a.beta * lead(a, s)[2], 1 - s.consistency),
    "dpo_hinge_loss": lambda a, s: np.maximum(1 - a.beta * lead(a, s)[2], 0),
    "dpo_loss": lambda a, s: smoothed(a.beta * lead(a, s)[2], s.label_smoothing),
    "dpo_positive_loss": positive,
    "expected_score": lambda a, s: softmax(a.logits) @ a.values,
    "flex_dpo_loss": lambda a, s: smoothed(a.beta_chosen * lead(a, s)[0] - a.beta_rejected * lead(a, s)[1], 0),
    "geometric_mixture": mixture,
    "inpo_loss": inpo,
    "ipo_loss": lambda a, s: (lead(a, s)[2] - 1 / (2 * a.beta)) ** 2,
    "kto_loss": kto,
    "kto_reference_point": lambda a, s: np.maximum((s.logps - s.ref_logps).mean(), 0),
    "nash_md_advantage": lambda a, s: s.probability - 0.5 - s.beta * (s.logps - s.ref_logps),
    "odds_ratio_loss": odds_ratio,
    "reward_model_loss": lambda a, s: (
        smoothed(a.chosen - a.rejected - a.margin, 0) + a.center_rewards_coefficient * (a.chosen + a.rejected) ** 2
    ),
    "robust_dpo_loss": robust,
    "rpo_loss": lambda a, s: smoothed(a.beta * lead(a, s)[2], 0) - a.eta * a.beta * a.baseline_logps,
    "rrpo_loss": rrpo,
    "self_judge_loss": self_judge,
    "simpo_loss": lambda a, s: smoothed(
        a.beta * (a.chosen_logps - a.rejected_logps) - a.simpo_gamma, a.label_smoothing
    ),
    "slic_loss": lambda a, s: (
        np.maximum(0, a.margin - a.chosen_logps + a.rejected_logps) - a.coefficient * a.target_logps
    ),
    "sppo_loss": lambda a, s: (a.logps - s.ref_logps - (s.win_probability - 0.5) / a.beta) ** 2,
    "tdpo_loss": tdpo,
    "treg_loss": treg,
}
LOGPS = (-6.0, -0.0625)
RANGES = {
    "baseline_logps": LOGPS,
    "beta": (0.1, 2.0),
    "beta_chosen": (0.0, 2.0),
    "beta_rejected": (0.0, 2.0),
    "center_rewards_coefficient": (0.0, 1.0),
    "chosen_kl": (0.0, 1.0),
    "chosen_logps": LOGPS,
    "chosen_phrases": (0.0, 1.0),
    "consistency": (0.0, 1.0),
    "kl": (0.0, 1.0),
    "label_smoothing": (0.0, 0.4),
    "last_chosen_logps": LOGPS,
    "last_rejected_logps": LOGPS,
    "mixture_coef": (0.0, 1.0),
    "preference": (0.0, 1.0),
    "probability": (0.0, 1.0),
    "ref_chosen_logps": LOGPS,
    "ref_rejected_logps": LOGPS,
    "rejected_kl": (0.0, 1.0),
    "rejected_logps": LOGPS,
    "rejected_phrases": (0.0, 1.0),
    "simpo_gamma": (0.0, 1.0),
    "tau": (0.0, 0.2),
    "win_probability": (0.0, 1.0),
}
SIZES = {"G": 4}
STATIC = {"tdpo_loss": {"first": False}}
BINARY = {"desirable"}

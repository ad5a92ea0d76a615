"""NumPy versions of a context whose segments are judged."""

import numpy as np

RANGES = {"coef": (0.0, 2.0)}


def logistic(x):
    return 1 / (1 + np.exp(-x))


def weighed(a, s):
    rows = []
    for features, judged, mask in zip(a.features, a.judgement_logits, s.mask, strict=True):
        kept = [(1 - logistic(j)) * f for f, j, m in zip(features, judged, mask, strict=True) if m > 0]
        rows.append(sum(kept) / len(kept) if kept else 0.0 * features[0])
    return np.array(rows)


def joint(a, s):
    likely = a.answer_logits - np.log(np.exp(a.answer_logits).sum(-1, keepdims=True))
    p = logistic(a.judgement_logits)
    judged = -(s.label * np.log(p) + (1 - s.label) * np.log(1 - p)).mean(-1)
    return -(s.answer * likely).sum(-1) + a.coef * judged


CASES = {"judged_answer_loss": joint, "weigh_segments": weighed}

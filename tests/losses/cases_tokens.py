"""NumPy versions of the losses over tokens and groups, from their definitions: rows and tokens in loops."""

import numpy as np


def sequence_logprobs(a, s):
    out = []
    for row, mask in zip(a.logps, s.mask, strict=True):
        total = sum(x * m for x, m in zip(row, mask, strict=True) if m > 0)
        out.append(total / mask.sum() if mask.sum() > 0 else 0.0)
    return np.array(out)


CASES = {"sequence_logprobs": sequence_logprobs}
STATIC = {"sequence_logprobs": {"average": True}}

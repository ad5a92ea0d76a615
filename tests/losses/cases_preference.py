"""NumPy version of the loss of comparisons, from its definition: probabilities first, then their logarithms."""

import numpy as np


def bradley_terry(a, s):
    top = np.maximum(a.first, a.second)  # of the two exponentials, so that neither overflows
    first, second = np.exp(a.first - top), np.exp(a.second - top)
    likely = s.preference * (a.first - top) + (1 - s.preference) * (a.second - top)
    return np.log(first + second) - likely


CASES = {"bradley_terry_loss": bradley_terry}
RANGES = {"preference": (0.0, 1.0)}

"""NumPy versions of values and losses relative to a reference policy."""

import numpy as np


def regularised(a, s):
    values, policies = [], []
    for q, log_reference in zip(a.q, a.log_reference, strict=True):
        exponent = np.asarray(q) / a.temperature + np.asarray(log_reference)
        largest = exponent.max()  # out of the exponential, so that the check at large values is one
        log_sum = largest + np.log(np.exp(exponent - largest).sum())
        values.append(a.temperature * log_sum)
        policies.append(exponent - log_sum)
    return np.array(values), np.array(policies)


def barrier(a, s):
    return np.array(
        [
            -sum((n + a.barrier) * logit for n, logit in zip(counts, row, strict=True))
            for counts, row in zip(a.counts, a.log_policy, strict=True)
        ]
    )


CASES = {"kl_regularised_value": regularised, "log_barrier_cloning_loss": barrier}
RANGES = {"barrier": (0.0, 2.0), "counts": (0.0, 5.0)}

"""NumPy versions of what a reward without judges is made of."""

import numpy as np

RANGES = {
    "unit": (0.5, 3.0),
    "repetition": (0.0, 1.0),
    "input_range": (0.5, 3.0),
    "output_range": (0.5, 3.0),
    "open_ended": (0.0, 1.0),
}


def pooled(a, s):
    rows = []
    for embedding, mask in zip(a.embedding, s.mask, strict=True):
        words = [row for row, counts in zip(embedding, mask, strict=True) if counts > 0]
        rows.append(np.mean(words, axis=0) if words else 0.0 * embedding[0])
    return np.array(rows)


def mixed(a, s):
    out = []
    columns = (s.query_relevance, s.reference_relevance, s.length, s.repetition, s.open_ended)
    for of_query, of_reference, length, repetition, free in zip(*columns, strict=True):
        of_reference = of_reference / s.input_range * s.output_range
        out.append((max(of_query, 0.0) * length if free > 0.5 else of_reference) * repetition)
    return np.array(out)


CASES = {
    "length_incentive": lambda a, s: np.array([sum(row) / s.unit for row in s.mask]),
    "pooled_embedding": pooled,
    "regularised_relevance_reward": mixed,
    "relevance": lambda a, s: np.array([x @ y for x, y in zip(a.first, a.second, strict=True)]),
}
SIZES = {"E": 3}

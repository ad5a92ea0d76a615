"""NumPy versions of BEER's loss and of what is read off features, row by row and value by value."""

import numpy as np

RANGES = {"weight_square": (0.5, 3.0), "bound": (-2.0, 1.0), "cosine": (-1.0, 1.0), "threshold": (0.0, 0.5)}
RANGES["tolerance"] = (0.01, 0.5)
COUPLED = {"token_cosine"}
STATIC = {"inverse_participation": {"order": 3}}


def length(x):
    return max(np.sqrt(x @ x), 1e-6)


def rows(function):
    """Apply ``function`` to the rows of its arguments; scalars are the same for all."""
    return lambda *arguments: np.array([function(*row) for row in zip(*arguments, strict=True)])


def cosine(x, y):
    return x @ y / (length(x) * length(y))


def bound(a, s):
    def row(x, y, r, far):
        return (x @ x + a.gamma**2 * y @ y - r**2 / a.weight_square) / (2 * a.gamma * length(x) * length(far))

    return rows(row)(a.features, a.next_features, a.reward, a.target_next_features)


def excess(a, s):
    return rows(lambda x, y, u, m: m * max(cosine(x, y) - max(u, -1.0), 0.0))(
        a.features, s.target_next_features, s.bound, s.mask
    )


def violations(a, s):
    above = [m * (c > u + 1e-5) for c, u, m in zip(s.cosine, s.bound, s.mask, strict=True)]
    return sum(above) / max(sum(s.mask), 1e-6)


def singular_values(x):
    sizes = np.sqrt(np.maximum(np.linalg.eigvalsh(x.T @ x if x.shape[0] > x.shape[1] else x @ x.T), 0.0))[::-1]
    return [size for size in sizes if size > 1e-6 * sizes[0]]


def srank(a, s):
    sizes = singular_values(s.features)
    return float(next((k for k in range(len(sizes)) if sum(sizes[k:]) <= s.tolerance * sum(sizes)), len(sizes)))


def effective_rank(a, s):
    sizes = singular_values(s.features)
    return np.prod([(size / sum(sizes)) ** (-size / sum(sizes)) for size in sizes]) if sizes else 0.0


def dormant(a, s):
    activity = [np.mean(np.abs(unit)) for unit in s.features.T]
    return np.mean([score / (np.mean(activity) + 1e-9) <= s.threshold for score in activity])


def shares_of_activity(a, s):
    activity = [np.mean(np.abs(unit)) for unit in s.features.T]
    return np.array([score / (np.mean(activity) + 1e-9) for score in activity])


def participation(a, s):
    return np.array([sum((abs(c) / length(row)) ** (2 * a.order) for c in row) for row in s.coefficients])


def between_tokens(a, s):
    rows = range(len(s.tokens))
    return np.mean([cosine(s.tokens[i], s.tokens[j]) for i in rows for j in rows if i != j])


def products(a, s):
    return np.array([m * abs(x @ y) for x, y, m in zip(a.features, a.next_features, s.mask, strict=True)])


def from_the_start(a, s):
    return np.array([np.mean((x - a.scale * y) ** 2) for x, y in zip(a.heads, s.initial_heads, strict=True)])


CASES = {
    "dormant_scores": shares_of_activity,
    "token_cosine": between_tokens,
    "feature_product_loss": products,
    "initial_feature_loss": from_the_start,
    "inverse_participation": participation,
    "beer_bound": bound,
    "beer_loss": excess,
    "dormant_fraction": dormant,
    "effective_rank": effective_rank,
    "feature_cosine": lambda a, s: rows(cosine)(s.features, s.next_features),
    "srank": srank,
    "violation_fraction": violations,
}

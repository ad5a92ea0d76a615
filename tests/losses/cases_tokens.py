"""NumPy versions of the losses over tokens and groups, from their definitions: rows and tokens in loops."""

import numpy as np

SIZES = {"G": 4, "V": 4}
STATIC = {
    "group_advantage": {"normalise": True},
    "nucleus_entropy": {"strict": False},
    "outcome_score_loss": {"prefixes": True},
    "sampled_kl": {"estimator": "k3"},
    "sequence_logprobs": {"average": True},
}
RANGES = {
    "buffer": (0.5, 2.0),
    "clip_high": (0.25, 2.0),
    "dual_clip": (1.5, 3.0),
    "epsilon": (0.25, 0.5),
    "length": (0.5, 3.0),
    "mass": (0.25, 0.75),
    "quantile": (0.0, 1.0),
    "sharpness": (0.0, 2.0),
}
BINARY = {"right", "selected"}
COUPLED = {"anchored_entropy_loss", "constant_mean", "sequence_mean"}


def rows(function, *arrays):
    return np.array([function(*each) for each in zip(*arrays, strict=True)])


def average(row, mask):
    total = sum(x * m for x, m in zip(row, mask, strict=True) if m > 0)
    return total / mask.sum() if mask.sum() > 0 else 0.0


def sequence_mean(a, s):
    means = [average(row, mask) for row, mask in zip(a.loss, s.mask, strict=True) if mask.sum() > 0]
    return np.array(sum(means) / max(len(means), 1))


def group(reward, epsilon):
    return (reward - reward.mean()) / (np.std(reward, ddof=1) + epsilon)


def leave_one_out(reward):
    return np.array([r - np.delete(reward, i).mean() for i, r in enumerate(reward)])


def whitened(a, s):
    count = s.mask.sum()
    mean = (s.mask * a.value).sum() / (count or 1.0)
    variance = (s.mask * (a.value - mean) ** 2).sum() / (count - 1 if count > 1 else 1.0)
    return np.where(s.mask > 0, (a.value - mean) / np.sqrt(variance + 1e-8), 0.0)


def ratio(a, s):
    return np.exp(np.clip(a - s, -20, 20))


def clipped(ratio, advantage, clip, clip_high):
    return -np.minimum(ratio * advantage, np.minimum(np.maximum(ratio, 1 - clip), 1 + clip_high) * advantage)


def ppo(a, s):
    loss = clipped(ratio(a.log_prob, s.old_log_prob), s.advantage, a.clip, a.clip_high)
    return np.where(s.advantage < 0, np.minimum(loss, -a.dual_clip * s.advantage), loss)


def gspo(a, s):
    out = []
    for now, still, old, advantage, mask in zip(
        a.log_prob, s.log_prob, s.old_log_prob, s.advantage, s.mask, strict=True
    ):
        each = np.exp(average(still - old, mask)) * np.exp(now - still)
        out.append(np.where(mask > 0, clipped(each, advantage, a.clip, a.clip_high), 0.0))
    return np.array(out)


def cispo(a, s):
    weight = np.minimum(np.maximum(ratio(s.log_prob, s.old_log_prob), 1 - s.clip), 1 + s.clip_high)
    return -weight * s.advantage * a.log_prob


def k3(log_prob, reference):
    d = np.clip(reference - log_prob, -20, 20)
    return np.exp(d) - 1 - d


def entropy(logits):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p = p / p.sum(-1, keepdims=True)
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)


def nucleus(logits, still, mass):
    p = np.exp(still) / np.exp(still).sum()
    kept, held = [], 0.0
    for token in np.argsort(-still, kind="stable"):
        if held < mass:
            kept.append(token)
        held += p[token]
    return entropy(logits[kept])


def quantile(row, mask, q):
    return np.quantile(row[mask > 0], q) if (mask > 0).any() else 0.0


def peaks(row, mask, q):
    return ((row > quantile(row, mask, q)) & (mask > 0)).astype(float)


def anchored(a, s):
    means = rows(lambda e, still, m: average(e, peaks(still, m, s.quantile)), a.entropy, s.entropy, s.mask)
    return (means.mean() - s.anchor) ** 2


def lp_reg(a, s):
    chosen = (s.selected > 0) & (s.log_prob < s.log_proxy)
    plain = -s.advantage * ratio(a.log_prob, s.old_log_prob)
    surrogate = clipped(ratio(a.log_prob, s.old_log_prob), s.advantage, a.clip, a.clip_high)
    return np.where(chosen, plain + a.coefficient * np.minimum(k3(a.log_prob, s.log_proxy), 10), surrogate)


def difficulty(right):
    rate = right.mean()
    return np.array([1 - np.exp(-np.e * rate) if r > 0 and 1 - rate > 0 else 1.0 for r in right])


def overthinking(length, right, sharpness):
    if right.sum() == 0:
        return np.ones(len(right))
    mean = length[right > 0].mean()
    return np.array(
        [1.0 if r > 0 else 2 - np.exp(-sharpness * max(x - mean, 0)) for x, r in zip(length, right, strict=True)]
    )


def prefix_means(score, mask):
    return np.array([average(score[: t + 1], (mask[: t + 1] > 0).astype(float)) for t in range(len(score))])


def judged(score, mask, right):
    likely = 1 / (1 + np.exp(-prefix_means(score, mask)))
    return average(-np.log(likely if right else 1 - likely), (mask > 0).astype(float))


def doubts(a, s):
    likely = 1 / (1 + np.exp(-rows(prefix_means, s.score, s.mask)))
    scale = [np.clip((p - s.threshold) / (1 - s.threshold), 0, 1) for p in (likely, 1 - likely)]
    return tuple(np.where(s.mask > 0, weight, 0.0) for weight in scale)


def oreal(a, s):
    advantage, right = s.advantage[:, None], s.right[:, None]
    pushed = -a.negative * s.weight_wrong * advantage * ratio(a.log_prob, s.old_log_prob)
    cloned = -s.weight_right * advantage * a.log_prob
    return right * cloned + (1 - right) * pushed + a.coefficient * k3(a.log_prob, s.reference)


CASES = {
    "anchored_entropy_loss": anchored,
    "categorical_entropy": lambda a, s: entropy(a.logits),
    "cispo_loss": cispo,
    "constant_mean": lambda a, s: np.array((a.loss * s.mask).sum() / (len(a.loss) * a.length)),
    "difficulty_weight": lambda a, s: rows(difficulty, s.right),
    "group_advantage": lambda a, s: rows(lambda r: group(r, a.epsilon), a.reward),
    "gspo_loss": gspo,
    "informative": lambda a, s: np.array([float(len(set(r)) > 1) for r in s.reward]),
    "leave_one_out_advantage": lambda a, s: rows(leave_one_out, a.reward),
    "lp_reg_loss": lp_reg,
    "masked_quantile": lambda a, s: rows(lambda x, m: quantile(x, m, a.quantile), a.value, s.mask),
    "one_sided_reinforce_loss": lambda a, s: -s.reward[:, None] * a.log_prob,
    "oreal_loss": oreal,
    "outcome_score_loss": lambda a, s: rows(judged, a.score, s.mask, s.right),
    "overlong_penalty": lambda a, s: -np.minimum(np.maximum((a.length - a.limit) / a.buffer + 1, 0), 1),
    "overthinking_weight": lambda a, s: rows(lambda x, r: overthinking(x, r, s.sharpness), s.length, s.right),
    "peak_mask": lambda a, s: rows(lambda e, m: peaks(e, m, s.quantile), s.entropy, s.mask),
    "ppo_clip_loss": ppo,
    "progress_reward": lambda a, s: (1 + a.bonus) * a.second - a.bonus * a.first,
    "regulating_temperature": lambda a, s: np.array(a.high if s.entropy < s.target else a.low),
    "sampled_kl": lambda a, s: k3(a.log_prob, a.reference),
    "score_weights": doubts,
    "sequence_logprobs": lambda a, s: rows(average, a.logps, s.mask),
    "sequence_mean": sequence_mean,
    "whitened": whitened,
    "nucleus_entropy": lambda a, s: rows(lambda x, y: nucleus(x, y, s.mass), a.logits, s.logits),
}

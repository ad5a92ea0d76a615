"""What a matrix of scores says about learning one task after another.

``scores[..., i, j]`` is the score on task ``j`` after phase ``i``; leading axes (seeds) are kept. Higher is better.
Source of the terms: Lopez-Paz and Ranzato, 2017, Gradient Episodic Memory; Chaudhry et al., 2018, Riemannian Walk.
"""

from __future__ import annotations

import numpy as np


def _matrix(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim < 2 or scores.shape[-1] != scores.shape[-2] or scores.shape[-1] == 0:
        raise ValueError(f"scores have shape {list(scores.shape)}; expected [..., N, N]: phases, then tasks")
    return scores


def average_performance(scores: np.ndarray) -> np.ndarray:
    """Mean over tasks after the last phase, ``[...]``."""
    return _matrix(scores)[..., -1, :].mean(axis=-1)


def learning(scores: np.ndarray) -> np.ndarray:
    """Mean score on a task right after its phase, ``[...]``."""
    return np.diagonal(_matrix(scores), axis1=-2, axis2=-1).mean(axis=-1)


def backward_transfer(scores: np.ndarray) -> np.ndarray:
    """Mean over all tasks but the last of "at the end" minus "right after its phase", ``[...]``; negative: forgotten.

    NaN for a single task.
    """
    scores = _matrix(scores)
    if scores.shape[-1] == 1:
        return np.full(scores.shape[:-2], np.nan)
    after = np.diagonal(scores, axis1=-2, axis2=-1)
    return (scores[..., -1, :-1] - after[..., :-1]).mean(axis=-1)


def forgetting(scores: np.ndarray) -> np.ndarray:
    """Mean over all tasks but the last of the best earlier score minus the last one, ``[...]``.

    Negative where the last phase improved a task; NaN for a single task.
    """
    scores = _matrix(scores)
    if scores.shape[-1] == 1:
        return np.full(scores.shape[:-2], np.nan)
    return (scores[..., :-1, :-1].max(axis=-2) - scores[..., -1, :-1]).mean(axis=-1)


def forward_transfer(scores: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Mean over all tasks but the first of the score before its phase minus ``baseline`` ``[N]``, ``[...]``.

    ``baseline`` is the score of a policy that has learnt nothing; its first entry is not used. NaN for a single task.

    Raises:
      ValueError: another number of baselines than tasks.
    """
    scores, baseline = _matrix(scores), np.asarray(baseline, np.float64)
    if baseline.shape[-1:] != scores.shape[-1:]:
        raise ValueError(f"baseline has shape {list(baseline.shape)}; expected [{scores.shape[-1]}], one per task")
    if scores.shape[-1] == 1:
        return np.full(scores.shape[:-2], np.nan)
    before = np.diagonal(scores, offset=1, axis1=-2, axis2=-1)
    return (before - baseline[..., 1:]).mean(axis=-1)


def average_over_time(scores: np.ndarray) -> np.ndarray:
    """Mean over phases of the mean over the tasks met so far, ``[...]``."""
    scores = _matrix(scores)
    met = np.tril(np.ones(scores.shape[-2:]))
    return ((scores * met).sum(axis=-1) / met.sum(axis=-1)).mean(axis=-1)

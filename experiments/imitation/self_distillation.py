"""A clone that is too sure of itself, with its own earlier predictions mixed into the labels (PS-KD)."""

from __future__ import annotations

import numpy as np

from experiments.harness import Claim
from experiments.imitation._noisy_goals import Task, compared

CLAIM = Claim(
    statement="A clone of 256 states, trained with observation noise 0.02 and met by noise 0.1, is over-confident; "
    "with progressive self-distillation (final weight 0.8) the likelihood of the right move is at least 0.05 nats "
    "better. Not claimed: a better success, or any gain where the clone is not over-confident (1,536 states, noise "
    "0.1 in training too): there calibration gets worse",
    paper="https://arxiv.org/abs/2006.12000",
    method="PS-KD",
    baselines=("cross-entropy",),
    ablation=None,
    metric="negative log-likelihood of the right move, nats",
    systems=(62,),
    higher_is_better=False,
    margin=0.05,
    seeds=5,
    chosen="ten tuning seeds: 0.138, sd 0.014; power above 0.99",
)
TASKS = {"small": Task(256, 600, 0.0, 0.02, 0.1), "full": Task(256, 1200, 0.0, 0.02, 0.1)}
ARMS = {"cross-entropy": (0.0, 0.0), "PS-KD": (0.0, 0.8)}


def run(seeds, scale, say):
    found = {name: np.asarray(each) for name, each in compared(TASKS[scale], list(ARMS.values()), seeds).items()}
    for row, arm in enumerate(ARMS):
        say(f"{arm}: " + ", ".join(f"{name} {each[row].mean():.3f}" for name, each in found.items()))
    return {arm: found["nll"][row].tolist() for row, arm in enumerate(ARMS)}

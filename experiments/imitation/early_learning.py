"""Cloning a walker of whose recorded moves two fifths are random, with early-learning regularisation (ELR).

768 states and 300 epochs, so that plain cloning learns the wrong moves by heart: with twice the states and half the
epochs it hardly does, and there is less to win.
"""

from __future__ import annotations

import numpy as np

from experiments.harness import Claim
from experiments.imitation._noisy_goals import Task, compared

CLAIM = Claim(
    statement="A walker cloned from moves of which 40% are random reaches its goal at least 0.25 more often with "
    "early-learning regularisation than by cross-entropy alone, which learns the wrong moves by heart. Not claimed: "
    "that it helps against noise in what is seen, where it does harm",
    paper="https://arxiv.org/abs/2007.00151",
    method="ELR",
    baselines=("cross-entropy",),
    ablation=None,
    metric="share of goals reached",
    systems=(8,),
    margin=0.25,
    seeds=9,
    chosen="a record on five seeds: 0.43, sd 0.11; power 0.98",
)
TASKS = {"small": Task(768, 300, 0.4), "full": Task(1536, 300, 0.4)}
ARMS = {"cross-entropy": (0.0, 0.0), "ELR": (3.0, 0.0)}


def run(seeds, scale, say):
    found = {name: np.asarray(each) for name, each in compared(TASKS[scale], list(ARMS.values()), seeds).items()}
    for row, arm in enumerate(ARMS):
        say(f"{arm}: " + ", ".join(f"{name} {each[row].mean():.3f}" for name, each in found.items()))
    return {arm: found["success"][row].tolist() for row, arm in enumerate(ARMS)}

"""Two thousand judgements of segments on ``pointnav``: a policy at once, by the agent ``preference``.

Episodes keep one heading each, so that the actions of a place cancel: cloning stays where it is. A Bradley-Terry judge
compares the returns of segments of ten steps. DPO reaches the goal if its beta is right: per nat of the mean over a
segment's steps, 3.5; at 2 and below it runs away from the data and is worse than cloning, at 10 it stays near them
(0.10 and 0.29 on seeds 0 to 2). RPO, which also clones what was preferred, is the same at any beta and far behind. Data
and pairs are the same for all seeds.
"""

from __future__ import annotations

import dataclasses

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.preferences import _commuters
from experiments.preferences._commuters import CLONING, COIN, DPO, STATIC
from jaxrl_reg.agents.offline import preference

CLAIM = Claim(
    statement="From 2,000 judged pairs of segments the agent preference learns, by DPO with a tuned beta, to reach the "
    "goal far more often than cloning the same data does, and than RPO, which also clones what was preferred; with "
    "labels of a tossed coin it does not",
    paper=preference.PAPER.url,
    method="DPO",
    baselines=("cloning", "RPO"),
    ablation="DPO, coin flips",
    metric="fraction of steps at the goal (pointnav)",
    margin=0.2,
    seeds=15,
    chosen="seeds 0 to 9: over RPO 0.490, over coin flips 0.531; power 0.95 with 12",
)
ARMS = {
    "cloning": CLONING,
    "DPO": DPO,
    "RPO": Arm("preference", {}, (*STATIC, ("loss", "rpo"))),
    "DPO, coin flips": dataclasses.replace(DPO, config=(*DPO.config, ("judge_temperature", COIN))),
}


def run(seeds, scale, say):
    return _commuters.train(ARMS, _commuters.shared(), seeds, say)

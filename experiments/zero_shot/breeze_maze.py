"""BREEZE against FB and its conservative kin in a maze that RND explored, and against itself without weights.

RND tries all directions with large actions, so a policy that leaves the data is hardly punished, unlike in ``breeze``.
Seeds 0 and 1, 2,000 updates, share of steps at the goal: FB 0.61; BREEZE with FB's actor instead of its own 0.54;
BREEZE 0.24, and 0.52 without F regularisation, standardised observations and actions, and warm restarts of the learning
rate. The last two are meant for a million updates and are left out of the small setting, for the good of BREEZE. An
inverse temperature of 10 is better than 1, and more candidates for the next action are worse. Nets are as smooth as in
``breeze``.

The claim fails on fresh seeds. The best of 32 samples of a policy that clones RND is as good with weights as without
them, below the actor of FB, which may leave the data, and above VC-FB. What BREEZE keeps here: it ends at its best.
"""

import numpy as np

from experiments.harness import Claim
from experiments.zero_shot import _kin, _tasks
from experiments.zero_shot import _maze as maze
from jaxrl_reg.agents import breeze

CLAIM = Claim(
    statement="Trained on exploration without any reward, BREEZE serves four tasks given afterwards better than FB, "
    "VC-FB and MC-FB, and than itself without weights in the actor's loss",
    paper=breeze.PAPER.url,
    method="BREEZE",
    baselines=("FB", "VC-FB", "MC-FB"),
    ablation="BREEZE without weights",
    metric="fraction of steps at the goal, interquartile mean over four tasks (pointmaze)",
    margin=0.02,
    systems=(1,),
    seeds=8,
    chosen="fails on seeds 500 to 507; no number of seeds helps",
    note="on wide exploration data leaving the data is hardly punished, so keeping to them gains nothing",
)
SIZES = {  # hidden width, updates, batch size, D, samples when acting
    "small": (64, 2_000, 256, 32, 32),
    "full": (1024, 400_000, 512, 100, 64),
}
CHECKPOINTS = 2


def run(seeds, scale, say):
    width, updates, batch_size, features, candidates = SIZES[scale]
    found = _tasks.train(
        _kin.arms(width, features, candidates, 1e-3 if scale == "small" else None),
        maze.explored(scale, say),
        seeds,
        say,
        hidden=(width,),
        updates=updates,
        batch_size=batch_size,
        episodes=maze.SIZES[scale][2],
        checkpoints=CHECKPOINTS,
        discount=0.95 if scale == "small" else 0.99,
    )
    for arm, each in found.items():
        say(f"{arm}: best to last checkpoint {np.mean(_tasks.fallen(each['iqm'])):.3f}")
    return {arm: each["iqm"][:, -1].tolist() for arm, each in found.items()}

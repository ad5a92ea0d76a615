"""BREEZE against FB and its conservative kin in a maze that RND explored, and against itself without weights."""

import numpy as np

from experiments import _tasks, maze
from experiments.control import Arm
from experiments.harness import Claim
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
)
SIZES = {  # hidden width, updates, batch size, D, samples when acting
    "small": (64, 4_000, 256, 32, 16),
    "full": (1024, 400_000, 512, 100, 64),
}
CHECKPOINTS = 4


def arms(scale: str) -> dict[str, Arm]:
    """Full: the agents' own settings, which are the papers'. Small: fewer updates, so larger steps."""
    _, _, _, features, candidates = SIZES[scale]
    size = (("features", features),)
    diffusion = (*size, ("candidates", candidates), ("steps", 5), ("train_candidates", 1))
    rates: dict[str, float] = {}
    if scale == "small":
        rates = dict.fromkeys(("representation_learning_rate", "actor_learning_rate", "value_learning_rate"), 1e-3)
        rates |= {"actor_average_rate": 5e-3, "inverse_temperature": 1.0, "expectile": 0.9}
    own = {name: rates[name] for name in rates if name in ("representation_learning_rate", "actor_learning_rate")}
    return {
        "BREEZE": Arm("breeze", rates, diffusion),
        "BREEZE without weights": Arm("breeze", {**rates, "inverse_temperature": 0.0}, diffusion),
        "FB": Arm("fb", own, size),
        "VC-FB": Arm("vc_fb", own, size),
        "MC-FB": Arm("mc_fb", own, size),
    }


def run(seeds, scale, say):
    width, updates, batch_size, _, _ = SIZES[scale]
    found = _tasks.train(
        arms(scale),
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

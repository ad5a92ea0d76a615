"""Successor features on the graph Laplacian against cloning, and against features that never learn."""

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.zero_shot import _maze as maze
from jaxrl_reg.agents import sf_laplacian

CLAIM = Claim(
    statement="Trained on exploration without any reward, successor features on the data's Laplacian serve four tasks "
    "given afterwards, far above cloning and above the same agent on random features",
    paper=sf_laplacian.PAPER.url,
    method="SF-LAP",
    baselines=("BC",),
    ablation="SF on random features",
    metric="fraction of steps at the goal, mean over four tasks (pointmaze)",
    margin=0.05,
    systems=(1,),
    seeds=5,
    chosen="fails on seeds 100 to 104; no number of seeds helps",
    note="the observation is the position, of which random features tell the four goals apart as well",
)
CONFIG = (("features", 32),)
RATES = {"actor_learning_rate": 1e-3, "successor_learning_rate": 1e-3, "feature_learning_rate": 1e-3}
ARMS = {
    "SF-LAP": Arm("sf_laplacian", RATES, CONFIG),
    "SF on random features": Arm("sf_laplacian", {**RATES, "feature_learning_rate": 0.0}, CONFIG),
    "BC": Arm("bc"),
    "GC-IQL": Arm("gc_iql", {"inverse_temperature": 3.0}),
}


def run(seeds, scale, say):
    return maze.success(ARMS, seeds, scale, say, discount=0.95)

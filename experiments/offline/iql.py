"""IQL against BC, and against itself with weights that ignore the advantage."""

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.offline import _control as control
from jaxrl_reg.agents import iql

CLAIM = Claim(
    statement="IQL improves on its data without ever evaluating an action that is not in it; with inverse temperature "
    "0 its weights are all 1 and it clones",
    paper=iql.PAPER.url,
    method="IQL",
    baselines=("BC",),
    ablation="IQL with inverse temperature 0",
    metric="fraction of steps at the goal (pointnav)",
    margin=0.2,
    seeds=5,
    chosen="seeds 0 to 4: over IQL with inverse temperature 0 0.74, sd 0.027; power 1.000",
)
CONFIG = (("decay_steps", 0),)
ARMS = {
    "IQL": Arm("iql", {"expectile": 0.9, "inverse_temperature": 10.0}, CONFIG),
    "IQL with inverse temperature 0": Arm("iql", {"expectile": 0.9, "inverse_temperature": 0.0}, CONFIG),
    "IQL with expectile 0.5": Arm("iql", {"expectile": 0.5, "inverse_temperature": 10.0}, CONFIG),
    "BC": Arm("bc"),
}


def run(seeds, scale, say):
    return control.success(ARMS, seeds, scale, say)

"""XQL against BC, and against itself with a temperature so high that the soft maximum is a mean."""

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.offline import _control as control
from jaxrl_reg.agents import xql

CLAIM = Claim(
    statement="XQL improves on its data without ever evaluating an action that is not in it; at a temperature so high "
    "that the soft maximum is the mean over the data's actions it improves less",
    paper=xql.PAPER.url,
    method="XQL",
    baselines=("BC",),
    ablation="XQL with temperature 100",
    metric="fraction of steps at the goal (pointnav)",
    margin=0.1,
    seeds=5,
    chosen="seeds 100 to 104: over XQL with temperature 100 0.321, sd 0.046; power 1.000",
)
CONFIG = (("decay_steps", 0),)
ARMS = {
    "XQL": Arm("xql", {"temperature": 0.5, "inverse_temperature": 10.0}, CONFIG),
    "XQL with temperature 100": Arm("xql", {"temperature": 100.0, "inverse_temperature": 10.0}, CONFIG),
    "XQL with inverse temperature 0": Arm("xql", {"temperature": 0.5, "inverse_temperature": 0.0}, CONFIG),
    "BC": Arm("bc"),
}


def run(seeds, scale, say):
    return control.success(ARMS, seeds, scale, say)

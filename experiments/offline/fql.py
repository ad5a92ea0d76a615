"""FQL against BC, and against itself without the distillation that keeps its one-step policy near the data."""

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.offline import _control as control
from jaxrl_reg.agents import fql

CLAIM = Claim(
    statement="A one-step policy that is distilled from a flow of the data improves on the data: above cloning, and "
    "far above the same policy without distillation, which leaves the data's actions; a very large weight of the "
    "distillation clones",
    paper=fql.PAPER.url,
    method="FQL",
    baselines=("BC",),
    ablation="FQL without distillation",
    metric="fraction of steps at the goal (pointnav)",
    margin=0.2,
    seeds=5,
    chosen="seeds 100 to 104: over FQL without distillation 0.628, sd 0.057; power 1.000",
)
ARMS = {
    "FQL": Arm("fql", {"alpha": 10.0}),
    "FQL without distillation": Arm("fql", {"alpha": 0.0}),
    "FQL with distillation alone": Arm("fql", {"alpha": 1e4}),
    "BC": Arm("bc"),
}


def run(seeds, scale, say):
    return control.success(ARMS, seeds, scale, say)

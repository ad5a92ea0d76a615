"""SQL against BC, and against itself with a regulariser so strong that the value is the behaviour's mean."""

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.offline import _control as control
from jaxrl_reg.agents import sql

CLAIM = Claim(
    statement="SQL improves on its data without ever evaluating an action that is not in it; with a regulariser strong "
    "enough to keep the value at the mean over the data's actions it improves less",
    paper=sql.PAPER.url,
    method="SQL",
    baselines=("BC",),
    ablation="SQL with alpha 100",
    metric="fraction of steps at the goal (pointnav)",
    margin=0.1,
    seeds=5,
    chosen="seeds 100 to 104: over SQL with alpha 100 0.206, sd 0.034; power 0.999",
)
CONFIG = (("decay_steps", 0),)
EXPONENTIAL = {"inverse_temperature": 10.0}
ARMS = {
    "SQL": Arm("sql", {"alpha": 0.1}, CONFIG),
    "SQL with alpha 100": Arm("sql", {"alpha": 100.0}, CONFIG),
    "EQL": Arm("eql", {"alpha": 0.5, **EXPONENTIAL}, CONFIG),
    "BC": Arm("bc"),
}


def run(seeds, scale, say):
    return control.success(ARMS, seeds, scale, say)

"""CQL against BC, and against itself without the conservative penalty."""

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.offline import _control as control
from jaxrl_reg.agents import cql

CLAIM = Claim(
    statement="CQL improves on its data; without its penalty it is SAC on fixed data, and fails",
    paper=cql.PAPER.url,
    method="CQL",
    baselines=("BC",),
    ablation="CQL without its penalty",
    metric="fraction of steps at the goal (pointnav)",
    margin=0.1,
    seeds=5,
    chosen="seeds 100 to 104: over CQL without its penalty 0.432, sd 0.059; power 1.000",
)
RATES = {"actor_learning_rate": 3e-4, "temperature_learning_rate": 3e-4}  # the paper's 3e-5 wants a million updates
CONFIG = (("n_samples", 4),)  # of each kind; fewer than the paper's 10, for two dimensions
ARMS = {
    "CQL": Arm("cql", {"cql_coef": 1.0, **RATES}, CONFIG),
    "CQL without its penalty": Arm("cql", {"cql_coef": 0.0, **RATES}, CONFIG),
    "BC": Arm("bc"),
}


def run(seeds, scale, say):
    return control.success(ARMS, seeds, scale, say)

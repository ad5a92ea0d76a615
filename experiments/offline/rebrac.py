"""ReBRAC against BC, and against itself without the penalty on the actor."""

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.offline import _control as control
from jaxrl_reg.agents import rebrac

CLAIM = Claim(
    statement="ReBRAC improves on its data; without the actor's penalty it leaves the data's actions and fails",
    paper=rebrac.PAPER.url,
    method="ReBRAC",
    baselines=("BC",),
    ablation="ReBRAC without the actor penalty",
    metric="fraction of steps at the goal (pointnav)",
    margin=0.2,
    seeds=5,
    chosen="seeds 0 to 4: over BC 0.694, sd 0.042; power 1.000",
)
ARMS = {
    "ReBRAC": Arm("rebrac", {"actor_bc_coef": 1.0, "critic_bc_coef": 0.01}),
    "ReBRAC without the actor penalty": Arm("rebrac", {"actor_bc_coef": 0.0, "critic_bc_coef": 0.01}),
    "BC": Arm("bc"),
}


def run(seeds, scale, say):
    return control.success(ARMS, seeds, scale, say)

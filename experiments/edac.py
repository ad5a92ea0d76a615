"""EDAC against BC, and against SAC on fixed data: two critics and no diversity."""

from experiments import control
from experiments.harness import Claim
from jaxrl_reg.agents import edac

CLAIM = Claim(
    statement="Ten diverse critics are unsure outside the data, and their minimum keeps the policy inside: EDAC "
    "improves on its data where two critics without diversity fail",
    paper=edac.PAPER.url,
    method="EDAC",
    baselines=("BC",),
    ablation="SAC-2 (two critics, no diversity)",
    metric="fraction of steps at the goal (pointnav)",
    margin=0.1,
)
ARMS = {
    "EDAC": control.Arm("edac", {"eta": 1.0}),
    "SAC-10 (no diversity)": control.Arm("edac", {"eta": 0.0}),
    "SAC-2 (two critics, no diversity)": control.Arm("sac_n", {}, (("n_critics", 2),)),
    "BC": control.Arm("bc"),
}


def run(seeds, scale, say):
    return control.success(ARMS, seeds, scale, say)

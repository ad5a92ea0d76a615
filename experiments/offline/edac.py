"""EDAC against BC, and against SAC on fixed data: two critics and no diversity."""

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.offline import _control as control
from jaxrl_reg.agents import edac

CLAIM = Claim(
    statement="Ten diverse critics are unsure outside the data, and their minimum keeps the policy inside: EDAC "
    "improves on its data where two critics without diversity fail. The temperature of all must learn ten times faster "
    "than published: rewards are at most 1 a step here and updates 500 times fewer, so at 3e-4 the entropy still "
    "outweighs the return when training ends, and seeds differ too much for the margin",
    paper=edac.PAPER.url,
    method="EDAC",
    baselines=("BC",),
    ablation="SAC-2 (two critics, no diversity)",
    metric="fraction of steps at the goal (pointnav)",
    margin=0.1,
    seeds=6,
    chosen="17 seeds so far: over BC 0.261, sd 0.074; 6 seeds for a power of 0.95, and half the time that 12 took",
)
TEMPERATURE = {"temperature_learning_rate": 3e-3}  # tuned on seeds 0 to 4: alpha ends at 0.01 instead of 0.26
ARMS = {
    "EDAC": Arm("edac", {"eta": 1.0, **TEMPERATURE}),
    "SAC-10 (no diversity)": Arm("edac", {"eta": 0.0, **TEMPERATURE}),
    "SAC-2 (two critics, no diversity)": Arm("sac_n", TEMPERATURE, (("n_critics", 2),)),
    "BC": Arm("bc"),
}


def run(seeds, scale, say):
    return control.success(ARMS, seeds, scale, say)

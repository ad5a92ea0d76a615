"""Diffusion-QL against BC and its own denoising alone, and against itself with next to no denoising."""

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.offline import _control as control
from jaxrl_reg.agents import diffusion_ql

CLAIM = Claim(
    statement="Values pull a diffusion policy away from its data through the whole denoising chain: above cloning, and "
    "above the same samples chosen among by the critics alone; when denoising weighs next to nothing the policy leaves "
    "the data's actions and fails",
    paper=diffusion_ql.PAPER.url,
    method="Diffusion-QL",
    baselines=("BC", "Diffusion-QL with eta 0"),
    ablation="Diffusion-QL with eta 1000",
    metric="fraction of steps at the goal (pointnav)",
    margin=0.2,
    seeds=5,
    chosen="seeds 100 to 104: over Diffusion-QL with eta 0 0.494, sd 0.057; power 1.000",
)
ETA = 0.1  # the paper's 1 is for data of partly trained policies; these actions are pure noise
CONFIG = (("candidates", 16),)
ARMS = {
    "Diffusion-QL": Arm("diffusion_ql", {"eta": ETA}, CONFIG),
    "Diffusion-QL with eta 0": Arm("diffusion_ql", {"eta": 0.0}, CONFIG),
    "Diffusion-QL with eta 1000": Arm("diffusion_ql", {"eta": 1e3}, CONFIG),
    "BC": Arm("bc"),
}


def run(seeds, scale, say):
    return control.success(ARMS, seeds, scale, say)

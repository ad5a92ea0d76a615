"""IDQL against BC, and against itself with nothing to choose from when acting."""

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.offline import _control as control
from jaxrl_reg.agents import idql

CLAIM = Claim(
    statement="A diffusion policy that only clones becomes a good one when in-sample critics choose among 16 of its "
    "samples; one sample is as good as cloning",
    paper=idql.PAPER.url,
    method="IDQL",
    baselines=("BC",),
    ablation="IDQL with one sample",
    metric="fraction of steps at the goal (pointnav)",
    margin=0.2,
    seeds=5,
    chosen="seeds 100 to 104: over BC 0.623, sd 0.027; power 1.000",
)
SMALL = (("actor_hidden", 32), ("blocks", 2), ("actor_dropout", 0.0), ("decay_steps", 0))
HYPER = {"expectile": 0.9, "actor_learning_rate": 1e-3, "actor_average_rate": 0.005}  # for 6,000 updates
ARMS = {
    "IDQL": Arm("idql", HYPER, (*SMALL, ("candidates", 16))),
    "IDQL with one sample": Arm("idql", HYPER, (*SMALL, ("candidates", 1))),
    "BC": Arm("bc"),
}


def run(seeds, scale, say):
    return control.success(ARMS, seeds, scale, say)

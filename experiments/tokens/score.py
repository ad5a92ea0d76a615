"""Does SCoRe learn to mend answers, where two-turn REINFORCE only learns to give them? Four symbols to be reversed.

The warm start shows both turns for 63 steps, after which it answers 0.4 of the prompts rightly and mostly repeats, when
it is asked again, what it answered before, wrong symbols and all. Then 100 updates of 12 prompts with 8 pairs of
answers: SCoRe with 80 updates of stage one and a bonus of 10, and plain REINFORCE on the sum of both rewards.
Accuracies of first answers pass one half in both, at different times; there, at equal first answers, second ones are
compared. A better end is not claimed: where one answer suffices both get it right in the end, and there is nothing left
to mend.
"""

from __future__ import annotations

import numpy as np

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.tokens._arms import trained
from jaxrl_reg import envs

CLAIM = Claim(
    statement="While half of the first answers are right, second answers are better than first ones with SCoRe's two "
    "stages and not with REINFORCE on both rewards",
    paper="https://arxiv.org/abs/2409.12917",
    method="SCoRe",
    baselines=("REINFORCE on both turns",),
    ablation=None,
    metric="gain of the second answer over the first where the first is right half of the time",
    systems=(20,),
    margin=0.1,
    seeds=8,
    chosen="seeds 0 to 3: over REINFORCE on both turns 0.281, sd 0.075; power 1.000",
)
ARMS = {
    "SCoRe": Arm("score", {"stage_one": 80.0, "bonus": 10.0, "kl_first": 1.0}),
    "REINFORCE on both turns": Arm("score", {"stage_one": 0.0, "bonus": 0.0}),
}
WARM_UP = 63
UPDATES, PART = 100, 5
NEAREST = 3  # parts of a run, those whose first answers are nearest to one half


def run(seeds, scale, say):
    task = envs.make("tokens/reverse", shortest=4, longest=4)
    loop = {"updates": UPDATES, "segments": UPDATES // PART, "prompts": 12, "group": 8, "warm_up": WARM_UP}
    found = trained(ARMS, task, seeds, say, {"learning_rate": 2e-3}, warm_up_batch=48, **loop)
    results, late = {}, slice(40 // PART, 80 // PART)
    for arm, metrics in found.items():
        first, second, gain = (metrics[f"train/{name}"] for name in ("return", "second/return", "gain"))
        nearest = np.argsort(np.abs(first - 0.5), axis=-1)[:, :NEAREST]
        there, at = (np.take_along_axis(values, nearest, -1) for values in (gain, first))
        results[arm] = there.mean(-1).tolist()
        ends = [f"{first[:, place].mean():.3f} / {second[:, place].mean():.3f}" for place in (0, -1)]
        say(
            f"{arm}: gain {there.mean():.3f} where first answers earn {at.mean():.2f} ({at.min():.2f} to "
            f"{at.max():.2f}); updates 40 to 80: gain {gain[:, late].mean():.3f}, divergence of the first "
            f"{metrics['kl'][:, late].mean():.2f}; from {ends[0]} to {ends[1]}"
        )
    return results

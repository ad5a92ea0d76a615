"""How wrong may the weight be? An entropy anchored to its start against a bonus on the entropy, thirtyfold each way.

Task ``split``: any pairs that add up to a number, 49 right answers of a prompt, so that a policy may be right and
uncertain. All members of a seed begin with the same warm start, which answers most prompts rightly: an anchor is as
good as its start. What counts is how many different right answers there are among 64 samples: a policy that has
collapsed gives one, one that has become noise gives none. Of each regulariser the value is that of its WORST weight,
around a good one and thirty times apart.

Between its extremes a bonus has weights at which most seeds end as diverse as with the anchor, and none of all these is
righter than GRPO.
"""

from __future__ import annotations

import numpy as np

from experiments.harness import Claim
from experiments.tokens._runs import distinct, last, sweep
from jaxrl_reg import envs
from jaxrl_reg.agents.tokens import siren

CLAIM = Claim(
    statement="At the worse of two weights thirty times apart SIREN ends with at least five more different right "
    "answers than GRPO, and than an entropy bonus at the worst of three weights as far apart",
    paper="https://arxiv.org/abs/2509.25133",
    method="SIREN, worst weight",
    baselines=("GRPO", "entropy bonus, worst weight"),
    ablation=None,
    metric="different right answers of 64",
    systems=(38,),
    margin=5.0,
    seeds=10,
    chosen="seeds 0 to 2 and 3000 to 3007 after 160 supervised steps, without the two lowest: over GRPO 20.5, sd 5.5",
    revision=2,
    note="the first revision, margin 8, missed it over GRPO by 0.6: one of eight warm starts could hardly answer",
)
ANCHOR, BONUS = (1.0, 30.0), (0.018, 0.1, 0.55)
ARMS = {
    "GRPO": {"anchor_coef": 0.0},
    **{f"SIREN, weight {weight:g}": {"anchor_coef": weight} for weight in ANCHOR},
    **{f"entropy bonus, weight {weight:g}": {"anchor_coef": 0.0, "entropy_coef": weight} for weight in BONUS},
}
CONFIG = {"hidden": (32,), "heads": 4, "epochs": 1}
SIZES = {"updates": 150, "segments": 15, "prompts": 8, "group": 8, "warm_up": 200}


def run(seeds, scale, say):
    task = envs.make("tokens/split")
    agent, result = sweep(siren, task, ARMS, seeds, say, CONFIG, {"learning_rate": 2e-3}, **SIZES)
    found = distinct(agent, task, result)
    reward, peak, entropy = (last(result, name, 5) for name in ("train/return", "peak_entropy", "entropy"))
    say(f"anchor {result.metrics['anchor'].mean():.2f} nats")
    for row, arm in enumerate(ARMS):
        say(
            f"{arm}: {found[row].mean():.1f} (sd {np.std(found[row], ddof=1):.1f}) different right answers, verified "
            f"reward {reward[row].mean():.3f} (lowest {reward[row].min():.3f}), entropy of the peaks "
            f"{peak[row].mean():.2f}, of all tokens {entropy[row].mean():.2f}"
        )
    values = dict(zip(ARMS, found.tolist(), strict=True))
    for name, weights in (("SIREN", ANCHOR), ("entropy bonus", BONUS)):
        values[f"{name}, worst weight"] = np.min([values[f"{name}, weight {w:g}"] for w in weights], axis=0).tolist()
    return values

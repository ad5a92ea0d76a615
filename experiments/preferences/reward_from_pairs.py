"""Two thousand judgements of segments on ``pointnav``: a reward first, then an offline agent.

Episodes keep one heading each, so that the actions of a place cancel: cloning stays where it is. A Bradley-Terry judge
compares the returns of segments of ten steps; a reward is learnt from that (``representation.reward_model``), put into
the data, and IQL runs on it. With labels of a tossed coin it is IQL on noise. Data and pairs are those of every seed.
The policy learnt at once from the same pairs is shown beside it, and not claimed to be worse: by DPO with its beta
chosen on seeds 0 to 5 it gets as far (``preference``); with RPO, the agent's default, it does not.
"""

from __future__ import annotations

import jax
import numpy as np

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.preferences import _commuters
from experiments.preferences._commuters import CLONING, COIN, DPO, EPISODE, HIDDEN, JUDGE, PAIRS, SEGMENT
from jaxrl_reg import data, representation
from jaxrl_reg.data import preferences
from jaxrl_reg.loops import pretrain
from jaxrl_reg.loops.pretrain import Hyper
from jaxrl_reg.types import as_float32

CLAIM = Claim(
    statement="With 2,000 judgements of segments a reward that is learnt first, and then IQL, reach the goal far more "
    "often than cloning; with labels of a tossed coin they do not. Not claimed: that it is better than the policy "
    "learnt from the pairs at once, which gets as far by DPO with a tuned beta",
    paper="https://arxiv.org/abs/1706.03741",
    method="reward from pairs, then IQL",
    baselines=("cloning",),
    ablation="reward from coin flips, then IQL",
    metric="fraction of steps at the goal (pointnav)",
    margin=0.3,
    seeds=5,
    chosen="seeds 0 to 4, see: python -m experiments power reward_from_pairs",
    revision=2,
)
IQL = Arm("iql", {"expectile": 0.9, "inverse_temperature": 10.0})


def with_learnt_reward(rows, temperature):
    """The data with a reward learnt from pairs, and how many of them it orders as the judge did."""
    pairs = preferences.judged(rows, SEGMENT, PAIRS, temperature)
    model = representation.reward_model(rows.spec, HIDDEN)
    run = pretrain(model, batch_size=64, updates=1000, segments=2, sample=preferences.batches(SEGMENT))
    state, history = jax.jit(run)(jax.random.key(0), as_float32(Hyper()), (rows, pairs))
    return representation.with_reward(rows, model, state.params), float(history["agreement"][-1])


def run(seeds, scale, say):
    rows = _commuters.shared()
    say(f"behaviour: {float(np.mean(data.episode_returns(rows))) / EPISODE:.3f} of the steps at the goal")
    results = _commuters.train({"cloning": CLONING, "preference, DPO": DPO}, rows, seeds, say)
    for words, temperature in (("pairs", JUDGE), ("coin flips", COIN)):
        paid, agreement = with_learnt_reward(rows, temperature)
        say(f"reward from {words}: orders {agreement:.2f} of the pairs as the judge did")
        results |= _commuters.train({f"reward from {words}, then IQL": IQL}, paid, seeds, say)
    return results

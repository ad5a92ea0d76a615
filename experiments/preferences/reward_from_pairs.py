"""Two ways to use two thousand judgements of segments on ``pointnav``: a policy at once, or a reward first.

Episodes keep one heading each, so that the actions of a place cancel: cloning stays where it is. A Bradley-Terry judge
compares the returns of segments of ten steps. ``preference`` learns a policy from that; the other way learns a reward
(``representation.reward_model``), puts it into the data and runs IQL. With labels of a tossed coin it is IQL on noise.
Data and pairs are the same for all seeds.
"""

from __future__ import annotations

import jax
import numpy as np

from experiments.arms import Arm, populations
from experiments.harness import Claim
from experiments.preferences._commuters import EPISODE, SEGMENT, commuters
from jaxrl_reg import data, envs, representation
from jaxrl_reg.data import preferences
from jaxrl_reg.evaluation import returns
from jaxrl_reg.loops import offline, pretrain
from jaxrl_reg.loops.pretrain import Hyper
from jaxrl_reg.types import as_float32

CLAIM = Claim(
    statement="With 2,000 judgements of segments a reward that is learnt first, and then IQL, reach the goal more "
    "often than the policy learnt from the same pairs at once, and than cloning; with labels of a tossed coin they do "
    "not",
    paper="https://arxiv.org/abs/1706.03741",
    method="reward from pairs, then IQL",
    baselines=("preference", "cloning"),
    ablation="reward from coin flips, then IQL",
    metric="fraction of steps at the goal (pointnav)",
    margin=0.1,
    seeds=5,
    chosen="seeds 0 to 4, see: python -m experiments power reward_from_pairs",
)
EPISODES, PAIRS, HIDDEN, UPDATES, BATCH, TEST = 400, 2000, (32, 32), 2000, 128, 64
COIN = 1e9  # temperature of a judge who tosses a coin
IQL = Arm("iql", {"expectile": 0.9, "inverse_temperature": 10.0})
RATES = dict.fromkeys(("learning_rate", "actor_learning_rate", "critic_learning_rate", "value_learning_rate"), 0.001)
STATIC = (("segment", SEGMENT), ("pairs", PAIRS), ("clone", UPDATES // 4))
ARMS = {
    "cloning": Arm("bc"),
    "preference": Arm("preference", config=STATIC),
}


def with_learnt_reward(rows, temperature):
    """The data with a reward learnt from pairs, and how many of them it orders as the judge did."""
    pairs = preferences.judged(rows, SEGMENT, PAIRS, temperature)
    model = representation.reward_model(rows.spec, HIDDEN)
    run = pretrain(model, batch_size=64, updates=1000, segments=2, sample=preferences.batches(SEGMENT))
    state, history = jax.jit(run)(jax.random.key(0), as_float32(Hyper()), (rows, pairs))
    return representation.with_reward(rows, model, state.params), float(history["agreement"][-1])


def run(seeds, scale, say):
    rows = commuters(jax.random.key(20_240), EPISODES)
    env = envs.make("pointnav", task="top_right", episode_length=EPISODE)
    say(f"behaviour: {float(np.mean(data.episode_returns(rows))) / EPISODE:.3f} of the steps at the goal")
    results = {}

    def train(arms, rows):
        for group in populations(arms, HIDDEN, rows.spec, {"discount": 0.9, **RATES}):
            learn = offline(
                group.agent, batch_size=BATCH, updates=UPDATES, segments=2, evaluate=returns.evaluator(env, TEST)
            )
            prepared = rows if group.agent.prepare is None else group.agent.prepare(rows)
            results.update(group.train(learn, seeds, prepared, EPISODE, say))

    train(ARMS, rows)
    for words, temperature in (("pairs", 0.25), ("coin flips", COIN)):
        paid, agreement = with_learnt_reward(rows, temperature)
        say(f"reward from {words}: orders {agreement:.2f} of the pairs as the judge did")
        train({f"reward from {words}, then IQL": IQL}, paid)
    return results

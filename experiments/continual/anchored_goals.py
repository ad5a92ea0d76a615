"""What keeps six goals while five more are learnt: no pull, L2, elastic weight consolidation, or distillation?

The grid of ``_goals``, names of goals being their places. A policy learns six goals together; then five new ones, one
after another, 120 exact policy gradients each, with a new Adam. Of what was learnt earlier nothing is kept but weights
and Fisher information: L2 and EWC (the Fisher information over the phase's states, summed over phases) pull to the
weights at the phase's start, prediction distillation (PredKD) holds the move probabilities on the NEW goal's inputs,
feature distillation (FeatKD) the last hidden layer there. Coefficients were chosen on seeds 0 to 4.

The paper classifies images, and finds plain L2 better than EWC once there is pretraining; here EWC is ahead, and what
PredKD keeps is paid for by learning less of the new goal. Without names that generalise nothing of this suffices:
rehearsal does (``power_law_rehearsal``).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments import arms
from experiments.continual import _goals
from experiments.harness import Claim
from jaxrl_reg import losses, transforms
from jaxrl_reg.evaluation import continual

OLD, NEW, UPDATES, ENTROPY = 6, 5, 120, 0.02
TERMS = ("l2", "ewc", "prediction", "features")
ARMS = {
    "plain": {},
    "L2": {"l2": 0.1},
    "EWC": {"ewc": 12.0},
    "PredKD": {"prediction": 2.0},
    "FeatKD": {"features": 0.03},
}
CLAIM = Claim(
    statement="Elastic weight consolidation keeps goals of a grid that plain fine-tuning on new goals forgets, and "
    "ends above distillation on the new goals' inputs and, against the paper's order for images, above a plain L2 pull",
    paper="https://arxiv.org/abs/2203.17269",
    method="EWC",
    baselines=("plain", "PredKD"),
    ablation="L2",
    metric="mean score over all 11 goals at the end",
    systems=(39,),
    margin=0.0,
    seeds=46,
    chosen="119 seeds so far: over L2 0.023, sd 0.043; 46 seeds for a power of 0.96",
)


def learn(goals, seen, before, weight):
    """Scores ``[1 + NEW, OLD + NEW]``: after pretraining, and after each new goal."""

    def phase(carry, which):
        start, importance = carry
        inputs, goal = seen[which], goals[which]
        teacher, features = _goals.outputs(start, inputs)

        def objective(params):
            logits, hidden = _goals.outputs(params, inputs)
            log_policy = jax.nn.log_softmax(logits)
            moved = jax.tree.map(lambda new, old: jnp.square(new - old), params, start)
            heavy = jax.tree.map(jnp.multiply, importance, moved)
            penalty = 0.5 * weight["l2"] * sum(leaf.sum() for leaf in jax.tree.leaves(moved))
            penalty += 0.5 * weight["ewc"] * sum(leaf.sum() for leaf in jax.tree.leaves(heavy))
            penalty += weight["prediction"] * losses.prediction_distillation_loss(logits, teacher).mean()
            penalty += weight["features"] * losses.feature_distillation_loss(hidden, features).mean()
            return _goals.score(jnp.exp(log_policy), goal) + ENTROPY * _goals.entropy(log_policy) - penalty

        params = _goals.ascend(objective, start, UPDATES)
        importance = transforms.accumulate(importance, _goals.fisher(params, inputs))
        return (params, importance), _goals.scores(params, seen, goals)

    begun = before, _goals.fisher(before, seen[:OLD])
    _, after = jax.lax.scan(phase, begun, OLD + jnp.arange(NEW))
    return jnp.concatenate([_goals.scores(before, seen, goals)[None], after])


def begin(key):
    """Goals ``[11]``, their observations, and a policy that has learnt the first six."""
    goal_key, policy_key = jax.random.split(key)
    goals = _goals.draw_goals(goal_key, OLD + NEW)
    seen = _goals.observations(_goals.place(goals))
    return goals, seen, _goals.pretrain(policy_key, seen[:OLD], goals[:OLD])


def matrices(seeds):
    """``{arm: scores [seeds, 1 + NEW, OLD + NEW]}``."""
    begun = arms.over_devices(begin, jnp.stack([jax.random.key(seed) for seed in seeds]))
    weights = [{name: jnp.float32(arm.get(name, 0.0)) for name in TERMS} for arm in ARMS.values()]
    return dict(zip(ARMS, _goals.crossed(learn, begun, weights), strict=True))


def run(seeds, scale, say):
    del scale  # exact and small: there is nothing to enlarge
    results = {}
    for arm, scores in matrices(seeds).items():
        results[arm] = scores[:, -1].mean(axis=-1).tolist()
        new = scores[:, 1:, OLD:]
        say(
            f"{arm}: {np.mean(results[arm]):.3f} over all goals; the 6 of before {scores[:, -1, :OLD].mean():.3f} "
            f"(they were {scores[:, 0, :OLD].mean():.3f}), the 5 new {continual.average_performance(new).mean():.3f}, "
            f"when learnt {continual.learning(new).mean():.3f}, "
            f"backward transfer {continual.backward_transfer(new).mean():+.3f}"
        )
    return results

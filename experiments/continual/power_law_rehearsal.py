"""Rehearsal by a power law of age, against regularisation and other laws, where nothing generalises between tasks.

Eight goals of the grid of ``_goals``, named at random, are learnt one after another, 120 exact policy gradients each of
``(1 - share) J_new + share sum_i w_i J_i``: a fifth of every phase is rehearsal of earlier goals, divided by their age
(``data.rehearsal``). The arm EWC has no rehearsal and is held by the Fisher information of all earlier goals.

The power law keeps what an exponential of the same rate lets go, above all the first goal, and regularisation is
nowhere near rehearsal. It does not beat the uniform division: for a mean over tasks that is the natural best of a fixed
budget, and it is as good when tasks are weighted by need (1 / age). It is shown as an arm.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.continual import _goals
from experiments.harness import Claim
from jaxrl_reg import transforms
from jaxrl_reg.data import rehearsal
from jaxrl_reg.evaluation import continual

GOALS, UPDATES, ENTROPY, SHARE = 8, 120, 0.02, 0.2
LAWS = {
    "none": None,
    "last only": ("last", 1.0),
    "exponential, d 1": ("exponential", 1.0),
    "power law, d 1": ("power", 1.0),
    "uniform": ("uniform", 1.0),
}
PULLS = {"EWC": 10.0}
CLAIM = Claim(
    statement="Rehearsing earlier goals of a grid by a power law of their age keeps more of them than no rehearsal, "
    "elastic weight consolidation, rehearsal of the last goal and an exponential law of the same rate (not more than "
    "the uniform division of the same budget)",
    paper="https://arxiv.org/abs/2401.10393",
    method="power law, d 1",
    baselines=("none", "last only", "EWC", "exponential, d 1"),
    ablation=None,
    metric="mean score over all 8 goals at the end",
    systems=(32,),
    margin=0.03,
    seeds=20,
    chosen="seeds 0 to 4: over the exponential 0.199, sd 0.140; a prototype on 20 other seeds 0.109, sd 0.073; power "
    "0.99",
)


def weights(law):
    """``[GOALS, GOALS]``: how much each goal counts in each phase."""
    phases = jnp.arange(GOALS)
    if law is None:
        return jnp.eye(GOALS)
    kind, exponent = law
    past = rehearsal.rehearsal_weights(kind, jax.vmap(lambda phase: rehearsal.ages(phase, GOALS))(phases), exponent)
    share = jnp.where(phases > 0, SHARE, 0.0)[:, None]
    return (1.0 - share) * jnp.eye(GOALS) + share * past


def learn(goals, seen, before, setting):
    """Scores ``[GOALS, GOALS]`` after each phase."""

    def phase(carry, xs):
        start, importance = carry
        which, weight = xs

        def objective(params):
            log_policy = jax.nn.log_softmax(_goals.logits(params, seen))
            scores = jax.vmap(_goals.score)(jnp.exp(log_policy), goals)
            entropy = -(jnp.exp(log_policy) * log_policy).sum(axis=-1).mean(axis=-1)
            pulled = jax.tree.map(lambda f, new, old: f * jnp.square(new - old), importance, params, start)
            held = 0.5 * setting["ewc"] * sum(leaf.sum() for leaf in jax.tree.leaves(pulled))
            return (weight * (scores + ENTROPY * entropy)).sum() - held

        params = _goals.ascend(objective, start, UPDATES)
        importance = transforms.accumulate(importance, _goals.fisher(params, seen[which]))
        return (params, importance), _goals.scores(params, seen, goals)

    nothing = jax.tree.map(jnp.zeros_like, before)
    return jax.lax.scan(phase, (before, nothing), (jnp.arange(GOALS), setting["weights"]))[1]


def begin(key):
    """Goals ``[8]``, their observations, and a policy that has learnt nothing."""
    goal_key, name_key, policy_key = jax.random.split(key, 3)
    seen = _goals.observations(_goals.random_names(name_key, GOALS))
    return _goals.draw_goals(goal_key, GOALS), seen, _goals.initial(policy_key)


def matrices(seeds):
    """``{arm: scores [seeds, GOALS, GOALS]}``."""
    settings = {arm: {"weights": weights(law), "ewc": jnp.float32(0.0)} for arm, law in LAWS.items()}
    settings |= {arm: {"weights": weights(None), "ewc": jnp.float32(pull)} for arm, pull in PULLS.items()}
    starts = jax.vmap(begin)(jnp.stack([jax.random.key(seed) for seed in seeds]))
    return dict(zip(settings, _goals.crossed(learn, starts, list(settings.values())), strict=True))


def run(seeds, scale, say):
    del scale  # exact and small: there is nothing to enlarge
    need = 1.0 / np.arange(GOALS, 0, -1)
    results = {}
    for arm, scores in matrices(seeds).items():
        last = scores[:, -1]
        results[arm] = last.mean(axis=-1).tolist()
        say(
            f"{arm}: {last.mean():.3f} over all goals, by need {(last * need / need.sum()).sum(-1).mean():.3f}; the "
            f"first goal {last[:, 0].mean():.3f}, a new one when learnt {continual.learning(scores).mean():.3f}, "
            f"backward transfer {continual.backward_transfer(scores).mean():+.3f}"
        )
    return results

"""Losses that change every episode, seen only along the way, under linear features: what does a learner regret?

Random linear processes (3 steps, 4 states, 4 actions, 3 features, Dirichlet(0.2): far from orthogonal); losses are
Bernoulli, one feature of each step better by 0.2, and from a third of 1,024 episodes on another one by 0.4. Regret is
exact, against the best policy in hindsight; a learner that follows the switch can have a negative one.

Each arm may use what its own analysis permits: entropy on plain estimates only small steps (``eta H <= gamma``), on
reduced ones larger (``eta H <= sqrt(gamma)``), the log barrier any. All arms had the twelve settings of ``grid`` on
seeds 0 to 9 and keep their best, ``CHOSEN``; importance weighting had another twelve before, of larger steps, the best
of which were no better. Entropy with a step that its analysis forbids is reported beside them: on losses like these it
is as good as the barrier, so what costs is the restriction, not an instability. Orders in the number of episodes cannot
be told apart at such lengths.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from jaxrl_reg.tabular import adversarial

CLAIM = Claim(
    statement="Against losses that switch once, the log barrier on plain linear estimates regrets less than negative "
    "entropy with the steps that its analysis permits, and less than importance weighting; all with the best of twelve "
    "settings (entropy with a forbidden step is as good)",
    paper="https://arxiv.org/abs/2301.12942",
    method="log barrier",
    baselines=("entropy, permitted step", "importance weighting"),
    ablation=None,
    metric="regret after 1,024 episodes",
    systems=(68,),
    higher_is_better=False,
    margin=15.0,
    seeds=10,
    chosen="seeds 0 to 9: over importance weighting 117, sd 56; power 0.999",
)
STEPS, STATES, ACTIONS, FEATURES, GAP = 3, 4, 4, 3, 0.2
EPISODES = {"small": 1_024, "full": 4_096}
KINDS = {  # regulariser and estimator
    "log barrier": ("log_barrier", "plain"),
    "entropy, reduced estimates": ("entropy", "magnitude_reduced"),
    "entropy, permitted step": ("entropy", "plain"),
    "importance weighting": ("entropy", "importance"),
    "entropy, forbidden step": ("entropy", "plain"),
}


def grid(arm, episodes):
    """The twelve ``(step size, ridge)`` of an arm, with the rates in the number of episodes that its analysis gives."""
    fine = [10.0 ** (power / 4) for power in range(1, 13)]
    if arm == "entropy, permitted step":
        return [(ridge / STEPS, ridge) for ridge in (scale * episodes ** (-2 / 3) for scale in fine)]
    if arm == "entropy, reduced estimates":
        return [(ridge**0.5 / STEPS, ridge) for ridge in (scale / episodes for scale in fine)]
    bandit = arm == "importance weighting"
    sizes = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0) if bandit else (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    ridges = (1.0, 10.0) if bandit else (3.0, 30.0)
    return [(size / episodes**0.5, ridge / episodes) for size in sizes for ridge in ridges]


CHOSEN = {  # place in the grid
    "log barrier": 7,
    "entropy, reduced estimates": 5,
    "entropy, permitted step": 4,
    "importance weighting": 2,
    "entropy, forbidden step": 2,
}


@functools.partial(jax.jit, static_argnames=("arm", "episodes"))
@functools.partial(jax.vmap, in_axes=(0, None, None, None, None))
@functools.partial(jax.vmap, in_axes=(None, 0, 0, None, None))
def regrets(key, step_size, ridge, arm, episodes):
    """``(regret, smallest estimate)``, each ``[seeds, settings]``."""
    process_key, loss_key, run_key = jax.random.split(key, 3)
    process, features = adversarial.linear_process(process_key, STATES, ACTIONS, FEATURES, STEPS)
    coefficients = adversarial.adversary(loss_key, episodes, STEPS, FEATURES, "switch", GAP)
    losses = adversarial.linear_losses(features, coefficients)
    regulariser, estimator = KINDS[arm]
    trace = adversarial.optimise_policy(
        run_key, process, losses, features, step_size, ridge, regulariser=regulariser, estimator=estimator
    )
    return trace.regret[-1], trace.estimate_min.min()


def run(seeds, scale, say, arms=tuple(KINDS)):
    episodes = EPISODES[scale]
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    results = {}
    for arm in arms:
        step_size, ridge = grid(arm, episodes)[CHOSEN[arm]]
        regret, least = regrets(keys, jnp.array([step_size]), jnp.array([ridge]), arm, episodes)
        results[arm] = np.asarray(regret)[:, 0].tolist()
        say(
            f"{arm}, step size {step_size:.3g}, ridge {ridge:.3g}: regret {np.mean(results[arm]):.1f}, "
            f"smallest estimate {float(least.min()):.0f}"
        )
    return results

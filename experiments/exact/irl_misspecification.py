"""Inverse RL with a wrong model of whom it watches: which mistakes leave the inferred reward meaningless?

Random processes (8 states, 4 actions, rows Dirichlet(0.3), discount 0.9) and rewards N(0, 1), one for each seed; exact
policies of a Boltzmann (inverse temperature 2) or maximum-causal-entropy human (temperature 0.5). Everything that is
equally consistent with the policy under the assumed model counts as inferred, and the metric is the worst of it: the
STARC distance from the true reward in the true process, 0 for the same order of policies and 1 for the opposite.

This is what behaviour cannot exclude, and half of the truth. Whoever takes the smallest of the consistent rewards is
off by a hundredth for the same mistakes; those errors are recorded beside the claim and printed, as is how far random
potentials of growing size come towards the worst case, and what the policies of the inferred rewards lose.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from jaxrl_reg.tabular import misspecification
from jaxrl_reg.tabular.misspecification import boltzmann, maximum_causal_entropy

CLAIM = Claim(
    statement="A wrong temperature, ten times too high or seven times, does not mislead inverse RL; a discount of 0.89 "
    "instead of 0.9 or dynamics that are wrong by 1% leave rewards consistent with all behaviour that order policies "
    "almost the opposite way (the least of the consistent rewards is off by a hundredth only)",
    paper="https://arxiv.org/abs/2403.06854",
    method="temperature",
    baselines=("discount 0.89", "1% of the dynamics"),
    ablation=None,
    metric="worst STARC distance of a consistent reward",
    systems=(71,),
    higher_is_better=False,
    margin=0.5,
    seeds=10,
    chosen="seeds 0 to 9: over 1% of the dynamics 0.864, sd 0.039; power 1.000",
)
STATES, ACTIONS, CONCENTRATION, DISCOUNT = 8, 4, 0.3, 0.9
BETA, ALPHA = 2.0, 0.5
DISCOUNTS, SHARES = (0.89, 0.85, 0.8, 0.95, 0.99), (0.01, 0.1)
POTENTIALS, FACTORS = (1.0, 10.0, 100.0, 1000.0), (1.0, 0.1, 0.01, 0.001)


def draw(key):
    """``(transition, another one, reward, potential [S])``."""
    keys = jax.random.split(key, 4)
    rows = jnp.full(STATES, CONCENTRATION)
    first, second = (jax.random.dirichlet(key, rows, (STATES, ACTIONS)) for key in keys[:2])
    return first, second, jax.random.normal(keys[2], (STATES, ACTIONS)), jax.random.normal(keys[3], (STATES,))


@jax.jit
@jax.vmap
def measure(key):
    """Errors by mistake, ``{mistake: Error}``, and what goes beside them, for one seed of ``key [seeds]``."""
    transition, other, reward, potential = draw(key)
    process = (transition, DISCOUNT)
    people = {"Boltzmann": boltzmann(BETA), "MCE": maximum_causal_entropy(ALPHA)}
    human = people["Boltzmann"]

    def error(truth, assumed, *wrong):
        return misspecification.inference_error(reward, (truth, *process), (assumed, *(wrong or process)))

    found = {
        "inverse temperature": error(human, boltzmann(BETA / 10)),
        "temperature of entropy": error(people["MCE"], maximum_causal_entropy(7 * ALPHA)),
        "Boltzmann for MCE": error(people["MCE"], human),
        "MCE for Boltzmann": error(human, people["MCE"]),
    }
    for discount in DISCOUNTS:
        found[f"discount {discount}"] = error(human, human, transition, discount)
    for share in SHARES:
        mixed = (1 - share) * transition + share * other
        found[f"{100 * share:.0f}% of the dynamics"] = error(human, human, mixed, DISCOUNT)

    inferred = human.reward(human.policy(reward, *process))
    shaping = misspecification.shaping(transition, 0.85) @ potential
    candidates = inferred + jnp.asarray((0.0, *POTENTIALS))[:, None, None] * shaping
    distances = jax.vmap(lambda reward_: misspecification.starc_distance(reward, reward_, *process))(candidates)
    lost = jax.vmap(lambda reward_: misspecification.decision_loss(reward, reward_, *process))(candidates)
    gaps = {
        name: misspecification.perturbation_gap(reward, behaviour, *process, jnp.asarray(FACTORS))
        for name, behaviour in people.items()
    }
    return found, distances, lost, gaps


def run(seeds, scale, say):
    del scale  # exact and small: there is nothing to enlarge
    found, distances, lost, gaps = measure(jnp.stack([jax.random.key(seed) for seed in seeds]))
    results = {}
    for mistake, error in found.items():
        typical, worst = np.asarray(error.typical), np.asarray(error.worst)
        say(f"{mistake}: least {typical.mean():.2g} (to {typical.max():.2g}), worst {worst.mean():.3f}")
        results[mistake] = worst.tolist()
        results[f"{mistake}, least"] = typical.tolist()
    both = [results[mistake] for mistake in ("inverse temperature", "temperature of entropy")]
    results["temperature"] = np.max(both, axis=0).tolist()
    say(f"discount 0.85 with random potentials of scale 0, {', '.join(f'{size:g}' for size in POTENTIALS)}: distance")
    say(f"  {np.round(distances.mean(0), 3)}, share of the return that is lost {np.round(lost.mean(0), 3)}")
    for name, gap in gaps.items():
        say(f"{name}: policies of t r and -t r at t = {FACTORS} differ by {np.round(gap.mean(0), 4)}")
    return results

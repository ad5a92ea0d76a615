"""Where does probability go when a network learns from pairs? Four prompts, ten responses, one pair for each prompt.

The reference gives the chosen and the rejected response 0.4 ("on-policy") or 0.02 ("off-policy") each, in all four
mixtures. Gradient descent on all pairs, 2,500 steps; all masses are exact. What DPO takes from the rejected goes to the
responses that no pair shows (dispersion), most where both were unlikely. Two cures: a smaller beta for the rejected
(Flex-DPO), and the likelihood of the chosen beside the loss (SFT-DPO). Neither keeps the rejected response likely: with
Flex-DPO it falls further than with DPO, since only that is left to lower the loss.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import Claim
from experiments.preferences._fit import fit, forward, keys, mlp
from jaxrl_reg import losses
from jaxrl_reg.evaluation.preferences import displacement

CLAIM = Claim(
    statement="Off-policy pairs let DPO spread probability over responses that no pair shows; a smaller beta for the "
    "rejected (Flex-DPO) brings the chosen's probability above DPO's, though the rejected falls further",
    paper="https://arxiv.org/abs/2406.07327",
    method="Flex-DPO, off-policy",
    baselines=("DPO, off-policy",),
    ablation=None,
    metric="final probability of the chosen response",
    systems=(44,),
    margin=0.1,
    seeds=10,
    chosen="seeds 0 to 9: over DPO 0.336, sd 0.114; power 1.000",
)
PROMPTS, RESPONSES, WIDTH, STEPS, RATE = 4, 10, 64, 2500, 0.5
MIXTURES = {  # probabilities of the chosen and of the rejected under the reference
    "off-policy": (0.02, 0.02),
    "on-policy": (0.4, 0.4),
    "chosen on-policy": (0.4, 0.02),
    "rejected on-policy": (0.02, 0.4),
}
ARMS = {  # beta of the chosen, of the rejected, weight of the likelihood
    "DPO": (1.0, 1.0, 0.0),
    "Flex-DPO": (1.0, 0.3, 0.0),
    "SFT-DPO": (1.0, 1.0, 0.1),
    "Flex-DPO, beta of the rejected 0.1": (1.0, 0.1, 0.0),
    "DPO, beta 0.1": (0.1, 0.1, 0.0),
}


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None, None))
@functools.partial(jax.vmap, in_axes=(None, 0, None))
def trained(key, mixture, settings):
    """``[seeds, mixtures, arms]`` of each: probability of the chosen at the end and at its highest, log-probability of
    the rejected, mass on what no pair shows."""
    pair_key, init_key, fit_key = jax.random.split(key, 3)
    pairs = jax.vmap(lambda key: jax.random.permutation(key, RESPONSES)[:2])(jax.random.split(pair_key, PROMPTS))
    prompts, rows = jnp.eye(PROMPTS), jnp.arange(PROMPTS)
    wanted = jnp.full((PROMPTS, RESPONSES), (1.0 - mixture.sum()) / (RESPONSES - 2))
    wanted = wanted.at[rows, pairs[:, 0]].set(mixture[0]).at[rows, pairs[:, 1]].set(mixture[1])

    def cloning(params, _):
        return losses.cross_entropy_loss(forward(params, prompts), wanted).mean()

    start = fit(fit_key, mlp(init_key, (PROMPTS, WIDTH, WIDTH, WIDTH, RESPONSES)), cloning, rows, 2000, rate=3e-3)
    ref = jax.nn.log_softmax(forward(start, prompts))

    def arm(setting):
        beta_chosen, beta_rejected, weight = setting

        def loss(params, pairs):
            logps = jax.nn.log_softmax(forward(params, prompts))
            chosen, rejected = logps[rows, pairs[:, 0]], logps[rows, pairs[:, 1]]
            pair = chosen, rejected, ref[rows, pairs[:, 0]], ref[rows, pairs[:, 1]]
            return (losses.flex_dpo_loss(*pair, beta_chosen, beta_rejected) - weight * chosen).mean()

        def measure(params):
            return jnp.exp(jax.nn.log_softmax(forward(params, prompts))[rows, pairs[:, 0]]).mean()

        params, trace = fit(fit_key, start, loss, pairs, STEPS, optimiser=optax.sgd(RATE), measure=measure)
        policy = jax.nn.log_softmax(forward(params, prompts))
        moved = displacement(policy, ref, pairs[:, 0], pairs[:, 1])
        return trace[-1], trace.max(), policy[rows, pairs[:, 1]].mean(), moved["unseen_mass"]

    return jax.vmap(arm)(settings)


def run(seeds, scale, say):
    found = trained(keys(seeds), jnp.array(list(MIXTURES.values())), jnp.array(list(ARMS.values())))
    chosen, highest, rejected, unseen = (np.asarray(part) for part in found)
    results = {}
    for column, mixture in enumerate(MIXTURES):
        for row, arm in enumerate(ARMS):
            place = slice(None), column, row
            results[f"{arm}, {mixture}"] = chosen[place].tolist()
            chosen_at = f"chosen {chosen[place].mean():.3f} (at its highest {highest[place].mean():.3f})"
            others = f"log of the rejected {rejected[place].mean():.1f}, unseen {unseen[place].mean():.3f}"
            say(f"{arm}, {mixture}: {chosen_at}, {others}")
    return results

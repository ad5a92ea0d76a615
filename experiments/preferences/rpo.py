"""Pairs that cover a quarter of the actions well: what does a likelihood term beside the loss of pairs save?

Bandits of 40 actions with rewards uniform in [0, 2]; 200 labels of a Bradley-Terry judge, whose pairs hardly ever show
30 of the actions. Policies are tables, trained to the end from the reference; sixteen bandits are a seed. The metric is
what the theorem is about, ``E r - beta KL(pi || ref)``, exact; the plain expected reward is printed too.

DPO is also given an oracle that stops a seed's sixteen bandits at the best of the 4,000 steps. It stays below RPO here;
with beta = 0.3 instead of 0.1 (looked at on seeds 0 to 9) the two are alike, since less can be lost.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from experiments.preferences._fit import fit, keys, value
from jaxrl_reg import losses
from jaxrl_reg.losses import kl_regularised_value

CLAIM = Claim(
    statement="Where pairs cover few actions, DPO with the likelihood of the chosen beside it (RPO, eta 0.1) ends with "
    "a higher regularised reward than DPO, than DPO that an oracle stops at the step best for all bandits, and than "
    "the likelihood alone",
    paper="https://arxiv.org/abs/2405.16436",
    method="RPO",
    baselines=("DPO, stopped by an oracle", "SFT alone"),
    ablation="DPO",
    metric="expected reward - 0.1 KL to the reference",
    systems=(36,),
    margin=0.05,
    seeds=10,
    chosen="seeds 0 to 9: over DPO, stopped by an oracle 0.100, sd 0.018; power 1.000",
)
ACTIONS, COVERED, LABELS, BANDITS, BETA, STEPS, RATE = 40, 10, 200, 16, 0.1, 4000, 0.02
ETAS = {"RPO": 0.1, "DPO": 0.0, "RPO, eta 0.02": 0.02, "RPO, eta 0.5": 0.5}


def world(key):
    """Reward and reference ``[ACTIONS]``, and pairs ``(chosen, rejected) [LABELS]``."""
    reward_key, ref_key, data_key, pair_key, judge_key = jax.random.split(key, 5)
    reward = jax.random.uniform(reward_key, (ACTIONS,), maxval=2.0)
    ref = jax.nn.log_softmax(0.3 * jax.random.normal(ref_key, (ACTIONS,)))
    shown = jnp.where(jnp.arange(ACTIONS) < COVERED, 0.0, -2.0)
    pairs = jax.random.categorical(pair_key, shown + 0.3 * jax.random.normal(data_key, (ACTIONS,)), shape=(2, LABELS))
    better = jax.random.bernoulli(judge_key, jax.nn.sigmoid(reward[pairs[0]] - reward[pairs[1]]))
    return reward, ref, (jnp.where(better, pairs[0], pairs[1]), jnp.where(better, pairs[1], pairs[0]))


def trained(key, reward, ref, pairs, loss):
    """``(E r, KL, J)`` after every step, ``[STEPS, 3]``."""

    def of_all(logits, rows):
        logps = jax.nn.log_softmax(logits)
        return loss(logps[rows[0]], logps[rows[1]], ref[rows[0]], ref[rows[1]]).mean()

    def measure(logits):
        return jnp.stack(value(jax.nn.log_softmax(logits), reward, ref, BETA))

    return fit(key, ref, of_all, pairs, STEPS, rate=RATE, measure=measure)[1]


@jax.jit
@jax.vmap
@jax.vmap
def bandit(key):
    """By arm ``[seeds, BANDITS, STEPS, 3]``, and the best J that there is."""
    reward, ref, pairs = world(key)

    def with_eta(eta):
        def loss(chosen, rejected, ref_chosen, ref_rejected):
            return losses.rpo_loss(chosen, rejected, ref_chosen, ref_rejected, chosen, BETA, eta)

        return trained(key, reward, ref, pairs, loss)

    both = jax.vmap(with_eta)(jnp.array(list(ETAS.values())))
    sft = trained(key, reward, ref, pairs, lambda chosen, *others: -chosen)
    return dict(zip(ETAS, both, strict=True)) | {"SFT alone": sft}, kl_regularised_value(reward, ref, BETA)[0]


def run(seeds, scale, say):
    found, best = bandit(jax.vmap(functools.partial(jax.random.split, num=BANDITS))(keys(seeds)))
    say(f"best possible {np.mean(best):.3f}")
    results = {}
    for arm, trace in found.items():
        trace = np.asarray(trace)
        expected, divergence, regularised = np.moveaxis(trace[:, :, -1].mean(1), -1, 0)
        results[arm] = regularised.tolist()
        say(f"{arm}: J {regularised.mean():.3f}, E r {expected.mean():.3f}, KL {divergence.mean():.3f}")
        if arm == "DPO":
            stopped, each = trace[..., 2].mean(1).max(1), trace[..., 2].max(2).mean(1)
            results["DPO, stopped by an oracle"] = stopped.tolist()
            say(f"DPO, stopped by an oracle: J {stopped.mean():.3f}; in each bandit apart {each.mean():.3f}")
    return results

"""Does a reward model learnt from outcomes alone find the token that makes an answer wrong? Five symbols reversed.

The policy stands still where a warm start of 63 steps left it, a third of its answers right, and OREAL's reward model
learns from 160 batches of 16 prompts with 8 answers. As released it fits the mean score of whole answers; how that is
spread over six tokens is then free, and it says "wrong" from the first token on. Judging every prefix ties it down. In
wrong answers the largest fall of the probability of being right, from one half before the first token, should be at the
first wrong token. Means over the batches of the last five of 16 segments, 640 answers. That OREAL learns faster for it
is not claimed: at this size it did not.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.tokens._arms import HIDDEN, trained
from jaxrl_reg import envs, losses
from jaxrl_reg.losses.verified import running_mean
from jaxrl_reg.networks.tokens import token_scorer

CLAIM = Claim(
    statement="OREAL's reward model finds the first wrong token of a wrong answer if it judges every prefix, not if it "
    "judges whole answers as released",
    paper="https://arxiv.org/abs/2502.06781",
    method="every prefix",
    baselines=("whole answers, as released",),
    ablation=None,
    metric="share of wrong answers whose largest fall is at the first wrong token",
    systems=(72,),
    margin=0.2,
    seeds=7,
    chosen="seeds 0 to 3: over whole answers, as released 0.327, sd 0.070; power 0.977",
)
ARMS = {
    "every prefix": Arm("oreal"),
    "whole answers, as released": Arm("oreal", config=(("prefixes", False),)),
}
STILL = {"learning_rate": 0.0, "score_learning_rate": 2e-3}
WARM_UP = 63
LAST = 5  # segments


def largest_fall(score, mask):
    """At which token ``[...]`` the probability of being right falls most, from one half before the first."""
    likely = jax.nn.sigmoid(running_mean(score, mask))
    before = jnp.concatenate([jnp.full((*likely.shape[:-1], 1), 0.5), likely[..., :-1]], axis=-1)
    return jnp.argmax(jnp.where(mask > 0, before - likely, -jnp.inf), axis=-1)


def credit(task):
    """``Agent.measure``: where the reward model's probability falls, and its weights before, at and without a fault."""
    scorer = token_scorer(task.spec, HIDDEN)

    def measure(state, batch, hyper, key):
        prompt = jnp.broadcast_to(batch.prompt[:, None], (*batch.completion.shape[:2], batch.prompt.shape[-1]))
        score = scorer.apply(state.kept.params, prompt, batch.completion)
        right = jax.vmap(task.solve, (0, None))(batch.prompt, key)[:, None]
        fault = (batch.completion != right) & (batch.mask > 0)
        wrong = (batch.reward == 0) & fault.any(-1)
        first, at = jnp.argmax(fault, axis=-1), jnp.arange(fault.shape[-1])
        above, below = losses.score_weights(score, batch.mask)
        hit, later = largest_fall(score, batch.mask) == first, (wrong & (first > 0))[..., None]
        return {
            "hit": losses.masked_mean(hit.astype(jnp.float32), wrong.astype(jnp.float32)),
            "before": losses.masked_mean(below, (later & (at < first[..., None])).astype(jnp.float32)),
            "fault": losses.masked_mean(below, (later & (at == first[..., None])).astype(jnp.float32)),
            "above": losses.masked_mean(above, batch.mask * batch.reward[..., None]),
        }

    return measure


def run(seeds, scale, say):
    task = envs.make("tokens/reverse", shortest=5, longest=5)
    loop = {"updates": 160, "segments": 16, "prompts": 16, "group": 8, "warm_up": WARM_UP}
    found = trained(ARMS, task, seeds, say, STILL, measure=credit(task), **loop)
    results = {}
    for arm, metrics in found.items():
        hit, before, fault, above = (metrics[name][:, -LAST:].mean(-1) for name in ("hit", "before", "fault", "above"))
        results[arm] = hit.tolist()
        weights = f"w- {before.mean():.2f} before the first wrong token and {fault.mean():.2f} at it"
        say(
            f"{arm}: hit {hit.mean():.2f}; {weights}; w+ {above.mean():.2f}; right {metrics['train/return'].mean():.2f}"
        )
    return results

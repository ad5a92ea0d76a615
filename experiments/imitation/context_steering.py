"""Advisers of which some mislead: a bandit whose context is twenty claims, and an answerer that trusts rare ones.

There are 8 answers. Appropriate segments claim the right one, inappropriate ones a common wrong one, and three claims
in ten are random; a segment's kind is the exclusive or of the signs of two of its four markers. The base was trained to
answer with probabilities proportional to 1 - 0.8^n of each answer's n claims: Rescorla-Wagner strengths without
competition, by which what is rare is over-weighted. It is tuned twice for 600 steps: first on 100 prompts of which half
of the segments mislead, then on 100 more with one or two as well; an arm that judges first learns nothing else in the
first 600. Metric: probability of the right answer, mean over contaminations of 0, 5, ... 95%.

The joint loss teaches the judge through the answer as well. Looked at and not claimed: that the prompts with little
contamination help (half of the segments misleading, throughout, serves as well); and at 95%, one right adviser in
twenty, nothing here answers well.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from experiments.preferences._fit import fit, forward, keys, mlp
from jaxrl_reg import losses

CLAIM = Claim(
    statement="Tuned to judge the segments of its context and to answer from what it judges appropriate, on even "
    "contexts and a few with little contamination (Rescorla-Wagner steering), an answerer is right more often over all "
    "contaminations than one tuned on answers alone, than behind a filter, untuned or tuned on clean contexts, and "
    "than one that learns to judge first",
    paper="https://arxiv.org/abs/2509.04500",
    method="joint",
    baselines=("answers only", "filter before the base", "filter, tuned on clean contexts", "judge first"),
    ablation=None,
    metric="probability of the right answer, mean over contaminations",
    systems=(66,),
    margin=0.02,
    seeds=6,
    chosen="seeds 0 and 1: over judge first 0.049, sd 0.005; power above 0.99",
)
ANSWERS, SEGMENTS, MARKERS, PROMPTS, TEST = 8, 20, 4, 100, 100
NONE, SOFT, HELD, HARD = range(4)  # the gate: none, of the judge, the same without a gradient, a threshold
EVEN, BOTH, CLEAN = range(3)  # prompts to tune on
UNTUNED = {"base": NONE, "filter before the base": HARD}
JUDGES, REPLIES, STEERS = (0.0, 1.0, BOTH), (1.0, 0.0, BOTH), (1.0, 1.0, BOTH)
ARMS = {  # the gate, and twice: weights of answers and of judgements, prompts
    "filter, tuned on clean contexts": (HARD, JUDGES, (1.0, 0.0, CLEAN)),
    "filter, tuned on what is left": (HARD, JUDGES, REPLIES),
    "answers only": (NONE, (1.0, 0.0, EVEN), REPLIES),
    "judge first": (HELD, JUDGES, REPLIES),
    "joint, even contexts": (SOFT, (1.0, 1.0, EVEN), (1.0, 1.0, EVEN)),
    "joint": (SOFT, (1.0, 1.0, EVEN), STEERS),
}
UPDATES = 600  # of each of the two


def contexts(key, wrong):
    """Prompts with ``wrong [B]`` inappropriate segments: claims and markers ``[B, SEGMENTS, 12]``, which segments those
    are ``[B, SEGMENTS]``, the right answer, one-hot, and how often each is claimed ``[B, ANSWERS]``."""
    keys = jax.random.split(key, 6)
    size = len(wrong), SEGMENTS
    label = (jnp.arange(SEGMENTS) < wrong[:, None]).astype(jnp.float32)  # in any order: an answer sees their mean
    right = jax.random.randint(keys[0], size[:1], 0, ANSWERS)
    other = (right + jax.random.randint(keys[1], size[:1], 1, ANSWERS)) % ANSWERS
    meant = jnp.where(label > 0, other[:, None], right[:, None])
    anything = jax.random.randint(keys[2], size, 0, ANSWERS)
    claim = jax.nn.one_hot(jnp.where(jax.random.bernoulli(keys[3], 0.3, size), anything, meant), ANSWERS)
    sign = jax.random.rademacher(keys[4], (*size, MARKERS)).astype(jnp.float32)
    sign = sign.at[..., 1].set(sign[..., 0] * (1.0 - 2.0 * label))  # two signs differ where it is inappropriate
    marker = sign * jnp.abs(jax.random.normal(keys[5], (*size, MARKERS)))
    return jnp.concatenate([claim, marker], -1), label, jax.nn.one_hot(right, ANSWERS), claim.sum(1)


def relu(params, x):
    return forward(params, x, jax.nn.relu)


def judged(params, segments):
    return relu(params["judge"], segments)[..., 0]


def answer(params, segments, gate):
    """Logits ``[B, ANSWERS]``, and the judgements ``[B, SEGMENTS]``."""
    judgement = judged(params, segments)
    still = jax.lax.stop_gradient(judgement)
    gates = [jnp.full_like(judgement, -40.0), judgement, still, jnp.where(still > 0, 40.0, -40.0)]
    pooled = losses.weigh_segments(relu(params["encoder"], segments), jnp.stack(gates)[gate])
    return relu(params["head"], pooled), judgement


def cloning(params, rows):
    count_key, key = jax.random.split(rows[0])
    segments, _, _, claims = contexts(key, jax.random.randint(count_key, (64,), 0, SEGMENTS + 1))
    strength = 1.0 - 0.8**claims
    logits, _ = answer(params, segments, NONE)
    return losses.cross_entropy_loss(logits, strength / strength.sum(-1, keepdims=True)).mean()


def tuning_prompts(key):
    """Contexts ``[3, 2 PROMPTS, ...]``: half of the segments mislead (each twice), half or few of them, none."""
    even_key, few_key, count_key, clean_key = jax.random.split(key, 4)
    even = contexts(even_key, jnp.full(PROMPTS, SEGMENTS // 2))
    few = contexts(few_key, jax.random.randint(count_key, (PROMPTS,), 1, 3))
    twice, both = (jax.tree.map(lambda *parts: jnp.concatenate(parts), even, other) for other in (even, few))
    clean = contexts(clean_key, jnp.zeros(2 * PROMPTS, int))
    return jax.tree.map(lambda *parts: jnp.stack(parts), twice, both, clean)  # EVEN, BOTH, CLEAN


@jax.jit
@jax.vmap
def trained(key):
    """Probability of the right answer, share of right judgements: ``[seeds, UNTUNED + ARMS, contaminations]`` each."""
    keys = jax.random.split(key, 7)
    sizes = {"judge": (12, 48, 1), "encoder": (12, 48, 24), "head": (24, 32, ANSWERS)}
    inits = zip(sizes.items(), jax.random.split(keys[0], 3), strict=True)
    start = {name: mlp(key, size) for (name, size), key in inits}
    base = fit(keys[1], start, cloning, jax.random.split(keys[2], 4000), 1500, 1, rate=3e-3)
    prompts = tuning_prompts(keys[3])

    def tuned(key, params, gate, stage):
        of_answer, of_judgement, which = stage

        def loss(params, rows):
            segments, label, right, _ = rows
            logits, judgement = answer(params, segments, gate)
            replied = losses.judged_answer_loss(logits, right, judgement, label, 0.0)
            both = losses.judged_answer_loss(logits, right, judgement, label)
            return (of_judgement * (both - replied) + of_answer * replied).mean()

        return fit(key, params, loss, [column[which] for column in prompts], UPDATES, 32, rate=3e-3)

    def arm(gate, first, second):
        begun = tuned(keys[4], base, gate, first)
        return begun, tuned(keys[5], begun, gate, second)

    def probability(params, gate, wrong):
        segments, label, right, _ = contexts(jax.random.fold_in(keys[6], wrong), jnp.full(TEST, wrong))
        logits, judgement = answer(params, segments, gate)
        return (jax.nn.softmax(logits) * right).sum(-1).mean(), ((judgement > 0) == (label > 0)).mean()

    gates, *stages = jax.tree.map(lambda *leaves: jnp.array(leaves), *ARMS.values())
    begun, after = jax.vmap(arm)(gates, *stages)
    judge = jax.tree.map(lambda leaf: leaf[0], begun)  # has learnt to judge, and nothing else
    policies = jax.tree.map(
        lambda one, other, many: jnp.concatenate([jnp.stack([one, other]), many]), base, judge, after
    )
    over = jax.vmap(probability, (None, None, 0))
    gates = jnp.concatenate([jnp.array([*UNTUNED.values()]), gates])
    return jax.vmap(over, (0, 0, None))(policies, gates, jnp.arange(SEGMENTS))


def run(seeds, scale, say):
    values, judgements = (np.asarray(part) for part in trained(keys(seeds)))
    arms = (*UNTUNED, *ARMS)
    for column, arm in enumerate(arms):
        at = (f"{100 * place // SEGMENTS}%: {values[:, column, place].mean():.3f}" for place in (0, 1, 10, 15, 19))
        right = judgements[:, column].mean()
        say(f"{arm}: {values[:, column].mean():.3f}; at {', '.join(at)}; {right:.3f} of the judgements are right")
    return {arm: values[:, column].mean(-1).tolist() for column, arm in enumerate(arms)}

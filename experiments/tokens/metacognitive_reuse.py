"""A handbook of what recurs in a policy's own traces: given back in the prompt, does it shorten the answers?

Six operations, each of three primitive steps modulo 5, drawn anew for every seed; three of them make a problem. The
base is warmed up on half blank prompts with long traces and half RANDOM hints with short ones, which can only be
followed by reading them. The handbook is found in 256 blank traces of the base, sampled and verified. Hints are then
those of the handbook, the true ones, the handbook shifted by one operation, or wrong everywhere; 512 fresh problems are
answered greedily and judged by the operations themselves, whatever the hints say.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.arms import over_devices
from experiments.harness import Claim
from jaxrl_reg.agents.tokens import grpo
from jaxrl_reg.data import behaviours
from jaxrl_reg.envs.tokens import Procedures
from jaxrl_reg.loops.rlvr import judged, rlvr

CLAIM = Claim(
    statement="With the handbook of its own verified traces in the prompt a policy gives at least 0.8 more right "
    "answers for the tokens of one long trace than without hints, twice as many but for a loss of accuracy of at most "
    "a tenth, than with the handbook of other operations, and than with wrong hints, which it obeys",
    paper="https://arxiv.org/abs/2509.13237",
    method="own handbook",
    baselines=("no hints", "handbook of other operations"),
    ablation="every hint wrong",
    metric="right answers per 12 tokens that are written",
    systems=(10,),
    margin=0.8,
    seeds=6,
    chosen="seeds 0, 1 and 3000 to 3003: over no hints 0.951, sd 0.076; over hints that are all wrong 1.535, sd 0.197",
)
OPERATIONS, PRIMITIVES, MODULUS, TRACES, PROBLEMS, LEAST = 6, 3, 5, 256, 512, 3
WARM_UP = 700
ARMS = (
    "no hints",
    "own handbook",
    "true hints",
    "handbook of other operations",
    "every hint wrong",
)
CONFIG = grpo.Config(hidden=(32, 32), heads=4, epochs=1, kl="none")
HYPER = grpo.Hyper(learning_rate=2e-3)


def one(seed):
    """Accuracy, tokens, and share of answers that follow the hints, each ``[ARMS]``; entries known and right."""
    effect_key, base_key, trace_key, wrong_key, test_key = jax.random.split(jax.random.key(seed), 5)
    world = Procedures(jax.random.randint(effect_key, (OPERATIONS, PRIMITIVES), 0, MODULUS), modulus=MODULUS)
    blank, mixed = world.task("blank"), world.task("mixed")
    agent = grpo.make(CONFIG, blank.spec)
    base = rlvr(agent, blank, lessons=mixed, updates=1, warm_up=WARM_UP).init(base_key, HYPER)

    draw_key, sample_key = jax.random.split(trace_key)
    prompt = jax.vmap(blank.draw)(jax.random.split(draw_key, TRACES))
    completion = agent.act(base, prompt, HYPER, sample_key, True)
    operation, before, after, whole = jax.vmap(world.trace)(prompt, completion)
    weight = jnp.broadcast_to((whole * jax.vmap(blank.verify)(prompt, completion))[:, None], operation.shape)
    votes = behaviours.recurring_effects(operation, before, after, weight, OPERATIONS, MODULUS)
    effect, known = behaviours.handbook(votes, LEAST)
    true = world.effects.sum(-1) % MODULUS

    problems = jax.vmap(blank.draw)(jax.random.split(test_key, PROBLEMS))
    wrong = (true + jax.random.randint(wrong_key, true.shape, 1, MODULUS)) % MODULUS

    nothing = jnp.zeros(OPERATIONS, bool)

    def measured(hints):
        effect, known = hints
        given = jax.vmap(lambda row: world.hinted(row, effect, known))(problems)
        completion = agent.act(base, given, HYPER, test_key, False)
        batch, _ = judged(blank, problems, completion[:, None])
        follows = jax.vmap(blank.verify)(given, completion).mean()
        return jnp.stack([batch.reward.mean(), batch.mask.sum(-1).mean(), follows])

    effects = jnp.stack([effect, effect, true, jnp.roll(effect, 1), wrong])
    given = jnp.stack([nothing, known, ~nothing, jnp.roll(known, 1), ~nothing])
    entries = jnp.stack([known.sum(), (known & (effect == true)).sum()])
    return jax.lax.map(measured, (effects, given)), entries


def run(seeds, scale, say):
    found, entries = over_devices(one, jnp.asarray(seeds, jnp.uint32))
    say(f"entries of {OPERATIONS} that are known: {entries[:, 0].tolist()}; and right: {entries[:, 1].tolist()}")
    for row, arm in enumerate(ARMS):
        accuracy, tokens, follows = found[:, row].T
        say(
            f"{arm}: accuracy {accuracy.mean():.3f} (sd {np.std(accuracy, ddof=1):.3f}), {tokens.mean():.2f} tokens, "
            f"{follows.mean():.3f} follow what the prompt says"
        )
    long = PRIMITIVES * 3 + 3
    return {arm: (long * found[:, row, 0] / found[:, row, 1]).tolist() for row, arm in enumerate(ARMS)}

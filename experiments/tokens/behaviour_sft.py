"""Traces that were written with a handbook in the prompt: does a student that learns from them keep it without one?

The world is that of ``metacognitive_reuse`` with two operations in a problem: six operations, each of three primitive
steps modulo 5, drawn anew for every seed. The teacher can write out every step, and follow hints. It finds a handbook
in 512 long traces of its own and writes the same problems again with those hints, which takes 5 tokens instead of 9. A
student that knows nothing is then fine-tuned on one kind of trace, and asked 256 fresh problems without hints, answered
greedily and judged by the operations themselves.

Of behaviour-conditioned traces (BC-SFT) the student sees the problem WITHOUT the hints that its teacher had. The rivals
are plain fine-tuning on the long traces, which are more tokens in as many steps, and on the same short ones with the
hints left in the prompt. The ablation has the handbook of other operations: its traces are as short and follow what
they are told, which is wrong.

The student of long traces becomes about as accurate in 300 to 400 steps, and goes on taking 9 tokens for an answer.
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
    statement="A student of traces that were written with the teacher's own handbook in the prompt, which it does not "
    "see, gives after 200 steps at least half a right answer more for the tokens of one long trace than after as many "
    "steps on long traces, than with the handbook left in its prompts, and than of a handbook of other operations",
    paper="https://arxiv.org/abs/2509.13237",
    method="BC-SFT",
    baselines=("SFT on long traces", "handbook left in the prompt"),
    ablation="handbook of other operations",
    metric="right answers per 9 tokens that are written, without hints, after 200 steps",
    systems=(10,),
    margin=0.5,
    seeds=10,
    chosen="seeds 0 to 5: over long traces 1.09, sd 0.23; over the handbook left in the prompt 0.88, sd 0.25",
)
OPERATIONS, PRIMITIVES, PER_PROBLEM, MODULUS, LEAST = 6, 3, 2, 5, 3
TRACES, PROBLEMS = 512, 256
WARM_UP, WARM_UP_BATCH = 800, 64
PARTS, STEPS, BATCH = 4, 100, 32  # of the student: parts of so many steps
JUDGED = 2  # parts after which the claim is about
LONG = PRIMITIVES * PER_PROBLEM + 3
ARMS = (
    "BC-SFT",
    "SFT on long traces",
    "handbook left in the prompt",
    "handbook of other operations",
)
CONFIG = grpo.Config(hidden=(32, 32), heads=4, epochs=1, kl="none")
HYPER = grpo.Hyper(learning_rate=2e-3)


def one(seed):
    """Of every arm accuracy and tokens without hints after each part ``[ARMS, PARTS, 2]``; share of the long, the short
    and the wrongly hinted traces that is right, entries of the handbook that are known, and that are right ``[5]``."""
    effect_key, base_key, draw_key, student_key, learn_key, test_key = jax.random.split(jax.random.key(seed), 6)
    effects = jax.random.randint(effect_key, (OPERATIONS, PRIMITIVES), 0, MODULUS)
    world = Procedures(effects, PER_PROBLEM, MODULUS)
    blank = world.task("blank")
    agent = grpo.make(CONFIG, blank.spec)
    warm = {"warm_up": WARM_UP, "warm_up_batch": WARM_UP_BATCH, "lessons": world.task("mixed")}
    teacher = rlvr(agent, blank, updates=1, **warm).init(base_key, HYPER)

    student = agent.init(student_key, HYPER)
    prompt = jax.vmap(blank.draw)(jax.random.split(draw_key, TRACES))
    long = agent.act(teacher, prompt, HYPER, draw_key, False)
    operation, before, after, whole = jax.vmap(world.trace)(prompt, long)
    verified = jax.vmap(blank.verify)
    weight = jnp.broadcast_to((whole * verified(prompt, long))[:, None], operation.shape)
    votes = behaviours.recurring_effects(operation, before, after, weight, OPERATIONS, MODULUS)
    effect, known = behaviours.handbook(votes, LEAST)

    def hinted(effect, known):
        return jax.vmap(lambda row: world.hinted(row, effect, known))(prompt)

    hints = jnp.stack([hinted(effect, known), hinted(jnp.roll(effect, 1), jnp.roll(known, 1))])
    short, wrong = jax.lax.map(lambda given: agent.act(teacher, given, HYPER, draw_key, False), hints)
    problems = jax.vmap(blank.draw)(jax.random.split(test_key, PROBLEMS))

    def measured(state):
        completion = agent.act(state, problems, HYPER, test_key, False)
        batch, _ = judged(blank, problems, completion[:, None])
        return jnp.stack([batch.reward.mean(), batch.mask.sum(-1).mean()])

    def taught(arm):
        seen, traces = arm

        def lesson(i, state):
            rows = jax.random.randint(jax.random.fold_in(learn_key, i), (BATCH,), 0, TRACES)
            batch, _ = judged(blank, seen[rows], traces[rows][:, None])
            return agent.imitate(state, batch, HYPER, learn_key, i)[0]

        def part(state, index):
            state = jax.lax.fori_loop(index * STEPS, (index + 1) * STEPS, lesson, state)
            return state, measured(state)

        return jax.lax.scan(part, student, jnp.arange(PARTS))[1]

    seen, traces = jnp.stack([prompt, prompt, hints[0], prompt]), jnp.stack([short, long, short, wrong])  # as ARMS
    found = jax.lax.map(taught, (seen, traces))
    right = [verified(prompt, written).mean() for written in (long, short, wrong)]
    entries = [known.sum(), (known & (effect == effects.sum(-1) % MODULUS)).sum()]
    return found, jnp.stack([jnp.asarray(x, jnp.float32) for x in (*right, *entries)])


def run(seeds, scale, say):
    found, teacher = over_devices(one, jnp.asarray(seeds, jnp.uint32))
    long, short, wrong, *entries = teacher.T
    say(f"entries of {OPERATIONS} that are known and right: {np.stack(entries, 1).astype(int).tolist()}")
    say(f"right of its traces: long {long.mean():.3f}, short {short.mean():.3f}, wrongly hinted {wrong.mean():.3f}")
    for row, arm in enumerate(ARMS):
        accuracy, tokens = np.moveaxis(found[:, row], -1, 0)
        steps = [
            f"{of.mean():.3f} (sd {np.std(of, ddof=1):.3f}) after {(part + 1) * STEPS}"
            for part, of in enumerate(accuracy.T)
        ]
        say(f"{arm}: right {', '.join(steps)} steps; {tokens[:, JUDGED - 1].mean():.2f} tokens")
    judged_at = found[:, :, JUDGED - 1]
    return {arm: (LONG * judged_at[:, row, 0] / judged_at[:, row, 1]).tolist() for row, arm in enumerate(ARMS)}

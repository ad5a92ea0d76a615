"""Training under an instruction with a reward for its format: does the style stay when the instruction goes?

Sums of four numbers modulo 5 under a tag: think (running sums first), direct (the answer at once) or none. The base saw
260 steps of all three, with the style as the tag asks in 80% of the cases. From each base GRPO trains under one tag
alone, half of the reward for being right and half for the tag's style; under no tag, where any style has the right
format; and under the direct tag without a reward for format. All are then asked under every tag, 512 sampled answers.

What is kept is the style, and it is kept where the tag is not. Under the OTHER tag it grows as well, by less: a policy
that was trained to think obeys the direct tag in part. Without a tag to train under, the style that wins is a coin
flip. Direct answers stay at chance whatever is paid. Accuracy under the think tag grows only from bases that can sum by
then, which is no claim here.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.arms import over_devices
from experiments.harness import Claim
from jaxrl_reg.agents.tokens import grpo
from jaxrl_reg.envs.tokens import make, style_of
from jaxrl_reg.loops.rlvr import rlvr

CLAIM = Claim(
    statement="A policy that was trained on verified rewards under a tag, half of them for answering in the tag's way, "
    "answers in that way without the tag as well: in three tenths of its answers more than before, and than one "
    "that was trained without a tag",
    paper="https://arxiv.org/abs/2505.14157",
    method="trained under the tag",
    baselines=("before training",),
    ablation="trained without a tag",
    metric="share of answers in a tag's style where no tag stands, mean of both styles",
    systems=(13,),
    margin=0.3,
    seeds=4,
    chosen="seeds 0 and 1: shares of 0.89 (sd 0.02) and 1.00 without the tag, against 0.45 (sd 0.08) and 0.51 before",
)
NONE, THINK, DIRECT = 0, 1, 2
TRAINED = {  # arm: its tag, and how much of the reward is for the style
    "think": (THINK, 0.5),
    "direct": (DIRECT, 0.5),
    "no tag": (NONE, 0.5),
    "direct, no reward for style": (DIRECT, 0.0),
}
WARM_UP, UPDATES, PROBLEMS = 260, 120, 512
CONFIG = grpo.Config(hidden=(32, 32), heads=4, epochs=1, aggregation="token", kl="none")
HYPER = grpo.Hyper(learning_rate=1e-3)
MIXED = make("styles", tag="mixed", format=0.5)


def under(tag, share=0.5):
    """The task under one tag with this ``share`` of the reward for style; both may be traced."""
    head = jnp.where(tag == NONE, MIXED.spec.PAD, MIXED.spec.vocabulary - 3 + tag)

    def verify(prompt, completion):
        paid = MIXED.parts(prompt, completion)
        return 2.0 * (share * paid["format"] + (1.0 - share) * paid["right"])

    return MIXED._replace(draw=lambda key: MIXED.draw(key).at[0].set(head), verify=verify)


def one(seed):
    """Of the base and every arm, under every tag: shares of think and of direct, and accuracy ``[1 + arms, 3, 3]``."""
    base_key, train_key, test_key = jax.random.split(jax.random.key(seed), 3)
    agent = grpo.make(CONFIG, MIXED.spec)
    base = rlvr(agent, MIXED, updates=1, warm_up=WARM_UP).init(base_key, HYPER)

    def asked(state, tag):
        draw_key, sample_key = jax.random.split(test_key)
        task = under(tag, 0.0)
        prompt = jax.vmap(task.draw)(jax.random.split(draw_key, PROBLEMS))
        completion = agent.act(state, prompt, HYPER, sample_key, True)
        style = jax.vmap(style_of)(prompt, completion)
        right = jax.vmap(task.verify)(prompt, completion)
        return jnp.stack([(style == THINK).mean(), (style == DIRECT).mean(), right.mean()])

    def measured(state):
        return jax.lax.map(lambda tag: asked(state, tag), jnp.arange(3))

    def trained(arm):
        run = rlvr(agent, under(*arm), updates=UPDATES, prompts=16, group=8)
        return run.train(base, jnp.int32(0), train_key, HYPER)[0]

    tags, shares = zip(*TRAINED.values(), strict=True)
    arms = jax.lax.map(trained, (jnp.array(tags), jnp.array(shares)))
    return jax.lax.map(measured, jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), base, arms))


def run(seeds, scale, say):
    measured = np.moveaxis(over_devices(one, jnp.asarray(seeds, jnp.uint32)), 1, 0)
    found = dict(zip(["base", *TRAINED], measured, strict=True))
    for arm, of in found.items():
        mean, spread = of.mean(0), of.std(0, ddof=1)
        words = [
            f"{name}: think {mean[tag, 0]:.2f} (sd {spread[tag, 0]:.2f}), direct {mean[tag, 1]:.2f}, "
            f"right {mean[tag, 2]:.2f} (sd {spread[tag, 2]:.2f})"
            for tag, name in ((NONE, "no tag"), (THINK, "think tag"), (DIRECT, "direct tag"))
        ]
        say(f"{arm}, under {'; '.join(words)}")
    pairs = {
        "trained under the tag": (found["think"], found["direct"]),
        "before training": (found["base"], found["base"]),
        "trained without a tag": (found["no tag"], found["no tag"]),
    }
    return {
        arm: ((think[:, NONE, THINK - 1] + direct[:, NONE, DIRECT - 1]) / 2).tolist()
        for arm, (think, direct) in pairs.items()
    }

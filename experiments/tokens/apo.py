"""What lets hard questions go from the reference: APO's weights by difficulty, or less of the divergence at all?

Any two pairs of numbers that add up to q modulo 7 are right. The warm start sees four of the seven q nearly all of the
time, so that the other three are hard when 120 updates begin, on all q alike. GRPO with k3 in the loss at a coefficient
of 0.3 and of 3, and at 0.3 with the divergence weighed by DADS. DADS leaves 0.95 to 0.97 of the divergence, as only
right completions of mixed groups weigh less, so the runs without it have 0.95 times the coefficient. All of a seed
begin with the same warm start.

The result is a null for DADS: at equal mean weight it moves the accuracy on hard questions by little either way. The
coefficient itself moves it by a lot.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.tokens._arms import trained
from jaxrl_reg import envs

CLAIM = Claim(
    statement="How far hard questions get from the reference is decided by the divergence's coefficient; weighing by "
    "difficulty (DADS) instead of by a constant of the same mean changes their accuracy far less",
    paper="https://arxiv.org/abs/2506.21655",
    method="coefficient of 0.3 instead of 3",
    baselines=("DADS instead of its mean weight",),
    ablation=None,
    metric="change of the accuracy on hard questions, of DADS in either direction",
    systems=(56,),
    margin=0.1,
    seeds=24,
    chosen="seeds 0 to 9: a power of 0.95 needs 21",
)
MEAN_WEIGHT = 0.95  # of DADS, measured
PLAIN = (("difficulty", False), ("epochs", 1))
ARMS = {
    "DADS, 0.3": Arm("apo", {"kl_coef": 0.3}, (("epochs", 1),)),
    "fixed, 0.3": Arm("apo", {"kl_coef": MEAN_WEIGHT * 0.3}, PLAIN),
    "fixed, 3": Arm("apo", {"kl_coef": MEAN_WEIGHT * 3.0}, PLAIN),
}
WARM_UP = 185
MODULUS, EASY, OFTEN = 7, 4, 0.98
ASKED = 96  # completions of each q at the end


def uneven(task):
    """The task as the warm start sees it: mostly the first four q."""

    def draw(key):
        which_key, few_key, all_key = jax.random.split(key, 3)
        few, other = (
            jax.random.randint(k, (), *ends) for k, ends in ((few_key, (0, EASY)), (all_key, (EASY, MODULUS)))
        )
        q = jnp.where(jax.random.bernoulli(which_key, OFTEN), few, other)
        return task.draw(key).at[0].set(3 + q)

    return task._replace(draw=draw)


def by_question(task):
    """Accuracy of sampled completions on hard and easy q."""
    prompt = jnp.stack([3 + jnp.repeat(jnp.arange(MODULUS), ASKED), jnp.full(MODULUS * ASKED, 2)], axis=-1)

    def evaluate(complete, key):
        right = jax.vmap(task.verify)(prompt, complete(prompt, key, True)).reshape(MODULUS, ASKED).mean(-1)
        return {"easy": right[:EASY].mean(), "hard": right[EASY:].mean()}

    return evaluate


def run(seeds, scale, say):
    task = envs.make("tokens/split", modulus=MODULUS)
    loop = {"updates": 120, "prompts": 16, "group": 8, "warm_up": WARM_UP, "lessons": uneven(task)}
    settings = {"learning_rate": 2e-3, "sharpness": 0.5}
    found = trained(ARMS, task, seeds, say, settings, evaluate=by_question(task), segments=2, **loop)
    hard = {arm: metrics["eval/hard"][:, -1] for arm, metrics in found.items()}
    for arm, metrics in found.items():
        each = (
            f"hard {hard[arm].mean():.3f} ({hard[arm].std(ddof=1):.3f}), easy {metrics['eval/easy'][:, -1].mean():.3f}"
        )
        say(f"{arm}: {each}, divergence {metrics['kl'].mean():.2f}, weight of it {metrics['kl_weight'].mean():.3f}")
    results = {"coefficient of 0.3 instead of 3": hard["fixed, 0.3"] - hard["fixed, 3"]}
    change = hard["DADS, 0.3"] - hard["fixed, 0.3"]
    say(f"DADS minus fixed: {change.mean():+.3f} ({change.std(ddof=1):.3f})")
    results["DADS instead of its mean weight"] = np.abs(change)
    return {arm: values.tolist() for arm, values in results.items()}

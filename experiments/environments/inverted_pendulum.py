"""PPO on Brax's inverted pendulum with the settings of Brax's own notebook, within its number of steps.

Settings: ``notebooks/training.ipynb`` of google/brax. 2048 environments; segments of 5 steps, 32 minibatches of 1,024
segments, 4 passes; that is 80 steps of each environment for every 128 minibatches of 5,120 rows, which is how it is
written here. What differs: advantages run over the 80 steps instead of ending after each 5, actor and value have an
optimiser and a network of four layers of 32 each (Brax: five of 256 for the value), the policy is this package's.
Rewards are not scaled by 10: advantages are standardised, and Adam does not see the scale of the value's gradient.

Seeds are few because the physics are dear: each has 1,966,080 steps. What is judged is the best of twelve evaluations,
after each of which the run says its curve.
"""

from __future__ import annotations

from experiments.environments import _published
from experiments.harness import Claim
from jaxrl_reg import envs
from jaxrl_reg.agents import ppo

FULL = 1000.0  # one for every step of an episode
CLAIM = Claim(
    statement="PPO reaches the full return of Brax's inverted pendulum, 1,000 steps upright, within the 2,000,000 "
    "environment steps of brax.training's published settings; after a tenth of them it has not",
    paper="https://arxiv.org/abs/1707.06347",
    method="PPO",
    baselines=("990 steps",),
    ablation="PPO, a tenth of the steps",
    metric="mean return of 16 whole episodes, the best of 12 evaluations (brax/inverted_pendulum, positional)",
    margin=0.0,
    seeds=2,
    chosen="what the time allows; one seed of those for choosing settings stood upright after 1,310,720 steps",
)
ENVS, UNROLL, ITERATIONS = 2048, 80, 12  # 1,966,080 steps
SCALES = ("small",)


def run(seeds, scale, say):
    found = _published.curves(
        ppo,
        envs.make("brax/inverted_pendulum", backend="positional"),
        seeds,
        say,
        config={"hidden": (32,) * 4, "activation": "silu", "epochs": 4, "minibatches": 32},
        hyper={
            "actor_learning_rate": 3e-4,
            "value_learning_rate": 3e-4,
            "discount": 0.97,
            "clip": 0.3,
            "entropy_coef": 0.01,
            "max_grad_norm": 1e9,  # no clipping
        },
        steps=ENVS * UNROLL * ITERATIONS,
        num_envs=ENVS,
        unroll=UNROLL,
        segments=ITERATIONS,
    )
    return {
        "PPO": found.max(axis=1).tolist(),
        "PPO, a tenth of the steps": found[:, 0].tolist(),
        "990 steps": [0.99 * FULL] * len(seeds),
    }

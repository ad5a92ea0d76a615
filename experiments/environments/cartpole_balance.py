"""PPO, SAC and TD3 on Playground's CartpoleBalance with its published settings, for as many steps as two cores do.

Settings: ``mujoco_playground/config/dm_control_suite_params.py``. PPO: 2048 environments, segments of 30 steps, 32
minibatches of 1,024 segments, 16 passes; that is 480 steps of each environment for every 512 minibatches of 30,720
rows. SAC: 128 environments, 8 updates of 512 rows for one step of all of them, 8,192 steps before the first, LayerNorm
in the critics. Published for PPO are 60,000,000 steps and for SAC 5,000,000; the claim is met long before. There are no
settings for TD3, which takes SAC's. What differs is said in ``inverted_pendulum``; SAC and TD3 here see observations
as they come, which lie in [-1, 1] but for the velocities. Needs the extra ``playground``.
"""

from __future__ import annotations

from experiments.environments import _published
from experiments.harness import Claim
from jaxrl_reg import envs
from jaxrl_reg.agents import ppo, sac, td3

CLAIM = Claim(
    statement="PPO, SAC and TD3 reach 950 of 1,000 on Playground's CartpoleBalance within the environment steps of its "
    "published settings (60,000,000 for PPO, 5,000,000 for SAC): PPO within a tenth, SAC and TD3 within a sixteenth",
    paper="https://arxiv.org/abs/2502.08485",
    method="worst of PPO, SAC and TD3",
    baselines=("950 of 1,000",),
    ablation="PPO after one iteration",
    metric="return of whole episodes (playground/CartpoleBalance)",
    margin=0.0,
    seeds=3,
)
SIZES = {"small": (6, 40), "full": (61, 640)}  # iterations of PPO; turns of 7,680 steps of SAC and TD3
WIDE, UNROLL = 2048, 480
SIDE_BY_SIDE, STEPS = 128, 60


def run(seeds, scale, say):
    env = envs.make("playground/CartpoleBalance")
    iterations, turns = SIZES[scale]
    on = _published.curves(
        ppo,
        env,
        seeds,
        say,
        config={"hidden": (32,) * 4, "activation": "silu", "epochs": 16, "minibatches": 32},
        hyper={
            "actor_learning_rate": 1e-3,
            "value_learning_rate": 1e-3,
            "discount": 0.995,
            "clip": 0.3,
            "entropy_coef": 0.01,
            "max_grad_norm": 1e9,  # no clipping
        },
        steps=WIDE * UNROLL * iterations,
        num_envs=WIDE,
        unroll=UNROLL,
        segments=iterations,
    )
    ends = {"PPO": on[:, -1]}
    for module in (sac, td3):
        rates = {"actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3}
        rates |= {"temperature_learning_rate": 1e-3} if module is sac else {}
        off = _published.curves(
            module,
            env,
            seeds,
            say,
            config={"hidden": (256, 256), "critic_layer_norm": "every"},
            hyper=rates,
            steps=SIDE_BY_SIDE * STEPS * turns,
            num_envs=SIDE_BY_SIDE,
            unroll=1,
            updates=8,
            batch_size=512,
            warmup=8192,
            segments=5,
        )
        ends[module.__name__.rsplit(".", 1)[-1].upper()] = off[:, -1]
    return {
        "worst of PPO, SAC and TD3": [float(min(row)) for row in zip(*ends.values(), strict=True)],
        "PPO after one iteration": on[:, 0].tolist(),
        "950 of 1,000": [950.0] * len(seeds),
    } | {name: values.tolist() for name, values in ends.items()}

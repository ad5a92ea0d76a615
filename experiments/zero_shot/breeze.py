"""BREEZE against FB and its conservative kin where the data hold small actions only and large ones do nothing.

All arms share their networks, of one width: two layers of F on (s, a, z), one hidden layer of B. The depth of B decides
here. A deeper one, or an F that looks at (s, a) and (s, z) apart first, fits the measure better, but the rewards that
16 features can tell then ripple across the square, and the direction to the goal is lost in the ripples: that is one
more arm, shown and not judged.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.arms import Arm
from experiments.harness import Claim
from experiments.offline import _control as control
from experiments.zero_shot import _tasks
from jaxrl_reg import data, envs
from jaxrl_reg.agents import breeze
from jaxrl_reg.envs.pointnav import STALL, dynamics
from jaxrl_reg.types import Dataset

CLAIM = Claim(
    statement="Trained without rewards on data of small actions, BREEZE serves four tasks given afterwards, far above "
    "FB, whose actor leaves the data, and above VC-FB even at the weight of its penalty that suits this data best; "
    "without weights in the actor's loss, BREEZE loses much of it",
    paper=breeze.PAPER.url,
    method="BREEZE",
    baselines=("FB", "VC-FB", "VC-FB, weight tuned"),
    ablation="BREEZE without weights",
    metric="fraction of steps at the goal, interquartile mean over four tasks (pointnav)",
    margin=0.1,
    systems=(1,),
    seeds=8,
    chosen="seeds 100 to 107: over VC-FB, weight tuned 0.491, sd 0.079; power 1.000",
)
SIZES = {  # hidden widths, updates, batch size, episodes per task, rows of data
    "small": ((64,), 10_000, 128, 32, 20_000),
    "full": ((256,), 100_000, 512, 256, 200_000),
}
CHECKPOINTS = 5
RATES = dict.fromkeys(("representation_learning_rate", "actor_learning_rate", "value_learning_rate"), 3e-4)
COMMON = {**RATES, "discount": 0.9, "tau": 0.01, "orthonormality": 1.0}
SMOOTH = (("features", 16), ("preprocessor", ()), ("backward_hidden", (64,)))
PENALISED = (*SMOOTH, ("target_penalty", None))
DIFFUSION = (("representation", "mlp"), ("steps", 5), ("candidates", 16), ("train_candidates", 1))
WEIGHTED = {"expectile": 0.9, "f_weight": 1e-3, "actor_average_rate": 5e-3, "behaviour_ratio": 0.0}
ARMS = {
    "BREEZE": Arm("breeze", {**WEIGHTED, "inverse_temperature": 1.0}, (*SMOOTH, *DIFFUSION)),
    "BREEZE without weights": Arm("breeze", {**WEIGHTED, "inverse_temperature": 0.0}, (*SMOOTH, *DIFFUSION)),
    "FB": Arm("fb", config=SMOOTH),
    "VC-FB": Arm("vc_fb", {"conservative_weight": 0.01}, PENALISED),
    "VC-FB, weight tuned": Arm("vc_fb", {"conservative_weight": 1.0}, PENALISED),
    "BREEZE, deeper F and B": Arm("breeze", {**WEIGHTED, "inverse_temperature": 1.0}, (("features", 16), *DIFFUSION)),
}


def behaviour(key: jax.Array, rows: int) -> Dataset:
    """Single steps from uniform positions, actions uniform in the disc of radius 0.45."""
    keys = jax.random.split(key, 3)
    position = jax.random.uniform(keys[0], (rows, 2), minval=-1.0, maxval=1.0)
    direction = jax.random.normal(keys[1], (rows, 2))
    length = control.LARGEST_ACTION * jnp.sqrt(jax.random.uniform(keys[2], (rows, 1)))
    action = direction / jnp.linalg.norm(direction, axis=-1, keepdims=True) * length
    following = dynamics(position, action)
    position, action, following = (np.asarray(x) for x in (position, action, following))
    zero, ends = np.zeros(rows, np.float32), np.ones(rows, bool)
    extras = {"physics": position}
    return data.from_arrays(position, action, zero, ~ends, ends, following, extras=extras, name="pointnav")


def beyond(world: _tasks.World) -> _tasks.Probe:
    """Fraction of the policy's actions, in states of the data, at which the motor stalls."""
    states = world.labelled.observation[:128]

    def probe(agent, state):
        serve = agent.zero_shot
        z = jax.vmap(lambda reward: serve.infer_z(state, world.labelled.observation, reward))(world.labelled.reward)
        action = jax.vmap(lambda z: serve.act(state, states, z, jax.random.key(0)))(z)
        return {"beyond": (jnp.linalg.norm(action, axis=-1) > STALL).mean()}

    return probe


def run(seeds, scale, say):
    hidden, updates, batch_size, episodes, rows = SIZES[scale]
    dataset = behaviour(jax.random.key(_tasks.SEED), rows)
    world = _tasks.world(envs.make("pointnav", episode_length=control.EPISODE), dataset, say)
    found = _tasks.train(
        ARMS,
        world,
        seeds,
        say,
        hidden=hidden,
        updates=updates,
        batch_size=batch_size,
        episodes=episodes,
        checkpoints=CHECKPOINTS,
        probe=beyond(world),
        **COMMON,
    )
    for arm, each in found.items():
        fallen = _tasks.fallen(each["iqm"])
        say(f"{arm}: best to last checkpoint {np.mean(fallen):.3f}, at most {np.max(fallen):.3f}")
    return {arm: each["iqm"][:, -1].tolist() for arm, each in found.items()}

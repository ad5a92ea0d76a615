"""BREEZE against FB and its conservative kin where the paper has it: a walker that RND explored.

``breeze_maze`` fails: there leaving the data is hardly punished. A walker falls over whatever it has not seen done, so
keeping to the data should pay here. The question is put once, at the largest size that two cores finish in about an
hour (scale ``hour``), with settings taken over from ``breeze_maze`` but for smaller steps; full is the papers' size. An
update of BREEZE for one seed takes about 45 ms of a core at this size (FB: 12), and 205 ms with twice the width and
twice the batch. An interrupted run goes on where it was.
"""

import jax
import numpy as np

from experiments.harness import Claim, finding
from experiments.zero_shot import _kin, _tasks
from jaxrl_reg import envs
from jaxrl_reg.agents import breeze
from jaxrl_reg.loops.explore import coverage, explore

CLAIM = Claim(
    statement="Trained on a walker's exploration without any reward, BREEZE serves the four tasks of the paper given "
    "afterwards (stand, walk, run, flip) better than FB, VC-FB and MC-FB, and than itself without weights in the "
    "actor's loss",
    paper=breeze.PAPER.url,
    method="BREEZE",
    baselines=("FB", "VC-FB", "MC-FB"),
    ablation="BREEZE without weights",
    metric="reward per step, interquartile mean over four tasks (planar/walker)",
    margin=0.02,
    systems=(1,),
    seeds=5,
    chosen="as many as fit into the hour, before any value was known",
    note="after 7,500 updates of width 128 (35 minutes of two cores) no method earns more than the steps of its data "
    "(0.169 per step), so none has learnt the tasks yet; the papers' size, 50 times as many updates of eight times the "
    "width, was not run",
)
SCALES = ("hour", "full")
SIZES = {  # hidden width, updates, batch size, D, samples when acting, episodes per task, steps of exploration
    "hour": (128, 7_500, 128, 32, 8, 8, 100_000),
    "full": (1024, 400_000, 512, 100, 64, 10, 5_000_000),
}
RATE = 3e-4
CHECKPOINTS = 5


def explored(steps, hidden, say):
    """The walker and its exploration, with labels for all tasks."""
    env = envs.make("planar/walker")
    exploration = explore("rnd", env, steps=steps, segments=1, hidden=hidden)
    state, _ = jax.jit(exploration.run)(jax.random.key(_tasks.SEED), exploration.hyper)
    data = exploration.dataset(state, "walker-rnd")
    say(f"RND: {data.size:,} steps, {coverage(env, data).fraction:.0%} of speeds and heights visited")
    return _tasks.world(env, data, say)


def run(seeds, scale, say):
    width, updates, batch_size, features, candidates, episodes, steps = SIZES[scale]
    found = _tasks.train(
        _kin.arms(width, features, candidates, RATE if scale == "hour" else None),
        explored(steps, (min(width, 256),), say),
        seeds,
        say,
        hidden=(width,),
        updates=updates,
        batch_size=batch_size,
        episodes=episodes,
        checkpoints=CHECKPOINTS,
        keep=finding.kept("breeze_walker", scale, seeds),
        discount=0.98,
    )
    for arm, each in found.items():
        say(f"{arm}: best to last checkpoint {np.mean(_tasks.fallen(each['iqm'])):.3f}")
    tasks = {
        f"{arm}, {name}": each[name][:, -1].tolist()
        for arm, each in found.items()
        for name in sorted(each)
        if name in ("stand", "walk", "run", "flip")
    }
    return {arm: each["iqm"][:, -1].tolist() for arm, each in found.items()} | tasks

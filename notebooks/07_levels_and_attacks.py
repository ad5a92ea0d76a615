# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxrl-reg/jaxrl_reg/blob/main/notebooks/07_levels_and_attacks.ipynb)
#
# # Levels, and attacks
#
# An agent that learns in mazes is judged in mazes that it has never seen, and then on observations that someone tampers
# with.

# %%
# On Colab: install the package, and pin the jax and numpy that are already there so that nothing moves them.
import importlib.metadata
import os
import subprocess
import sys

if "google.colab" in sys.modules:
    there = [p for p in ("jax", "jaxlib", "numpy") if any(True for _ in importlib.metadata.distributions(name=p))]
    pins = [f"{p}=={importlib.metadata.version(p)}" for p in there]
    with open("pins.txt", "w") as file:
        file.write("\n".join(pins))
    source = "jaxrl-reg[all] @ git+https://github.com/jaxrl-reg/jaxrl_reg"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", "--constraint", "pins.txt", source])

SMALL = os.environ.get("JAXRL_REG_SMALL") == "1"  # tiny sizes, for the tests

# %%
import shutil

import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxrl_reg as jr

shutil.rmtree("runs/maze", ignore_errors=True)  # of an earlier run of this notebook

# %% [markdown]
# ## Levels
#
# A world with levels is another maze in every episode. The agent sees the few cells around it and has no memory; moss
# grows towards the goal. The designer's generator (upper row) does not know that, the held-out mazes (lower row) have it.

# %%
SIDE, LENGTH, HELD_OUT = (4, 8, 4) if SMALL else (7, 40, 64)
world = {"height": SIDE, "width": SIDE, "episode_length": LENGTH, "held_out": HELD_OUT}
env = jr.envs.make("maze", **world)
designed = jax.vmap(env.levels.sample)(jax.random.split(jax.random.key(0), 4))
held_out = jax.tree.map(lambda leaf: leaf[:4], env.levels.evaluation["held_out"])
figure, axes = plt.subplots(2, 4, figsize=(8, 4))
for row, mazes in zip(axes, (designed, held_out), strict=True):
    for number, axis in enumerate(row):
        axis.imshow(env.levels.picture(jax.tree.map(lambda leaf, n=number: leaf[n], mazes)))
        axis.set_axis_off()
plt.show()

# %% [markdown]
# ## A curriculum
#
# `plr` is given a few levels of the kind that it will be judged on, and replays those on which its value function is
# most wrong; `dr`, which takes new levels of the designer's as they come, is the one to compare with, by `agent="dr"`.
# What counts is the share of held-out mazes that are solved.

# %%
AGENT = "dr" if SMALL else "plr"  # small: the one that compiles sooner
SIZES = (
    {"seeds": 1, "steps": 32, "num_envs": 2, "unroll": 8, "segments": 2, "hidden": (8,)}
    if SMALL
    else {"seeds": 2, "steps": 163_840, "num_envs": 32, "unroll": 64, "segments": 8, "hidden": (64, 64)}
)
outcome = jr.jobs.sweep(
    jr.jobs.OnlineConfig(
        env="maze", env_settings=world, agent=AGENT, against="none",
        settings={"minibatches": 2, "epochs": 1} if SMALL else {}, **SIZES,
    ),
    directory="runs/maze", lean=True,
)  # fmt: skip
solved = outcome.result.metrics["eval/solved"][0]  # (seeds, evaluations)
plt.plot(np.linspace(0, SIZES["steps"], SIZES["segments"] + 1)[1:], solved.T, "o-")
plt.xlabel("steps")
plt.ylabel("share of held-out mazes that are solved")
plt.show()
print(f"{AGENT}: {solved[:, 0].mean():.2f} of the held-out mazes solved at first, {solved[:, -1].mean():.2f} at last")
assert SMALL or solved[:, -1].mean() > solved[:, 0].mean()

# %% [markdown]
# ## Attacks
#
# The same members, in the same episodes, on observations that are perturbed: at random, and by the step of at most that
# size which changes most what the agent does (`pgd`, along its own gradient). Sizes are in standard deviations of each
# coordinate. An attack that needs what an agent does not have is left out, in a line.
#
# Members act greedily here, and one without a memory goes round in circles in a maze: a return that rises under an
# attack, as it may here, says that noise frees it, not that the agent is robust.

# %%
table = jr.jobs.attack(
    "runs/maze", "random:1" if SMALL else "random:1,pgd:1",
    episodes=2 if SMALL else 64, lean=True, say=print,
)  # fmt: skip
table

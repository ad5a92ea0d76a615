# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxrl-reg/jaxrl_reg/blob/main/notebooks/08_plan_for_an_accelerator.ipynb)
#
# # Plan for an accelerator
#
# What would a sweep take on a device that is not there? Its compiler answers, on any machine: whether the program
# compiles, how many members fit into memory, how many launches one update costs, and an estimate of updates per second.
# Where the compiler is missing, the call says in one line what to install.

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
    source = "jaxrl-reg[all,plan-tpu] @ git+https://github.com/jaxrl-reg/jaxrl_reg"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", "--constraint", "pins.txt", source])

SMALL = os.environ.get("JAXRL_REG_SMALL") == "1"  # tiny sizes, for the tests

# %%
import matplotlib.pyplot as plt

import jaxrl_reg as jr
from jaxrl_reg.agents import ppo

TARGETS = ("h100", "tpu-v5e")  # also a100, l40s, tpu-v6e

# %% [markdown]
# ## A whole sweep
#
# `plan` takes what `sweep` takes. Nothing is trained and nothing written; where the data set is not collected yet, rows
# of noise stand for it. Every training program is compiled: the agent's, and the cloning baseline's beside it. With
# `evaluation=True` evaluations are compiled as well, which takes longer.

# %%
config = jr.jobs.SweepConfig(env="pointnav", agent="rebrac", grid={"actor_bc_coef": (0.01, 0.1)}, seeds=32)
for target in TARGETS:
    try:
        for label, forecast in jr.jobs.plan(config, target, evaluation=False, say=print):
            print(f"{target}, {label}: {forecast.updates_per_second:,.0f} updates per second, {forecast.bound}-bound")
    except jr.errors.UserError as missing:
        print(missing)

# %% [markdown]
# ## A run of your own
#
# `plan_for` takes what `population.sweep` takes. A small network is bound by launches: until the device is full, another
# member costs next to nothing, which is why populations are one program.

# %%
env = jr.envs.make("pointnav")
agent = ppo.make(ppo.Config(hidden=(64, 64)), env.spec)
run = jr.loops.online(agent, env, steps=4_096, num_envs=16, unroll=64)
hypers = jr.population.grid(ppo.Hyper())
MEMBERS = (1,) if SMALL else (1, 64)
for target in TARGETS:
    try:
        found = [jr.population.plan_for(run, target, seeds=members, hypers=hypers) for members in MEMBERS]
    except jr.errors.UserError as missing:
        print(missing)
        continue
    for members, one in zip(MEMBERS, found, strict=True):
        print(
            f"{target}, {members} members: {one.launches:,.0f} launches per {one.unit}; {one.fit:,} members would fit"
        )
    plt.loglog(MEMBERS, [one.updates_per_second for one in found], "o-", label=target)
    plt.xlabel("members")
    plt.ylabel(f"{found[0].unit}s per second, all members")
    plt.legend()
    plt.show()

# %% [markdown]
# The estimate is the slower of launching and computing, from published figures of the device, which `plan` prints; it is
# an estimate. What the compiler counts (launches, branches, bytes) is exact.

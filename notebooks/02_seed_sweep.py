# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxrl-reg/jaxrl_reg/blob/main/notebooks/02_seed_sweep.ipynb)
#
# # Seeds x hyperparameters as one program
#
# A population is trained by one compiled program, with one copy of the data. This notebook sweeps the strength of
# ReBRAC's cloning penalty over several seeds, on a task whose data punish extrapolation.

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
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxrl_reg as jr
from jaxrl_reg.agents import rebrac
from jaxrl_reg.evaluation import returns, statistics

SEEDS, UPDATES, SEGMENTS, HIDDEN = (2, 20, 2, (8,)) if SMALL else (8, 6_000, 10, (64, 64))

# %% [markdown]
# ## Data
#
# `pointnav`: a point moves by half its action, but its motor stalls when asked for more than 0.6. The behaviour policy
# draws small actions, so a value function that extrapolates "larger is better" is wrong.

# %%
EPISODES, LENGTH = (20 if SMALL else 500), 30
env = jr.envs.make("pointnav", task="top_right", episode_length=LENGTH)


def episode(key):
    reset_key, action_key = jax.random.split(key)
    actions = 0.3 * jax.random.uniform(action_key, (LENGTH, 2), minval=-1.0)

    def step(state, action):
        following = env.step(state, action)
        return following, (state.observation, action, following)

    return jax.lax.scan(step, env.reset(reset_key), actions)[1]


observation, action, following = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), EPISODES))
rows = lambda x: np.asarray(x).reshape(EPISODES * LENGTH, *x.shape[2:])
data = jr.data.from_arrays(
    rows(observation), rows(action), rows(following.reward), rows(following.terminated), rows(following.truncated),
    rows(following.final_observation), name="pointnav",
)  # fmt: skip
print(jr.data.summary(data))

# %% [markdown]
# ## Sweep
#
# `Config` is static and changes the program; every leaf of `Hyper` is traced, so a grid over it compiles once.

# %%
agent = rebrac.make(rebrac.Config(hidden=HIDDEN), data.spec)
hypers = jr.population.grid(rebrac.Hyper(discount=0.9), actor_bc_coef=[0.0, 0.1, 1.0, 10.0])
run = jr.loops.offline(
    agent,
    batch_size=16 if SMALL else 128,
    updates=UPDATES,
    segments=SEGMENTS,
    evaluate=returns.evaluator(env, 2 if SMALL else 32),
)
result = jr.population.sweep(run, seeds=SEEDS, hypers=hypers, data=data, on_plan=print)
scores = result.metrics["eval/return"] / LENGTH
scores.shape  # (settings, seeds, segments)

# %% [markdown]
# ## Read it
#
# Interquartile mean with a 95% stratified bootstrap interval, per setting.

# %%
for setting, coefficient in enumerate(hypers.actor_bc_coef):
    final = jnp.asarray(scores[setting, :, -1:])
    low, high = statistics.stratified_bootstrap(jax.random.key(0), final)
    print(f"actor_bc_coef {coefficient:5.1f}: {float(statistics.iqm(final)):.2f} [{float(low):.2f}, {float(high):.2f}]")

updates = (np.arange(SEGMENTS) + 1) * run.updates_per_segment
for setting, coefficient in enumerate(hypers.actor_bc_coef):
    mean, spread = scores[setting].mean(0), scores[setting].std(0)
    plt.plot(updates, mean, label=f"{coefficient:g}")
    plt.fill_between(updates, mean - spread, mean + spread, alpha=0.2)
plt.xlabel("updates")
plt.ylabel("fraction of steps at the goal")
plt.legend(title="actor_bc_coef")
plt.show()

# %% [markdown]
# Too little cloning and the policy leaves the data; too much and it stays there. `result.frame()` is a pandas table with
# one row per member and evaluation, `result.member(setting, seed)` one member's state.

# %%
result.frame().head()

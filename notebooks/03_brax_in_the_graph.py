# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxrl-reg/jaxrl_reg/blob/main/notebooks/03_brax_in_the_graph.ipynb)
#
# # Brax inside the compiled loop
#
# Physics, exploration, replay, updates and evaluation in one compiled program, for several seeds at once.

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
import matplotlib.pyplot as plt
import numpy as np

import jaxrl_reg as jr
from jaxrl_reg.agents import sac
from jaxrl_reg.evaluation import returns

# %% [markdown]
# ## One environment, many environments
#
# `Env` is two pure functions for one environment. `vectorize` batches it and resets finished episodes on its own;
# `final_observation` is always what the action led to, so time-outs are bootstrapped through.

# %%
# Small: Brax's own test environment, which has next to no physics to compile.
name = "brax/fast" if SMALL else "brax/inverted_pendulum"
env = jr.envs.make(name, backend="spring", episode_length=20 if SMALL else 200)
batch = jr.envs.vectorize(env, 8)


@jax.jit
def random_play(key):
    act = lambda observation, key: jax.random.uniform(key, (8, env.spec.action_dim), minval=-1.0)
    state = batch.reset(jax.random.fold_in(key, 0))
    return jr.loops.rollout(batch, act, state, jax.random.fold_in(key, 1), length=64)[1]


trajectory = random_play(jax.random.key(0))
print({name: getattr(trajectory, name).shape for name in ("observation", "action", "reward", "last")})

# %% [markdown]
# ## Learn online, in the graph
#
# `loops.online` makes a `Run`: acting, replay and updates in a scan. `population.sweep` maps it over seeds, as it does
# with offline runs.

# %%
STEPS, SEGMENTS, SEEDS = (128, 2, 1) if SMALL else (12_000, 6, 3)
agent = sac.make(sac.Config(hidden=(8,) if SMALL else (64, 64)), env.spec)
run = jr.loops.online(
    agent, env, steps=STEPS, num_envs=8, segments=SEGMENTS, updates=4, batch_size=128, warmup=64 if SMALL else 1_000,
    evaluate=returns.evaluator(env, 4),
)  # fmt: skip
result = jr.population.sweep(run, seeds=SEEDS, hypers=jr.population.grid(sac.Hyper()), on_plan=print)

# %%
steps = (np.arange(SEGMENTS) + 1) * STEPS // SEGMENTS
for seed in range(SEEDS):
    plt.plot(steps, result.metrics["eval/return"][0, seed], "o-", label=f"seed {seed}")
plt.xlabel("environment steps")
plt.ylabel("return")
plt.legend()
plt.show()
assert np.isfinite(result.metrics["eval/return"]).all()

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxrl-reg/jaxrl_reg/blob/main/notebooks/06_fine_tune_and_deploy.ipynb)
#
# # Fine-tune online, and deploy
#
# A policy learns from data that are careful, goes on in the environment, and leaves as a folder that runs with JAX alone.

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
import importlib.util
import shutil

import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxrl_reg as jr

EPISODES, LENGTH = (20, 10) if SMALL else (500, 30)
for folder in ("runs/offline", "runs/online", "policy"):
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run of this notebook

# %% [markdown]
# ## Data
#
# In `pointnav` a point moves by half its action, and its motor stalls when asked for more than 0.6. Whoever collected
# the data was careful: no action is above 0.3, half of what the motor can do.

# %%
world = {"task": "top_right", "episode_length": LENGTH}
env = jr.envs.make("pointnav", **world)


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
    rows(following.final_observation), name="careful",
)  # fmt: skip
jr.data.save(data, "careful.hdf5")
print(jr.data.summary(data))

# %% [markdown]
# ## Offline
#
# A run is a directory: settings, metrics, checkpoints. `lean` leaves out the rival and the report; `say=print` would tell
# what goes on.

# %%
SEEDS, UPDATES, SEGMENTS, HIDDEN = (1, 8, 2, (8,)) if SMALL else (4, 4_000, 4, (64, 64))
offline = jr.jobs.sweep(
    jr.jobs.SweepConfig(
        env="pointnav", env_settings=world, dataset="careful.hdf5", agent="td3_bc", settings={"discount": 0.9},
        seeds=SEEDS, updates=UPDATES, segments=SEGMENTS, batch_size=8 if SMALL else 128, hidden=HIDDEN,
        eval_episodes=2 if SMALL else 32,
    ),
    directory="runs/offline", lean=True,
)  # fmt: skip

# %% [markdown]
# ## Online
#
# Every member goes on from its own state, with the data in each batch; its curve goes on from the last offline evaluation.

# %%
STEPS = 16 if SMALL else 4_000
online = jr.jobs.finetune("runs/offline", out="runs/online", steps=STEPS, segments=SEGMENTS, lean=True)

before, after = (one.result.metrics["eval/return"][0] / LENGTH for one in (offline, online))  # (seeds, evaluations)
plt.plot(np.linspace(0, UPDATES, SEGMENTS + 1)[1:], before.mean(0), "o-", label="offline")
both = np.concatenate([before[:, -1:], after], axis=1)
plt.plot(UPDATES + np.linspace(0, STEPS, SEGMENTS + 1), both.mean(0), "o-", label="online")
plt.xlabel("updates, one for each step online")
plt.ylabel("fraction of steps at the goal")
plt.legend()
plt.show()
print(f"offline {before[:, -1].mean():.2f}, online {after[:, -1].mean():.2f}")
assert SMALL or after[:, -1].mean() > before[:, -1].mean()

# %% [markdown]
# ## Act
#
# `load_policy` takes the best member; it needs neither environment nor data. Observations may be one or many.

# %%
act = jr.load_policy("runs/online")
print(act.about)
starts = jax.vmap(env.reset)(jax.random.split(jax.random.key(1), 4))
step, state, path = jax.jit(jax.vmap(env.step)), starts, [starts.observation]
for _ in range(LENGTH):
    state = step(state, act(state.observation))
    path.append(state.final_observation)
plt.plot(*np.moveaxis(np.stack(path)[..., :2], -1, 0), ".-")
plt.xlabel("x")
plt.ylabel("y")
plt.show()

# %% [markdown]
# ## Take it away
#
# `export` writes the policy as a program for CPU, CUDA and TPU, with its parameters and a loader beside it. The loader
# imports JAX and nothing of this package; there is no pickle in the folder.

# %%
folder = jr.jobs.export("runs/online", "policy")
print(sorted(file.name for file in folder.iterdir()))

spec = importlib.util.spec_from_file_location("exported", folder / "act.py")
exported = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exported)
action, carry = exported.act(np.asarray(starts.observation), exported.start(4))
act.reset()
print(action)
assert np.allclose(action, act(starts.observation), atol=1e-5)

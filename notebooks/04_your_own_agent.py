# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxrl-reg/jaxrl_reg/blob/main/notebooks/04_your_own_agent.ipynb)
#
# # Your own agent
#
# An agent is one module: `PAPER`, `KIND`, `Config`, `Hyper`, `State`, `make`. Nothing is registered. Here is one that
# clones the better half of the data, softly; then it is checked by the same suite as ours, and swept.

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
import pathlib
import sys

SOURCE = '''
"""Advantage-filtered cloning: regress on actions whose episode ranked high, with a soft threshold.

Metrics: ``actor_loss`` weighted mean squared error; ``weight`` mean weight.
"""
import dataclasses
from typing import NamedTuple

import jax
import optax

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.policies import deterministic
from jaxrl_reg.types import Agent, Paper, pytree, setting

PAPER = Paper("Softly filtered cloning", "You", 2026, "https://example.org")
KIND = "offline"


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple = setting(default=(64, 64), help="widths of the hidden layers")


@pytree
class Hyper:
    learning_rate: float = setting(default=3e-4, help="Adam step size")
    threshold: float = setting(default=0.5, help="rank of an episode at which its weight is one half")
    sharpness: float = setting(default=10.0, help="how sharply weights fall below the threshold")


class State(NamedTuple):
    actor: _common.Trainable


def make(config, spec):
    network = deterministic.make(spec, config.hidden)

    def init(key, hyper):
        return State(_common.trainable(network.init(key), optax.adam(hyper.learning_rate)))

    def update(state, batch, hyper, key, step):
        weight = jax.nn.sigmoid(hyper.sharpness * (batch.return_rank - hyper.threshold))

        def loss(params):
            action = network.apply(params, batch.observation)
            value = (weight * losses.behaviour_cloning_loss(action, batch.action)).mean()
            return value, {"actor_loss": value, "weight": weight.mean()}

        actor, metrics = _common.descend(loss, state.actor, optax.adam(hyper.learning_rate))
        return State(actor), metrics

    def act(state, observation, hyper, key, explore):
        return network.apply(state.actor.params, observation)

    return Agent(init, update, act)
'''
pathlib.Path("my_agent.py").write_text(SOURCE)
sys.path.insert(0, ".")

# %% [markdown]
# ## Check it
#
# The contract suite: jit, vmap, no retrace, no dead hyperparameter, no key reuse, finite at extremes, resume, and more.

# %%
import my_agent

from jaxrl_reg import contract

results = contract.check_agent(my_agent)
for result in results:
    print(result)

# %% [markdown]
# ## Sweep it

# %%
import jax
import numpy as np

import jaxrl_reg as jr

module = my_agent
key = jax.random.key(0)
rows, length = 2_000, 20
observation = jax.random.normal(key, (rows, 3))
expert = np.tanh(np.asarray(observation[:, :2]))
noise = np.repeat(np.random.default_rng(0).uniform(0, 1, rows // length), length)  # per episode: how bad it is
action = np.clip(expert + noise[:, None] * np.random.default_rng(1).normal(size=expert.shape), -1, 1)
ends = (np.arange(rows) % length == length - 1).astype(np.float32)
data = jr.data.from_arrays(observation, action, -noise, np.zeros(rows), ends, observation, name="noisy")

agent = module.make(module.Config(), data.spec)
hypers = jr.population.grid(module.Hyper(learning_rate=1e-3), threshold=[0.0, 0.5, 0.9])
run = jr.loops.offline(agent, updates=100 if SMALL else 2_000, segments=2)
sweep = jr.population.sweep(run, seeds=2 if SMALL else 4, hypers=hypers, data=data)
for setting in range(3):
    hyper = sweep.hyper(setting)
    error = [
        float(np.square(agent.act(sweep.member(setting, s), observation, hyper, key, False) - expert).mean())
        for s in range(len(sweep.seeds))
    ]
    print(f"threshold {float(hyper.threshold):.1f}: squared error to the clean expert {np.mean(error):.4f}")
pathlib.Path("my_agent.py").unlink()

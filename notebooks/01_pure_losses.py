# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxrl-reg/jaxrl_reg/blob/main/notebooks/01_pure_losses.ipynb)
#
# # Pure losses in your own JAX code
#
# A loss here is a function of arrays: no network, no parameters, no framework. This notebook borrows a few of them and
# never touches our loops.

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
    source = "jaxrl-reg @ git+https://github.com/jaxrl-reg/jaxrl_reg"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", "--constraint", "pins.txt", source])

SMALL = os.environ.get("JAXRL_REG_SMALL") == "1"  # tiny sizes, for the tests

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

from jaxrl_reg.losses import awr_weight, expectile_loss, td_target

# %% [markdown]
# ## Expectiles: from the mean towards the maximum
#
# `expectile_loss(difference, expectile)` takes target minus prediction and returns one value per example. Every scalar
# may be traced, so one `vmap` fits nine expectiles at once.

# %%
samples = jax.random.gamma(jax.random.key(0), 2.0, (2_000,))  # skewed on purpose
levels = jnp.linspace(0.1, 0.9, 9)


def fit(expectile):
    def step(v, _):
        gradient = jax.grad(lambda v: expectile_loss(samples - v, expectile).mean())(v)
        return v - 1.0 * gradient, None

    return jax.lax.scan(step, jnp.zeros(()), None, length=200)[0]


values = jax.jit(jax.vmap(fit))(levels)
plt.hist(samples, bins=60, color="#cbd5e0")
for level, value in zip(levels, values, strict=True):
    plt.axvline(value, color=plt.cm.viridis(float(level)), label=f"{level:.1f}")
plt.legend(title="expectile", fontsize=8)
plt.xlabel("sample")
plt.show()
assert bool(jnp.all(jnp.diff(values) > 0)) and abs(float(values[4]) - float(samples.mean())) < 1e-3

# %% [markdown]
# ## A whole offline agent out of three losses
#
# A chain of ten states: action 1 moves right, action 0 left, reward 1 at the right end. The data come from a policy that
# moves right only 30% of the time. Implicit Q-learning in a table: `expectile_loss` for V, `td_target` for Q,
# `awr_weight` for the policy. The loop, the parameters and the optimiser are yours.

# %%
N, GAMMA, ROWS = 10, 0.9, 4_000
keys = jax.random.split(jax.random.key(1), 2)
state = jax.random.randint(keys[0], (ROWS,), 0, N)
action = jax.random.bernoulli(keys[1], 0.3, (ROWS,)).astype(jnp.int32)
next_state = jnp.clip(state + 2 * action - 1, 0, N - 1)
reward = (next_state == N - 1).astype(jnp.float32)
discount = jnp.ones(ROWS)  # 0 only where an episode truly ends; gamma is not folded in


def loss(params, expectile, inverse_temperature):
    q = params["q"][state, action]
    v = params["v"][state]
    advantage = jax.lax.stop_gradient(q) - v
    value_loss = expectile_loss(advantage, expectile).mean()
    target = jax.lax.stop_gradient(td_target(reward, discount, params["v"][next_state], GAMMA))
    q_loss = jnp.square(q - target).mean()
    weight = awr_weight(advantage, inverse_temperature, 100.0)  # no gradient flows through it
    log_prob = jax.nn.log_softmax(params["logits"])[state, action]
    return value_loss + q_loss - (weight * log_prob).mean()


def train(expectile, inverse_temperature, steps=300 if SMALL else 3_000):
    params = {"q": jnp.zeros((N, 2)), "v": jnp.zeros(N), "logits": jnp.zeros((N, 2))}
    optimiser = optax.adam(0.05)

    def step(carry, _):
        params, opt_state = carry
        gradients = jax.grad(loss)(params, expectile, inverse_temperature)
        updates, opt_state = optimiser.update(gradients, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), None, length=steps)
    return jax.nn.softmax(params["logits"])[:, 1]


temperatures = jnp.array([0.0, 3.0, 10.0])
right = jax.jit(jax.vmap(train, in_axes=(None, 0)))(0.9, temperatures)
for temperature, probabilities in zip(temperatures, right, strict=True):
    plt.plot(probabilities, "o-", label=f"inverse temperature {temperature:g}")
plt.xlabel("state")
plt.ylabel("probability of moving right")
plt.legend()
plt.show()
# With inverse temperature 0 the policy is the data's; the larger it is, the more it improves on the data.
assert abs(float(right[0].mean()) - 0.3) < 0.05 and float(right[2].mean()) > float(right[0].mean()) + 0.2

# %% [markdown]
# ## A loss of generative models
#
# The diffusion and flow toolbox is functions too; the network is a closure of yours. A velocity (flow matching) knows
# the mean of what a noisy point may have been, so one step from the noise ends between the modes; an average velocity
# (MeanFlow) jumps to them. Arrows: a third of the way from a point to what one evaluation makes of it.

# %%
from jaxrl_reg import generative as g
from jaxrl_reg.networks import denoisers
from jaxrl_reg.types import Spec

UPDATES, BATCH, WIDTHS = (20, 32, (16,)) if SMALL else (3_000, 256, (128, 128, 128))
ring = g.ring(8, 2.0, 0.08)


def fit_flow(times, loss_of):
    network = denoisers.denoiser_mlp(Spec(0, 2), WIDTHS, "silu", times=times, time_scale=10.0)
    optimiser = optax.adam(1e-3)
    params = network.init(jax.random.key(2))

    def step(carry, key):
        params, opt_state = carry
        data_key, loss_key = jax.random.split(key)
        x0 = ring.sample(data_key, BATCH)
        slope = jax.grad(lambda p: loss_of(loss_key, lambda *x: network.apply(p, *x), x0)[0].mean())(params)
        updates, opt_state = optimiser.update(slope, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    keys = jax.random.split(jax.random.key(3), UPDATES)
    (params, _), _ = jax.jit(lambda start: jax.lax.scan(step, start, keys))((params, optimiser.init(params)))
    return lambda *x: network.apply(params, *x)


velocity = fit_flow(1, g.flow_matching_loss)
average = fit_flow(2, lambda key, u, x0: g.meanflow_loss(key, u, x0, equal_fraction=0.5))
noise = jax.random.normal(jax.random.key(4), (1_000, 2))
drawn = {
    "flow matching, 1 step": g.integrate(velocity, noise, g.flow_times(1)),
    "flow matching, 50 steps": g.integrate(velocity, noise, g.flow_times(50)),
    "MeanFlow, 1 step": g.jump(average, noise, g.flow_times(1)),
}
half = 0.5 * jnp.stack(jnp.meshgrid(*[jnp.linspace(-2.6, 2.6, 14)] * 2), -1).reshape(-1, 2)  # z at time 1/2
at = jnp.full(len(half), 0.5)
fields = {"velocity": half - 0.5 * velocity(half, at), "average velocity": half - 0.5 * average(half, 0 * at, at)}

figure, axes = plt.subplots(1, 5, figsize=(14, 3), layout="constrained")
for axis, (name, ends) in zip(axes, fields.items(), strict=False):
    axis.quiver(*2 * half.T, *(ends - 2 * half).T / 3, angles="xy", scale_units="xy", scale=1, width=0.005)
    axis.set_title(name, fontsize=9)
for axis, (name, points) in zip(axes[2:], drawn.items(), strict=True):
    axis.plot(*ring.sample(jax.random.key(5), 1_000).T, ".", color="#cbd5e0", ms=2)
    axis.plot(*points.T, ".", color="#2b6cb0", ms=1)
    axis.set_title(name, fontsize=9)
for axis in axes:
    axis.set(xlim=(-2.9, 2.9), ylim=(-2.9, 2.9), aspect="equal", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# Every method of the toolbox on this ring, measured over seeds, by `python -m experiments run toolbox_2d`:
#
# ![fields and samples of every method](../experiments/generative/results/toolbox_2d_samples.png)

# %% [markdown]
# Wrong shapes raise; nothing is broadcast behind your back.

# %%
try:
    td_target(reward, discount, jnp.zeros((ROWS, 1)), GAMMA)
except ValueError as error:
    print(error)

"""Policy-Guided Diffusion: does guidance move synthetic trajectories towards the target policy, and what does it cost?

A linear system with linear Gaussian policies, so that every likelihood is known: s' = 0.95 s + 0.5 a + 0.02 n, the
data's policy is a = -0.2 s + 0.3 n, the target policy a = -0.8 s + 0.15 n. A perceptron learns to denoise windows of 16
steps of the data; generation is then steered by the target policy's density with coefficient c. Beside the metric the
run prints how likely the behaviour policy finds the trajectories, and the error of their dynamics (noise: 0.020).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from jaxrl_reg import data, population
from jaxrl_reg.data.trajectories import trajectories
from jaxrl_reg.loops import synthetic
from jaxrl_reg.networks.temporal import temporal_mlp

CLAIM = Claim(
    statement="Steered by a policy's density, a diffusion model of trajectories draws experience nearer to that policy "
    "than the data or its own unsteered draws, the more so the larger the coefficient c; up to c = 0.3 the "
    "trajectories are also no less likely under the data's policy, at c = 3 far less",
    paper="https://arxiv.org/abs/2404.06356",
    method="guided, c = 0.3",
    baselines=("real data",),
    ablation="unguided",
    metric="log-likelihood per step under the target policy (nats)",
    systems=(17,),
    margin=1.0,
    seeds=5,
    chosen="seeds 100 to 104: over real data 1.82, sd 0.16; power 1.000",
)
LENGTH = 16
UNIT = 10.0  # an action of 1 in the data set is a push of 10, so that none needs clipping
COEFFICIENTS = (0.0, 0.1, 0.3, 1.0, 3.0)
SIZES = {  # episodes of data, hidden widths, updates, windows generated, levels of noise
    "small": (4_000, (256, 256), 12_000, 512, 64),
    "full": (20_000, (512, 512, 512), 100_000, 2_048, 256),
}


def log_density(observation, push, gain, std):
    """``log N(push; gain * observation, std^2)``, ``[...]``."""
    z = (push - gain * observation) / std
    return (-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi))[..., 0]


def target(observation, action):
    return log_density(observation, UNIT * action, -0.8, 0.15)


def behaviour(observation, action):
    return log_density(observation, UNIT * action, -0.2, 0.3)


def episodes(count: int, seed: int):
    """Episodes of the data's policy from s ~ N(0, 1); the rewards are 0 and play no part."""
    rng = np.random.default_rng(seed)
    state, rows = rng.normal(size=count), []
    for _ in range(LENGTH):
        push = -0.2 * state + 0.3 * rng.normal(size=count)
        following = 0.95 * state + 0.5 * push + 0.02 * rng.normal(size=count)
        rows.append((state, push / UNIT, following))
        state = following
    observation, action, following = (np.stack(column, axis=1).reshape(-1, 1) for column in zip(*rows, strict=True))
    truncated = np.arange(count * LENGTH) % LENGTH == LENGTH - 1
    flat = np.zeros(count * LENGTH)
    return data.from_arrays(observation, action, flat, flat, truncated, following, name="linear system")


def measures(rows) -> dict[str, jax.Array]:
    """Log-likelihoods per step under both policies, and the root mean squared error of the dynamics."""
    error = rows.next_observation - 0.95 * rows.observation - 0.5 * UNIT * rows.action
    return {
        "target": target(rows.observation, rows.action).mean(),
        "behaviour": behaviour(rows.observation, rows.action).mean(),
        "dynamics": jnp.sqrt(jnp.square(error).mean()),
    }


def run(seeds, scale, say):
    count, hidden, updates, windows, levels = SIZES[scale]
    dataset = episodes(count, seed=20_240)
    views = trajectories(dataset, LENGTH, squash=False)
    network = temporal_mlp(LENGTH, views.scaler.channels, hidden)
    fitting = synthetic.fit(network, updates=updates, segments=4, batch_size=128)
    hypers = population.stack([synthetic.FitHyper()])
    fitted = population.sweep(fitting, seeds=list(seeds), hypers=hypers, data=views)
    losses = fitted.metrics["model_loss"][0].mean(axis=0)
    say(f"denoiser: {fitted.plan}; loss {losses[0]:.3f} to {losses[-1]:.3f}")

    @functools.partial(jax.jit, static_argnames="guided")
    def draw(params, key, coefficient, guided):
        make = synthetic.generator(network, windows=windows, length=LENGTH, steps=levels, coefficient=coefficient)
        return measures(make(key, synthetic.TrajectoryModel(params, views.scaler), target if guided else None))

    results: dict[str, list[float]] = {}
    for c in COEFFICIENTS:
        name = f"guided, c = {c:g}" if c else "unguided"
        drawn = []
        for row, seed in enumerate(seeds):
            params = jax.tree.map(lambda leaf, row=row: jnp.asarray(leaf[0, row]), fitted.state.average)
            drawn.append(jax.device_get(draw(params, jax.random.key(seed), c, c > 0)))
        results[name] = [float(one["target"]) for one in drawn]
        say(f"{name}: " + ", ".join(f"{key} {np.mean([one[key] for one in drawn]):.3f}" for key in drawn[0]))
    fresh = [jax.device_get(measures(episodes(count, seed=30_000 + seed))) for seed in seeds]
    results["real data"] = [float(one["target"]) for one in fresh]
    say("real data: " + ", ".join(f"{key} {np.mean([one[key] for one in fresh]):.3f}" for key in fresh[0]))
    return results

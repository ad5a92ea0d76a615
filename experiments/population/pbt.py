"""Population-based training against random search, where the best learning rate falls while training goes on.

A cloned policy learns from noisy actions in small batches. A large step gets close soon and then keeps jumping about;
a small one ends up closer and is too slow to get there. What counts is the distance to the actions without noise.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.arms import over_devices
from experiments.harness import Claim
from jaxrl_reg import data, population
from jaxrl_reg.agents import bc
from jaxrl_reg.evaluation import plots
from jaxrl_reg.loops import offline
from jaxrl_reg.types import Spec

CLAIM = Claim(
    statement="Population-based training ends below the best of as many runs with constant random learning rates, at "
    "equal updates, where the best learning rate falls during training; copying without moving the learning rate is "
    "not enough",
    paper="https://arxiv.org/abs/1711.09846",
    method="PBT",
    baselines=("random search",),
    ablation="PBT without exploring",
    metric="log10 of the squared distance to the noiseless actions, best member",
    higher_is_better=False,
    margin=0.0,
    seeds=10,
    chosen="seeds 100 to 104: over PBT without exploring 0.335, sd 0.16; power 1.000",
)
RANGES = {"learning_rate": "log:0.00001:0.1"}
SIZES = {
    "small": (16, 4_000, 40, (32, 32)),
    "full": (64, 100_000, 100, (256, 256)),
}  # members, updates, segments, widths
ROWS, NOISE, BATCH = 20_000, 0.3, 16


def wanted(s):
    return 0.6 * jnp.stack([jnp.cos(3 * s[..., 0]), jnp.sin(3 * s[..., 1])], axis=-1)


def noisy(key):
    """States, and what the policy should do there with normal noise on it."""
    s_key, a_key = jax.random.split(key)
    s = jax.random.uniform(s_key, (ROWS, 2), minval=-1.0, maxval=1.0)
    a = jnp.clip(wanted(s) + NOISE * jax.random.normal(a_key, (ROWS, 2)), -1.0, 1.0)
    zeros, ends = np.zeros(ROWS), np.arange(ROWS) == ROWS - 1
    return data.from_arrays(np.asarray(s), np.asarray(a), zeros, zeros, ends, np.asarray(s), name="noisy")


def run(seeds, scale, say, out):
    members, updates, segments, hidden = SIZES[scale]
    agent = bc.make(bc.Config(hidden=hidden), Spec(2, 2))
    rows = noisy(jax.random.key(20_240))
    fresh = jax.random.uniform(jax.random.key(7), (1024, 2), minval=-1.0, maxval=1.0)

    def evaluate(state, index, key, hyper):
        distance = jnp.square(agent.act(state, fresh, hyper, key, False) - wanted(fresh)).sum(-1).mean()
        return {"eval/return": -jnp.log10(distance)}

    training = dataclasses.replace(
        offline(agent, batch_size=BATCH, updates=updates, segments=segments), evaluate=evaluate
    )
    devices = jax.devices() if members % len(jax.devices()) == 0 else jax.devices()[:1]

    def arm(**options):
        evolve = jax.jit(population.evolve(training, RANGES, devices=devices, **options))

        def one(seed):
            hypers = population.sample(bc.Hyper(), members, seed=seed, **RANGES)
            keys = jax.vmap(jax.random.key)(1000 * seed + jnp.arange(members))
            return jax.device_get(evolve(jax.random.key(seed), keys, hypers, rows))

        return [one(seed) for seed in seeds]

    arms = {"PBT": arm(), "PBT without exploring": arm(factor=1.0)}
    drawn = [population.sample(bc.Hyper(), members, seed=seed, **RANGES) for seed in seeds]
    constant = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *drawn)
    of_seed = jnp.repeat(jnp.asarray(seeds), members)

    def apart(member):
        seed, hyper = member
        return training(jax.random.key(seed), hyper, rows)[1]["eval/return"]

    curves = over_devices(apart, (of_seed, constant)).reshape(len(seeds), members, segments)
    best = {name: [-float(one.metrics["eval/return"][-1].max()) for one in found] for name, found in arms.items()}
    best["random search"] = (-curves[:, :, -1].max(axis=1)).tolist()
    for name, values in best.items():
        say(f"{name}: {np.mean(values):.3f}")
    for t in (segments // 10, segments // 2, segments - 1):
        rates = [float(one.learning_rate[curve[:, t].argmax()]) for one, curve in zip(drawn, curves, strict=True)]
        after = (t + 1) * updates // segments
        say(f"best constant learning rate after {after} updates: {np.exp(np.log(rates).mean()):.1e}")
    shown = arms["PBT"][0]
    line = population.ancestry(shown.parents, int(shown.metrics["eval/return"][-1].argmax()))
    picture = plots.lineage(shown.hypers.learning_rate, shown.parents, line, ylabel="learning rate")
    (out / "pbt_lineage.png").write_bytes(plots.encode(picture))
    return best

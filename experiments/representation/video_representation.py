"""What an encoder learns from videos of a random walk seen through noise: where it may, and where it cannot.

The walk is on a grid of 25 cells; an observation mixes the cell with 16 numbers of noise that are much larger. Noise is
absent, fresh at every step, or moves slowly by its own dynamics. Judged is how often a perceptron reads the cell, of
which chance gives 0.04, from six features. Inverse dynamics is told the actions; the others see videos only. The two
that draw observations are also tried with a quantised bottleneck: three features at a time are one of 64 codes.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from jaxrl_reg import data, envs, networks, population, representation
from jaxrl_reg.loops import rollout
from jaxrl_reg.loops.pretrain import Hyper, pretrain

CLAIM = Claim(
    statement="Temporal contrast over videos finds the state behind noise that is fresh at every step (accuracy at "
    "least 0.95), where autoencoding finds the noise (at most 0.2); behind noise with dynamics of its own it finds "
    "none of the state (at most 0.2), as no objective over videos can be sure to, while inverse dynamics, told the "
    "actions, does (at least 0.8). The margin is the distance between those bounds",
    paper="https://arxiv.org/abs/2403.13765",
    method="temporal contrast, fresh noise",
    baselines=("autoencoding, fresh noise",),
    ablation="temporal contrast, exogenous noise",
    metric="accuracy of the decoded state",
    systems=(46,),
    margin=0.75,
    seeds=5,
    chosen="seeds 840 to 844: over temporal contrast, exogenous noise 0.952, sd 0.0021; power 1.000",
)
NOISES = {"fresh noise": "iid", "exogenous noise": "exogenous", "no noise": "none"}
SIZES = {
    "small": (1000, 1500, (128,), 500),
    "full": (10_000, 20_000, (256, 256), 5000),
}  # videos, updates, hidden, probe
FEATURES, CODEBOOK = 6, (64, 2)  # codes, heads


def one_hot_actions(observation, key):
    """A move at random, as probabilities of the four."""
    return jax.nn.one_hot(jax.random.randint(key, observation.shape[:-1], 0, 4), 4)


def videos(env, key, count):
    """A data set of whole episodes and the cell behind every observation, int ``[N]``."""
    batch = envs.vectorize(env, count)
    reset_key, act_key = jax.random.split(key)

    def cells(state):
        return {"cell": envs.unwrap(state.inner)}

    steps = env.spec.max_episode_steps
    _, trajectory = jax.jit(lambda start: rollout(batch, one_hot_actions, start, act_key, steps, cells))(
        jax.jit(batch.reset)(reset_key)
    )
    rows = data.from_transitions(trajectory, name="videos")
    return dataclasses.replace(rows, extras={}), rows.extras["cell"]


def first_half(rows):
    """Of a data set whose episodes are all of one length."""
    return jax.tree.map(lambda leaf: leaf[: rows.size // 2] if leaf.ndim else leaf, rows)


def objectives(spec, hidden):
    encoder = networks.mlp((spec.observation_dim, *hidden, FEATURES))
    return {
        "temporal contrast": representation.temporal_contrast(spec, encoder),
        "forward modelling": representation.forward_dynamics(spec, encoder, hidden, with_action=False),
        "autoencoding": representation.autoencoding(spec, encoder, hidden),
        "forward modelling, quantised": representation.forward_dynamics(
            spec, encoder, hidden, with_action=False, bottleneck=representation.vector_quantised(FEATURES, *CODEBOOK)
        ),
        "autoencoding, quantised": representation.autoencoding(
            spec, encoder, hidden, bottleneck=representation.vector_quantised(FEATURES, *CODEBOOK)
        ),
        "inverse dynamics": representation.inverse_dynamics(spec, encoder, hidden, discrete=True),
    }


def run(seeds, scale, say):
    count, updates, hidden, probing = SIZES[scale]
    seeds = list(seeds)
    # Without noise there is nothing to learn, every objective finds the cell: shown for two seeds, not returned.
    members = [(noise, seed) for noise in NOISES for seed in (seeds if NOISES[noise] != "none" else seeds[:2])]
    parts = []
    for noise, seed in members:
        env = envs.make("exogenous", noise=NOISES[noise], seed=seed)
        rows, cell = videos(env, jax.random.key(seed), 2 * count)
        (cell, test_cell), test = np.split(np.asarray(cell), 2), rows.observation[rows.size // 2 :]
        parts.append((jax.random.key(seed), first_half(rows), cell, test, test_cell))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    used = max(d for d in range(1, len(jax.devices()) + 1) if len(members) % d == 0)
    values: dict[str, list[float]] = {}
    for name, objective in objectives(envs.make("exogenous").spec, hidden).items():
        run = pretrain(objective, updates=updates, sample=data.future(1))

        def accuracy(member, hyper, run=run, objective=objective):
            key, rows, cell, test, test_cell = member
            state, _ = run(key, hyper, rows)
            features = [objective.encode(state.params, seen) for seen in (rows.observation, test)]
            return representation.classifier_probe(key, features[0], cell, features[1], test_cell, 25, steps=probing)

        found = jax.jit(population.over_members(accuracy, 1, jax.devices()[:used]))(stacked, Hyper(weight_decay=0.0))
        for (noise, _), value in zip(members, np.asarray(found), strict=True):
            values.setdefault(f"{name}, {noise}", []).append(float(value))
    for arm, found in values.items():
        say(f"{arm}: {np.mean(found):.3f}")
    return {arm: found for arm, found in values.items() if not arm.endswith("no noise")}

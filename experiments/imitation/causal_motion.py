"""Causal motion forecasting: does an invariance penalty keep a predictor off a feature whose scale will change?

A displacement in the plane is a linear function of four inputs plus noise of 0.6, so no predictor from the inputs errs
by less than 0.75 on average. A fifth input is computed from the future: c = alpha (1 + length of the displacement),
with alpha 1, 2, 4 and 8 in the four training environments and up to 64 in tests. A linear predictor sees the inputs, c,
a constant, and the inputs times c: with these it can scale its displacement by the length that c betrays, which helps
in training and misleads at other alphas.

The weight and the 4,000 examples per environment were chosen on seeds 0 to 4: weights 1 and 5 do equally well, at 50
the four penalties drown the risks, and the penalty of 1,000 examples is noisy (seeds 100 to 104 then gave 0.64 of ERM's
error with an interval from 0.42 to 0.85, short of the margin). The record is on seeds seen by neither.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import Claim
from jaxrl_reg import losses

CLAIM = Claim(
    statement="An invariance penalty (IRM, weight 5) takes a quarter off the error where a spurious feature is eight "
    "times larger than in any training environment, and costs at most 0.05 in distribution (where it costs more, it "
    "counts as no gain); a variance penalty (V-REx) does not, since the risks of the environments are equal",
    paper="https://arxiv.org/abs/2111.14820",
    method="IRM 5",
    baselines=("ERM",),
    ablation="V-REx 20",
    metric="average displacement error at alpha = 64, relative to ERM",
    systems=(52,),
    higher_is_better=False,
    margin=0.25,
    seeds=5,
    chosen="seeds 200 to 204: over ERM 0.565, sd 0.04; power 1.000",
)
INPUTS, NOISE = 4, 0.6
TRAINING, TESTS = (1.0, 2.0, 4.0, 8.0), (1.0, 8.0, 16.0, 32.0, 64.0)
ARMS = {  # weights of the invariance penalty and of the variance of risks
    "ERM": (0.0, 0.0),
    "IRM 1": (1.0, 0.0),
    "IRM 5": (5.0, 0.0),
    "IRM 50": (50.0, 0.0),
    "V-REx 20": (0.0, 20.0),
}
WARM_UP = 0.2  # share of training before the penalties begin: predicting nothing satisfies them too
SIZES = {"small": (3_000, 4_000), "full": (30_000, 20_000)}  # updates, examples per environment


def scenes(key, mixing, alphas, size):
    """Features ``[E, size, 10]`` and displacements ``[E, size, 2]``, one environment per alpha."""
    input_key, noise_key = jax.random.split(key)
    shape = len(alphas), size
    x = jax.random.normal(input_key, (*shape, INPUTS))
    y = x @ mixing + NOISE * jax.random.normal(noise_key, (*shape, 2))
    c = jnp.asarray(alphas)[:, None, None] * (1 + jnp.linalg.norm(y, axis=-1, keepdims=True))
    return jnp.concatenate([x, jnp.ones_like(c), c, c * x / 8], axis=-1), y


@functools.partial(jax.jit, static_argnames=("updates", "size"))
def train(key, weights, updates, size):
    """Average displacement error at every alpha of ``TESTS``."""
    mixing_key, data_key, test_key = jax.random.split(key, 3)
    mixing = jax.random.normal(mixing_key, (INPUTS, 2)) / 2
    features, target = scenes(data_key, mixing, TRAINING, size)
    unit = jnp.sqrt(jnp.square(features).mean((0, 1)))  # descent needs features of one size
    features = features / unit
    optimiser = optax.adam(optax.cosine_decay_schedule(1e-2, updates))

    def objective(weight, on):
        prediction = features @ weight
        risk = jnp.square(prediction - target).sum(-1).mean(-1)
        invariance = losses.irm_penalty(prediction, target).sum()
        return risk.sum() + on * (weights[0] * invariance + weights[1] * losses.vrex_penalty(risk))

    def body(carry, step):
        weight, moments = carry
        gradient = jax.grad(objective)(weight, step >= WARM_UP * updates)
        change, moments = optimiser.update(gradient, moments)
        return (optax.apply_updates(weight, change), moments), None

    weight = jnp.zeros((features.shape[-1], 2))
    (weight, _), _ = jax.lax.scan(body, (weight, optimiser.init(weight)), jnp.arange(updates))
    features, target = scenes(test_key, mixing, TESTS, 4_000)
    return jnp.linalg.norm(features / unit @ weight - target, axis=-1).mean(-1)


def run(seeds, scale, say):
    updates, size = SIZES[scale]
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    one = functools.partial(train, updates=updates, size=size)
    over_arms = jax.vmap(jax.vmap(one, in_axes=(0, None)), in_axes=(None, 0))
    errors = dict(zip(ARMS, np.array(over_arms(keys, jnp.asarray(list(ARMS.values())))), strict=True))
    for arm, values in errors.items():
        say(f"{arm}: error at alpha = {', '.join(f'{alpha:g}' for alpha in TESTS)}: {np.round(values.mean(0), 3)}")
    erm, method = errors["ERM"], errors[CLAIM.method]
    cost = method[:, 0] - erm[:, 0]
    say(f"cost in distribution (alpha 1): {np.round(cost, 3)}")
    method[:, -1] = np.where(cost <= 0.05, method[:, -1], erm[:, -1])
    return {arm: (values[:, -1] / erm[:, -1]).tolist() for arm, values in errors.items()}

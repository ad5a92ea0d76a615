"""A generator that climbs a learned reward, and what keeps it on its data: anchors of weights, outputs and populations.

The data are two Gaussians at (-1, 0) and (1, 0) of standard deviation 0.1. An action is truly worth 0.75 + 0.25 tanh(2
x) there, and nothing elsewhere. The learned reward knows that preference, not where the data end, and has a bump of
height 3 at (0, 3). A generator of two layers is first fitted to the data by the energy distance; then it climbs the
learned reward, by Adam on one of the regularised losses (by Langevin dynamics in one arm), in the same number of steps.

What an anchor can gain over the fitted generator is small. An anchor of outputs or weights ties every noise to where it
went, so the mode at -1 cannot move to 1. An anchor of the population would let it, but its cost grows with the square
of the mass that moves; a weak one lets a share of the samples go for the bump, a strong one goes on fitting the data,
with a reward or without ("no reward").
"""

from __future__ import annotations

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import Claim
from jaxrl_reg import generative, losses
from jaxrl_reg.networks.denoisers import denoiser_mlp
from jaxrl_reg.policies import flow
from jaxrl_reg.transforms import anchored, polyak, sgld
from jaxrl_reg.types import Spec

CLAIM = Claim(
    statement="A one-step generator that climbs a learned reward leaves its data for what the reward got wrong, and "
    "its true reward falls to nothing. A strong anchor of weights, outputs or the population keeps that of the fitted "
    "generator, a weak one does not; none gains more than a few hundredths, and what the population's gains is fit",
    paper="https://arxiv.org/abs/2503.13070",
    method="energy distance 5",
    baselines=("no anchor",),
    ablation="energy distance 0.5",
    metric="true reward",
    systems=(42,),
    margin=0.4,
    seeds=5,
    chosen="seeds 300 to 304: over energy distance 0.5 0.612, sd 0.039; power 1.000",
)
SPEC = Spec(observation_dim=0, action_dim=2)
MODES = jnp.array([[-1.0, 0.0], [1.0, 0.0]])
STD, REACH, PEAK = 0.1, 3.0, jnp.array([0.0, 3.0])
SIZES = {"small": ((64, 64), 2_000, 1_500, 128), "full": ((64, 64), 5_000, 10_000, 512)}  # widths, fit, climb, batch
OWN = "own training loss"  # of a MeanFlow, which the other arms do not use
COEFFICIENTS = {
    "no anchor": (0.0,),
    "weights": (0.1, 1.0, 10.0),
    "outputs": (0.3, 1.0, 3.0),
    "average": (1.0, 10.0),
    OWN: (1.0, 10.0, 100.0),
    "energy distance": (0.5, 1.0, 2.0, 5.0, 10.0),
    "energy distance, no reward": (5.0,),
    "MMD": (5.0, 20.0),
    "Langevin": (1.0, 10.0),
}
AVERAGE_RATE, TEMPERATURE = 0.005, 1e-4


def preference(a):
    return 0.75 + 0.25 * jnp.tanh(2 * a[..., 0])


def distance(a):
    """To the nearer mode, ``[...]``."""
    return jnp.sqrt(jnp.square(a[..., None, :] - MODES).sum(-1)).min(-1)


def true_reward(a):
    """The preference within ``REACH`` standard deviations of a mode, else 0."""
    return preference(a) * (distance(a) < REACH * STD)


def learned_reward(a):
    return preference(a) + 3.0 * jnp.exp(-0.5 * jnp.square(a - PEAK).sum(-1))


def behaviour(key, count):
    side_key, noise_key = jax.random.split(key)
    return MODES[jax.random.randint(side_key, (count,), 0, 2)] + STD * jax.random.normal(noise_key, (count, 2))


def models(hidden):
    """``(init, apply(params, noise) -> samples)`` of the perceptron, and of a MeanFlow in one jump."""
    student = flow.one_step(SPEC, hidden)
    network = denoiser_mlp(SPEC, hidden, "gelu", times=2, time_scale=10.0)

    def jump(params, noise):
        return generative.jump(functools.partial(network.apply, params), noise, generative.flow_times(1))

    def plain(params, noise):
        return student.apply(params, jnp.zeros((*noise.shape[:-1], 0)), noise)

    return (student.init, plain), (network, jump)


def own_loss(network, params, key, batch, power):
    """A MeanFlow's, ``[batch]``. Plain squared error (power 0) where it is an anchor: the adaptive weight would forgive
    what is far away."""
    data_key, loss_key = jax.random.split(key)
    field, data = functools.partial(network.apply, params), behaviour(data_key, batch)
    return generative.meanflow_loss(loss_key, field, data, equal_fraction=0.5, power=power)[0]


def descend(optimiser, loss, carry, key):
    params, moments, average = carry
    changes, moments = optimiser.update(jax.grad(loss)(params, average, key), moments, params)
    params = optax.apply_updates(params, changes)
    return (params, moments, polyak(params, average, AVERAGE_RATE)), None


@functools.partial(jax.jit, static_argnames=("meanflow", "scale"))
def fit(key, *, meanflow, scale):
    """Parameters of the perceptron, or of the MeanFlow, fitted to the data."""
    hidden, updates, _, batch = SIZES[scale]
    (init, apply), (network, _) = models(hidden)
    init_key, fit_key = jax.random.split(key, 5)[:2]

    def loss(params, average, key):
        noise_key, data_key = jax.random.split(key)
        if meanflow:
            return own_loss(network, params, key, batch, 1.0).mean()
        samples = apply(params, jax.random.normal(noise_key, (batch, 2)))
        return losses.energy_distance_loss(samples, behaviour(data_key, batch))

    params = network.init(init_key) if meanflow else init(init_key)
    adam = optax.adam(1e-3)
    start = params, adam.init(params), params
    return jax.lax.scan(functools.partial(descend, adam, loss), start, jax.random.split(fit_key, updates))[0][0]


@functools.partial(jax.jit, static_argnames=("kind", "scale"))
def climb(key, fitted, coefficient, *, kind, scale):
    """Samples ``[2, 2000, 2]`` of the fitted generator and of the one that has climbed."""
    hidden, _, updates, batch = SIZES[scale]
    (_, apply), (network, jump) = models(hidden)
    apply = jump if kind == OWN else apply
    _, _, climb_key, test_key, langevin_key = jax.random.split(key, 5)
    adam = optax.adam(1e-3)

    def cost(params, average, noise, samples, key):
        """The anchor of each sample, ``[batch]``."""
        if kind in ("outputs", "average"):
            return losses.behaviour_cloning_loss(samples, apply(fitted if kind == "outputs" else average, noise))
        if kind == OWN:
            return own_loss(network, params, key, batch, 0.0)
        if kind.startswith("energy distance"):
            return jnp.broadcast_to(losses.energy_distance_loss(samples, behaviour(key, batch)), (batch,))
        if kind == "MMD":
            return jnp.broadcast_to(losses.mmd_loss(samples, behaviour(key, batch), 0.5), (batch,))
        return jnp.zeros(batch)

    def climb_loss(params, average, key):
        noise_key, anchor_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (batch, 2))
        samples = apply(params, noise)
        anchor = cost(params, jax.lax.stop_gradient(average), noise, samples, anchor_key)
        rewards = learned_reward(samples)[None]
        weight = jnp.full(1, 0.0 if "no reward" in kind else 1.0)
        return losses.reward_generator_loss(rewards, weight, anchor, coefficient).mean()

    optimiser = {
        "weights": optax.chain(anchored(fitted, coefficient), adam),
        "Langevin": sgld(1e-2, TEMPERATURE, langevin_key, fitted, coefficient),
    }.get(kind, adam)
    start = fitted, optimiser.init(fitted), fitted
    climbing = functools.partial(descend, optimiser, climb_loss)
    (climbed, _, _), _ = jax.lax.scan(climbing, start, jax.random.split(climb_key, updates))
    noise = jax.random.normal(test_key, (2_000, 2))
    return jnp.stack([apply(fitted, noise), apply(climbed, noise)])


def figure(drawn: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """Samples over the learned reward, one panel an arm; crosses are the modes of the data."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    grid = np.stack(np.meshgrid(np.linspace(-2, 2, 120), np.linspace(-1, 4, 150)), axis=-1)
    level = np.asarray(learned_reward(jnp.asarray(grid)))
    columns = 6
    rows = -(-len(drawn) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(2.0 * columns, 2.6 * rows), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, points) in zip(axes.flat, drawn.items(), strict=False):
        axis.contourf(grid[..., 0], grid[..., 1], level, 12, cmap="Greys", alpha=0.6)
        axis.plot(*np.asarray(MODES).T, "+", color="#e53e3e", ms=9)
        axis.plot(*points.T, ".", color="#2b6cb0", ms=1)
        axis.set_title(f"{name}\ntrue reward {float(true_reward(points).mean()):.2f}", fontsize=7)
        axis.set(xlim=(-2, 2), ylim=(-1, 4), aspect="equal")
    fig.savefig(path, dpi=110)
    plt.close(fig)


def run(seeds, scale, say, out):
    keys = jax.vmap(jax.random.key)(jnp.asarray(list(seeds)))
    results, drawn = {}, {}

    def note(name, samples):
        """``samples [seeds, 2000, 2]``."""
        worth, near = true_reward(samples).mean(axis=1), (distance(samples) < REACH * STD).mean(axis=1)
        results[name], drawn[name] = [float(v) for v in worth], np.asarray(samples[0])
        say(
            f"{name}: true reward {float(worth.mean()):.3f}, learned {float(learned_reward(samples).mean()):.3f}, "
            f"on the data {float(near.mean()):.2f}, at the better mode {float((samples[..., 0] > 0).mean()):.2f}"
        )

    # All arms climb from the same two generators, fitted once.
    fitted = {
        meanflow: jax.vmap(functools.partial(fit, meanflow=meanflow, scale=scale))(keys) for meanflow in (False, True)
    }
    for kind, coefficients in COEFFICIENTS.items():
        over_seeds = jax.vmap(functools.partial(climb, kind=kind, scale=scale), in_axes=(0, 0, None))
        made = jax.vmap(over_seeds, in_axes=(None, None, 0))(keys, fitted[kind == OWN], jnp.asarray(coefficients))
        if kind in ("no anchor", OWN):
            note("fitted generator" if kind == "no anchor" else "fitted MeanFlow", made[0, :, 0])
        for row, coefficient in enumerate(coefficients):
            note(kind if kind == "no anchor" else f"{kind} {coefficient:g}", made[row, :, 1])
    figure(drawn, out / "reward_instruct_samples.png")
    return results

"""The generative toolbox, trained: every method on one ring of eight Gaussians, with the same network and budget.

A sample counts if it lies within three standard deviations of a mode: 0.99 of the target's own do, and 0.3 of a thin
circle through all modes, which is what a method draws that has learnt where the data are but not that they are eight
heaps. (On a ring of radius 1 instead of 2 such a circle would score 0.8 within four standard deviations, and pass for a
good model.) What a field can do in few steps separates the methods: a flow's velocity averages the modes in one step,
an average velocity jumps.

Three settings matter as much as the method. Sampling with averaged parameters: a tenth more of DDPM's and EDM's samples
hit a mode. The scale of the time embedding of average velocities: their loss differentiates by time, and at a scale of
1000 instead of 10 it explodes. The budget: at a third of the learning rate no method is done.

The figure has a row for each method: a picture of what it has learnt, and its samples over those of the target. In the
first panel arrows lead a quarter of the way from a point, taken as data with noise of 1, to what one evaluation makes
of it: the mean of what it may have been for fields of one level, a sample for those that jump.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import Claim
from jaxrl_reg import generative as g
from jaxrl_reg import population
from jaxrl_reg.networks.denoisers import denoiser_mlp
from jaxrl_reg.transforms import polyak
from jaxrl_reg.types import Network, Run, Spec, pytree, setting

CLAIM = Claim(
    statement="MeanFlow draws from a two-dimensional mixture in one step, where flow matching in one step hits no "
    "mode; its adaptive weight helps. Diffusion and flow matching in many steps, MeanFlow in two, put at least 85% "
    "into the modes, and miss none",
    paper="https://arxiv.org/abs/2505.13447",
    method="MeanFlow, 1 step",
    baselines=("flow matching, 1 step",),
    ablation="MeanFlow without adaptive weight, 1 step",
    metric="fraction of samples within 3 std of a mode",
    margin=0.1,
    seeds=5,
    chosen="seeds 300 to 304: over MeanFlow without adaptive weight, 1 step 0.419, sd 0.088; power 1.000",
)
STD, RADIUS, MODES = 0.08, 2.0, 8
REACH = 3.0  # standard deviations
GRID = np.stack(np.meshgrid(*[np.linspace(-2.6, 2.6, 14)] * 2), axis=-1).reshape(-1, 2).astype(np.float32)
SIGMA_DATA = 1.0
BETAS = g.cosine_betas(100)
LEVELS = g.karras(20, 0.02, 10.0)[:-1]  # of consistency training
SIZES = {"small": (4_000, 256, (128, 128, 128), 2_000), "full": (50_000, 1_024, (256, 256, 256), 10_000)}

Field = Callable[..., jax.Array]
Draw = Callable[[jax.Array, Field, jax.Array], jax.Array]  # key, field, noise [B, 2] -> samples [B, 2]


@pytree
class Hyper:
    learning_rate: float = setting(1e-3, "Adam step size")
    average_rate: float = setting(1e-3, "step of the averaged parameters towards the trained ones")


class Method(NamedTuple):
    """A network's input, its loss ``(key, field, x0) -> [B]``, samplers by number of steps, and the field as a denoiser
    ``(x [B, 2], sigma [B]) -> x0`` of one evaluation."""

    times: int
    embedding: str
    scale: float
    loss: Callable[[jax.Array, Field, jax.Array], jax.Array]
    draw: dict[str, Draw]
    denoise: Callable[[Field], g.Denoiser]


def by_time(field: Field) -> Field:
    return lambda x, t: field(x, (t + 1) / BETAS.shape[0])


def ddpm(key, field, noise):
    return g.ddpm(key, g.vp_predictor(by_time(field), BETAS), noise, BETAS)


def edm(key, field, noise):
    sigmas = g.karras(18)
    return g.heun(None, edm_denoiser(field), sigmas[0] * noise, sigmas)


def euler(steps: int) -> Draw:
    return lambda key, field, noise: g.integrate(field, noise, g.flow_times(steps))


def jump(steps: int) -> Draw:
    return lambda key, field, noise: g.jump(field, noise, g.flow_times(steps))


def consistent(steps: int) -> Draw:
    """One evaluation at the highest level; each further one after adding back the noise of a lower level."""

    def draw(key, field, noise):
        function = consistency(field)
        levels = LEVELS[:: LEVELS.shape[0] // steps]
        x = function(levels[0] * noise, jnp.broadcast_to(levels[0], noise.shape[:1]))
        for index in range(1, steps):
            again = jax.random.normal(jax.random.fold_in(key, index), noise.shape)
            x = x + jnp.sqrt(levels[index] ** 2 - LEVELS[-1] ** 2) * again
            x = function(x, jnp.broadcast_to(levels[index], noise.shape[:1]))
        return x

    return draw


def ddpm_denoiser(field: Field) -> g.Denoiser:
    return g.vp_denoiser(g.vp_predictor(by_time(field), BETAS), BETAS)


def edm_denoiser(field: Field) -> g.Denoiser:
    return g.edm_denoiser(field, SIGMA_DATA)


def jumper(field: Field) -> g.Denoiser:
    """Of an average velocity: the whole way to the data at once."""
    return g.flow_denoiser(lambda z, t: field(z, jnp.zeros_like(t), t))


def consistency(field: Field) -> g.Denoiser:
    return g.consistency_function(field, SIGMA_DATA, LEVELS[-1])


def meanflow(power: float) -> Method:
    def loss(key, field, x):
        return g.meanflow_loss(key, field, x, equal_fraction=0.5, power=power)[0]

    draw = {"1 step": jump(1), "2 steps": jump(2), "5 steps": jump(5)}
    return Method(2, "sinusoidal", 10.0, loss, draw, jumper)


def shortcut_loss(key, field, x):
    return g.shortcut_loss(key, field, x, max_level=6, bootstrap_fraction=0.25)[0]


def consistency_loss(key, field, x):
    return g.consistency_loss(key, consistency(field), x, LEVELS, weight=lambda high, low: 1 / (high - low) ** 2)[0]


METHODS: dict[str, Method] = {
    "MeanFlow": meanflow(1.0),
    "MeanFlow without adaptive weight": meanflow(0.0),
    "flow matching": Method(
        1,
        "sinusoidal",
        10.0,
        lambda key, field, x: g.flow_matching_loss(key, field, x)[0],
        {"1 step": euler(1), "2 steps": euler(2), "5 steps": euler(5), "50 steps": euler(50)},
        g.flow_denoiser,
    ),
    "DDPM": Method(
        1,
        "sinusoidal",
        1000.0,
        lambda key, field, x: g.ddpm_loss(key, by_time(field), x, BETAS)[0],
        {"100 steps": ddpm},
        ddpm_denoiser,
    ),
    "EDM": Method(
        1,
        "linear",
        1.0,
        lambda key, field, x: g.edm_loss(key, field, x, sigma_data=SIGMA_DATA)[0],
        {"18 Heun steps": edm},
        edm_denoiser,
    ),
    "shortcut": Method(2, "sinusoidal", 10.0, shortcut_loss, {"1 step": jump(1), "8 steps": jump(8)}, jumper),
    "consistency": Method(
        1, "linear", 1.0, consistency_loss, {"1 step": consistent(1), "2 steps": consistent(2)}, consistency
    ),
}


class State(NamedTuple):
    params: dict
    opt_state: optax.OptState
    average: dict


def fitting(network: Network, method: Method, updates: int, batch_size: int, target: g.Mixture | None = None) -> Run:
    """Train ``network`` on fresh draws of the target, by default the ring."""
    ring = g.ring(MODES, RADIUS, STD) if target is None else target

    def init(key, hyper):
        params = network.init(key)
        return State(params, optax.adam(hyper.learning_rate).init(params), jax.tree.map(jnp.copy, params))

    def train(state, index, key, hyper, data):
        def body(state, i):
            data_key, loss_key = jax.random.split(jax.random.fold_in(key, i))
            x = ring.sample(data_key, batch_size)

            def loss(params):
                return method.loss(loss_key, lambda *inputs: network.apply(params, *inputs), x).mean()

            value, gradients = jax.value_and_grad(loss)(state.params)
            changes, opt_state = optax.adam(hyper.learning_rate).update(gradients, state.opt_state)
            params = optax.apply_updates(state.params, changes)
            # The average spans the last tenth of the updates so far, at most 1 / average_rate: the start is forgotten.
            rate = jnp.maximum(hyper.average_rate, 10 / (i + 10.0))
            return State(params, opt_state, polyak(params, state.average, rate)), {"loss": value}

        state, metrics = jax.lax.scan(body, state, jnp.arange(updates))
        return state, jax.tree.map(jnp.mean, metrics)

    return Run(init, train, None, 1, updates)


def score(samples: np.ndarray, radius: float = RADIUS, reach: float = REACH) -> tuple[float, int]:
    """Fraction within ``reach`` standard deviations of a mode; number of modes with at least 2% of the samples."""
    angle = 2 * np.pi * np.arange(MODES) / MODES
    centres = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    distance = np.linalg.norm(samples[:, None] - centres, axis=-1)
    hit = distance.min(axis=1) < reach * STD
    share = np.bincount(distance.argmin(axis=1)[hit], minlength=MODES) / len(samples)
    return float(hit.mean()), int((share >= 0.02).sum())


def figure(drawn: dict[str, dict[str, np.ndarray]], fields: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """One row a method: where it sends the points of ``GRID``, then its samplers' samples over draws of the target."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    target = np.asarray(g.ring(MODES, RADIUS, STD).sample(jax.random.key(0), 2_000))
    columns = 1 + max(map(len, drawn.values()))
    fig, axes = plt.subplots(len(drawn), columns, figsize=(2.1 * columns, 2.3 * len(drawn)), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for row, (name, samples) in zip(axes, drawn.items(), strict=True):
        for axis in row[: 1 + len(samples)]:
            axis.plot(*target.T, ".", color="#cbd5e0", ms=2)
            axis.set(xlim=(-2.9, 2.9), ylim=(-2.9, 2.9), aspect="equal")
        way = 0.25 * (fields[name] - GRID)
        row[0].quiver(*GRID.T, *way.T, angles="xy", scale_units="xy", scale=1, color="#4a5568", width=0.005)
        row[0].set_title(f"{name.replace(' without adaptive weight', ', p = 0')}\nfield", fontsize=8)
        for axis, (steps, points) in zip(row[1:], samples.items(), strict=False):
            axis.plot(*points.T, ".", color="#2b6cb0", ms=1)
            axis.set_title(f"{steps}: {score(points)[0]:.2f}", fontsize=8)
    fig.savefig(path, dpi=100)
    plt.close(fig)


def run(seeds, scale, say, out):
    updates, batch_size, hidden, count = SIZES[scale]
    results: dict[str, list[float]] = {}
    first: dict[str, dict[str, np.ndarray]] = {}
    fields: dict[str, np.ndarray] = {}
    for name, method in METHODS.items():
        network = denoiser_mlp(
            Spec(0, 2), hidden, "silu", times=method.times, embedding=method.embedding, time_scale=method.scale
        )
        hypers = population.stack([Hyper()])
        trained = population.sweep(fitting(network, method, updates, batch_size), seeds=list(seeds), hypers=hypers)

        def everything(params, key, method=method, network=network):
            noise_key, draw_key = jax.random.split(key)
            noise = jax.random.normal(noise_key, (count, 2))
            return {steps: d(draw_key, lambda *x: network.apply(params, *x), noise) for steps, d in method.draw.items()}

        keys = jax.vmap(jax.random.key)(jnp.asarray(list(seeds)))
        average = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), trained.state.average)
        drawn = jax.device_get(jax.jit(jax.vmap(everything))(average, keys))
        first[name] = {steps: points[0] for steps, points in drawn.items()}
        one = jax.tree.map(lambda leaf: leaf[0], average)
        denoise = method.denoise(lambda *x, network=network, one=one: network.apply(one, *x))
        fields[name] = np.asarray(denoise(jnp.asarray(GRID), jnp.ones(len(GRID))))
        for steps in method.draw:
            scores = [score(points) for points in drawn[steps]]
            label = f"{name}, {steps}"
            results[label] = [hit for hit, _ in scores]
            say(f"{label}: {np.mean(results[label]):.3f}, at least {min(modes for _, modes in scores)} modes")
    figure(first, fields, out / "toolbox_2d_samples.png")
    return results

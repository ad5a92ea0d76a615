"""Mental simulation: where is a ball that one no longer sees?

A ball bounces in a box, seen in 12 x 12 pixels. A network learns to predict the next latent of a frozen encoder from
seven before it, one step ahead only; then seven frames are shown, the rest is hidden, and the network runs on its own
predictions. A linear readout of the position, fitted on frames that were seen, says where it thinks the ball is.
Encoders: the pixels themselves, random features of them, and features trained to tell frames of one video that are near
in time from those of other videos (temporal contrast). Which of the large encoders of the paper is best cannot be asked
at this size; the readout of a frame in sight, printed beside, says how much of the position an encoder keeps.

Beyond the paper: noise of 0.05 on the windows in training. Without it a prediction one step ahead is as good, and the
simulation drifts off; the run prints that arm as well. The network of the method is a perceptron on the window, because
it is four times as fast as an LSTM, which the run prints too.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import Claim
from jaxrl_reg import losses, representation
from jaxrl_reg.evaluation import readouts
from jaxrl_reg.loops.pretrain import Hyper, pretrain
from jaxrl_reg.networks import mlp
from jaxrl_reg.networks.latent_dynamics import latent_lstm, latent_mlp, simulate
from jaxrl_reg.types import Spec, Transition

CLAIM = Claim(
    statement="Five steps after a ball has gone out of sight, latent dynamics trained one step ahead have it at least "
    "40% nearer to where it is than the last latent seen has; dynamics that see one latent, and so no motion, do not",
    paper="https://arxiv.org/abs/2305.11772",
    method="pixels, window of 7",
    baselines=("pixels, last latent",),
    ablation="pixels, window of 1",
    metric="error of position at hidden step 5, relative to the last latent's",
    systems=(53,),
    higher_is_better=False,
    margin=0.4,
    seeds=5,
    chosen="seeds 200 to 204: over pixels, window of 1 0.623, sd 0.03; power 1.000",
)
SIDE, BLUR, WINDOW, LENGTH = 12, 0.07, 7, 17
SHOWN = (1, 5, 10)
REACH, TEMPERATURE = 3, 0.1  # of temporal contrast: frames ahead, of a cosine
NOISE = 0.05  # standard deviation on the windows in training; a pixel is at most 1
SIZES = {"small": (2_000, 128, 2_000), "full": (20_000, 512, 30_000)}  # sequences, hidden units, updates


class Dynamics(NamedTuple):
    """An encoder, a network and how it is trained."""

    encoder: str = "pixels"
    network: str = "perceptron"
    window: int = WINDOW
    noise: float = NOISE
    rate: float = 2e-3


ARMS = {
    "pixels, window of 7": Dynamics(),
    "pixels, window of 1": Dynamics(window=1),
    "pixels, without noise": Dynamics(noise=0.0),
    "pixels, LSTM": Dynamics(network="LSTM", rate=5e-3),
    "random features, window of 7": Dynamics(encoder="random features"),
    "temporal contrast, window of 7": Dynamics(encoder="temporal contrast"),
}


def sequences(key, count):
    """Positions ``[count, LENGTH, 2]`` in the unit square and images ``[count, LENGTH, SIDE * SIDE]``."""
    start_key, speed_key, angle_key = jax.random.split(key, 3)
    start = jax.random.uniform(start_key, (count, 1, 2))
    speed = jax.random.uniform(speed_key, (count, 1, 1), minval=0.03, maxval=0.08)
    angle = 2 * jnp.pi * jax.random.uniform(angle_key, (count, 1, 1))
    velocity = speed * jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    unfolded = start + velocity * jnp.arange(LENGTH)[:, None]
    position = 0.1 + 0.8 * jnp.abs(jnp.mod(unfolded + 1, 2) - 1)  # walls reflect
    grid = (jnp.arange(SIDE) + 0.5) / SIDE
    bumps = jnp.exp(-0.5 * jnp.square((position[..., None] - grid) / BLUR))  # [count, LENGTH, 2, SIDE]
    images = bumps[..., 0, :, None] * bumps[..., 1, None, :]
    return position, images.reshape(count, LENGTH, -1)


def encoder(name, key, images, updates):
    """``images [..., SIDE * SIDE] -> latents``, frozen; ``images`` are what temporal contrast is trained on."""
    if name == "pixels":
        return lambda images: images
    if name == "random features":
        weight = jax.random.normal(key, (SIDE * SIDE, 64)) / 2
        return lambda images: jnp.tanh(images @ weight)
    network = mlp((SIDE * SIDE, 128, 64), final_activation="tanh")
    objective = representation.temporal_contrast(Spec(SIDE * SIDE, 0), network, temperature=TEMPERATURE, normalise=True)

    def sample(images, key, size):
        video_key, time_key, ahead_key = jax.random.split(key, 3)
        video = jax.random.permutation(video_key, len(images))[:size]
        time = jax.random.randint(time_key, (size,), 0, LENGTH - REACH)
        later = time + jax.random.randint(ahead_key, (size,), 1, REACH + 1)
        nothing = jnp.zeros(size)
        return Transition(images[video, time], nothing[:, None], nothing, nothing, images[video, later])

    trained, _ = pretrain(objective, batch_size=128, updates=updates, sample=sample)(key, Hyper(), images)
    return functools.partial(objective.encode, trained.params)


@functools.partial(jax.jit, static_argnames=("arm", "count", "hidden", "updates"))
def train(key, arm, count, hidden, updates):
    """Mean errors of position: at the hidden steps ``[2, LENGTH - WINDOW]``, of the dynamics and of the last latent;
    and at the last frame in sight.
    """
    data_key, encoder_key, init_key, train_key, test_key = jax.random.split(key, 5)
    position, images = sequences(data_key, count)
    encode, window = encoder(arm.encoder, encoder_key, images, updates // 4), arm.window
    z = encode(images)
    size = z.shape[-1]
    network = latent_lstm(size, hidden // 2) if arm.network == "LSTM" else latent_mlp(size, window, (hidden, hidden))
    optimiser = optax.adam(optax.cosine_decay_schedule(arm.rate, updates))

    def body(carry, key):
        params, moments = carry
        row_key, time_key, noise_key = jax.random.split(key, 3)
        rows = jax.random.randint(row_key, (64,), 0, count)
        times = jax.random.randint(time_key, (64, 1), 0, LENGTH - window) + jnp.arange(window + 1)
        piece = z[rows[:, None], times]
        context = piece[:, :-1] + arm.noise * jax.random.normal(noise_key, piece[:, :-1].shape)

        def objective(params):
            return losses.prediction_loss(network.apply(params, context), piece[:, -1]).mean()

        change, moments = optimiser.update(jax.grad(objective)(params), moments)
        return (optax.apply_updates(params, change), moments), None

    params = network.init(init_key)
    (params, _), _ = jax.lax.scan(body, (params, optimiser.init(params)), jax.random.split(train_key, updates))

    few = min(count, 400)
    group = jnp.repeat(jnp.arange(few), LENGTH)
    seen = z[:few].reshape(few * LENGTH, -1), position[:few].reshape(few * LENGTH, 2)
    readout, _ = readouts.ridge_cv(*seen, group, jnp.array([1e-4, 1e-3, 1e-2]), folds=3)

    position, images = sequences(test_key, 512)
    shown, truth = encode(images[:, :WINDOW]), position[:, WINDOW:]
    sight = jnp.linalg.norm(readout(shown[:, -1]) - position[:, WINDOW - 1], axis=-1).mean()
    imagined = simulate(functools.partial(network.apply, params), shown[:, -window:], LENGTH - WINDOW)
    guesses = readout(imagined), jnp.broadcast_to(readout(shown[:, -1:]), truth.shape)
    return jnp.stack([jnp.linalg.norm(guess - truth, axis=-1).mean(0) for guess in guesses]), sight


def run(seeds, scale, say):
    count, hidden, updates = SIZES[scale]
    at = np.array(SHOWN) - 1
    results = {}
    for name, arm in ARMS.items():
        one = functools.partial(train, arm=arm, count=count, hidden=hidden, updates=updates)
        errors, sight = (np.stack(found) for found in zip(*(one(jax.random.key(seed)) for seed in seeds), strict=True))
        for label, values in zip((name, f"{arm.encoder}, last latent"), errors.transpose(1, 0, 2), strict=True):
            if label not in results:
                hidden_errors = ", ".join(f"{error:.3f}" for error in values[:, at].mean(0))
                say(f"{label}: error in sight {sight.mean():.3f}, at hidden steps {SHOWN} {hidden_errors}")
                results[label] = (values[:, at[1]] / errors[:, 1, at[1]]).tolist()
    return results

"""Networks that read the last latents of a sequence and say the next one, and rolling them out.

Source: Nayebi et al., 2023, Neural Foundations of Mental Simulation. The encoder is frozen and not part
of it, so nothing can collapse: train with ``losses.prediction_loss``, one step ahead. Its size depends on the encoder's
scale; compare encoders by a readout (``evaluation.readouts``), never by the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reg.networks.feedforward import mlp
from jaxrl_reg.types import Array, Key, Network, PyTree


def latent_mlp(latent: int, window: int, hidden: Sequence[int] = (1024, 1024)) -> Network:
    """``apply(params, window [..., W, D]) -> next latent [..., D]``: a perceptron on all of the window, the fastest."""
    network = mlp((window * latent, *hidden, latent), "silu")
    return Network(network.init, lambda params, x: network.apply(params, x.reshape(*x.shape[:-2], window * latent)))


def latent_lstm(latent: int, hidden: int = 1024) -> Network:
    """``apply(params, window [..., W, D]) -> next latent [..., D]``: an LSTM over the window and a linear layer."""
    cell, readout = nn.OptimizedLSTMCell(hidden), mlp((hidden, latent))

    def start(shape: tuple[int, ...]) -> tuple[Array, Array]:
        return jnp.zeros((*shape, hidden)), jnp.zeros((*shape, hidden))

    def init(key: Key) -> PyTree:
        cell_key, out_key = jax.random.split(key)
        return {"cell": cell.init(cell_key, start(()), jnp.zeros(latent)), "readout": readout.init(out_key)}

    def step(params: PyTree, carry: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], Array]:
        carry, out = cell.apply(params["cell"], carry, x)
        return carry, jnp.asarray(out)

    return _over_window(init, start, step, readout)


def latent_ctrnn(latent: int, hidden: int = 1024, time_constant: float = 10.0) -> Network:
    """``apply(params, window [..., W, D]) -> next latent [..., D]``: a continuous-time network of firing rates.

    ``a <- a + (-a + U r + V x + b) / time_constant`` with rates ``r = relu(tanh(a))``, one step per latent, then a
    linear layer on the rates. U starts at N(0, (1.5 / sqrt(hidden))^2), in the rich regime of such networks.
    """
    drive, readout = mlp((latent, hidden)), mlp((hidden, latent))

    def rates(a: Array) -> Array:
        return jax.nn.relu(jnp.tanh(a))

    def init(key: Key) -> PyTree:
        recurrent_key, drive_key, out_key = jax.random.split(key, 3)
        recurrent = 1.5 / hidden**0.5 * jax.random.normal(recurrent_key, (hidden, hidden))
        return {"recurrent": recurrent, "drive": drive.init(drive_key), "readout": readout.init(out_key)}

    def step(params: PyTree, a: Array, x: Array) -> tuple[Array, Array]:
        a = a + (-a + rates(a) @ params["recurrent"] + drive.apply(params["drive"], x)) / time_constant
        return a, rates(a)

    return _over_window(init, lambda shape: jnp.zeros((*shape, hidden)), step, readout)


def _over_window(init: Callable, start: Callable, step: Callable, readout: Network) -> Network:
    def apply(params: PyTree, window: Array) -> Array:
        inputs = jnp.moveaxis(window, -2, 0)
        _, outputs = jax.lax.scan(lambda carry, x: step(params, carry, x), start(window.shape[:-2]), inputs)
        return readout.apply(params["readout"], outputs[-1])

    return Network(init, apply)


def simulate(predict: Callable[[Array], Array], window: Array, steps: int) -> Array:
    """``steps`` latents ``[..., steps, D]`` after ``window [..., W, D]``, each predicted from the W before it.

    The window slides over the predictions themselves; nothing true is seen again, and errors add up. A network trained
    one step ahead on true windows may drift off within a few steps; a little noise on those windows teaches it to come
    back.
    """

    def body(window: Array, _) -> tuple[Array, Array]:
        latent = predict(window)
        return jnp.concatenate([window[..., 1:, :], latent[..., None, :]], axis=-2), latent

    return jnp.moveaxis(jax.lax.scan(body, window, None, steps)[1], 0, -2)

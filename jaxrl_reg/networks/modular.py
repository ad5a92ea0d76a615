"""A forecaster in modules: what holds everywhere, and what a style changes.

Source: Liu et al., 2022, Towards Robust and Adaptive Motion Forecasting: A Causal Representation Perspective. Each
module is an entry of the parameters, so that a phase of training can name those that it moves: encoder and decoder
first (with ``losses.irm_penalty`` over environments), then ``style`` and ``projection`` by
``losses.supervised_contrastive_loss`` with the environment as label, then the ``modulators``, then all but the encoder.
A new style costs the modulators alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.networks.feedforward import mlp
from jaxrl_reg.types import Array, Key, PyTree


class ModularForecaster(NamedTuple):
    """``init(key) -> params`` with the entries ``encoder``, ``decoder``, ``modulators``, ``style``, ``projection``.

    ``encode(params, past [..., P]) -> latent [..., Z]``, the same in every environment;
    ``describe(params, scene [..., N]) -> style [..., S]`` of a scene that is known to its end: average it over the
    scenes of one environment; ``project(params, style) -> [..., S]``, where the contrastive loss is taken;
    ``decode(params, latent, style=None) -> future [..., F]``, without a style as if no modulators were there.
    """

    init: Callable[[Key], PyTree]
    encode: Callable[[PyTree, Array], Array]
    describe: Callable[[PyTree, Array], Array]
    project: Callable[[PyTree, Array], Array]
    decode: Callable[..., Array]


def modular_forecaster(
    past: int,
    scene: int,
    future: int,
    *,
    hidden: Sequence[int] = (32, 32),
    latent: int = 16,
    style: int = 8,
    style_hidden: Sequence[int] = (16,),
) -> ModularForecaster:
    """Perceptrons for flattened pasts, scenes and futures of the given widths.

    The decoder has two parts, and after each a modulator adds ``MLP([h, style])`` to what is there. Modulators start at
    zero: a forecaster that has none yet and one whose modulators are new say the same.
    """
    width = hidden[-1]
    encoder = mlp((past, *hidden, latent))
    parts = mlp((latent, width)), mlp((width, width, future))
    modulators = tuple(mlp((size + style, width, size), final_scale=0.0) for size in (width, future))
    describer, projection = mlp((scene, *style_hidden, style)), mlp((style, style))

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, 7)
        return {
            "encoder": encoder.init(keys[0]),
            "decoder": [part.init(k) for part, k in zip(parts, keys[1:3], strict=True)],
            "modulators": [modulator.init(k) for modulator, k in zip(modulators, keys[3:5], strict=True)],
            "style": describer.init(keys[5]),
            "projection": projection.init(keys[6]),
        }

    def decode(params: PyTree, latent: Array, style: Array | None = None) -> Array:
        def modulate(i: int, h: Array) -> Array:
            if style is None:
                return h
            return h + modulators[i].apply(params["modulators"][i], jnp.concatenate([h, style], axis=-1))

        h = modulate(0, jax.nn.relu(parts[0].apply(params["decoder"][0], latent)))
        return modulate(1, parts[1].apply(params["decoder"][1], h))

    return ModularForecaster(
        init,
        lambda params, past: encoder.apply(params["encoder"], past),
        lambda params, scene: describer.apply(params["style"], scene),
        lambda params, style: projection.apply(params["projection"], style),
        decode,
    )

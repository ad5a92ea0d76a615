"""A variational autoencoder of levels, for worlds of any kind: it sees a level as its named parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl_reg import losses
from jaxrl_reg.networks import mlp
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Array, Key, Levels, Metrics, PyTree

FLOOR, CEILING = -2.0, 0.0  # of the decoder's log-std; with a floor of -3 a few levels are learnt by heart
STRAIGHT = 0.955  # directions whose cosine is larger than this are joined by a straight line


class LevelVae(NamedTuple):
    """``init(key) -> params``; ``loss(params, levels [M], key) -> (scalar, metrics)``; ``encode(params, levels [M]) ->
    (mean, std) [M, Z]``; ``decode(params, code [Z], key) -> level``, of choices the likeliest, of numbers a draw."""

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, PyTree, Key], tuple[Array, Metrics]]
    encode: Callable[[PyTree, PyTree], tuple[Array, Array]]
    decode: Callable[[PyTree, Array, Key], PyTree]


def level_vae(
    levels: Levels, hidden: Sequence[int] = (128,), latent: int = 24, beta: float = 1.0, noise: bool = True
) -> LevelVae:
    """Autoencoder of ``levels.parts``: the negative log-likelihood of the parts, summed over all that a level holds,
    plus ``beta`` times the divergence of the posterior from the standard normal.

    Parts in ``levels.categories`` are choices, with a cross-entropy each; the others are numbers, with a normal whose
    standard deviation is learnt for each and held between e^-2 and 1; without ``noise`` decoding gives its mean, which
    adds nothing to the levels that were given. Garcin et al. 2024, where an encoder of graphs
    stands in the place of the one hidden layer, and the parts have weights of their own.
    """
    shapes = jax.eval_shape(lambda key: levels.parts(levels.sample(key)), jax.random.key(0))
    names = sorted(shapes)
    sizes = {name: shapes[name].shape[0] for name in names}
    widths = [sizes[name] * levels.categories.get(name, 1) for name in names]
    numbers = sum(sizes[name] for name in names if name not in levels.categories)
    encoder = mlp((sum(widths), *hidden, 2 * latent), activation="tanh")
    decoder = mlp((latent, *hidden, sum(widths)), activation="tanh")

    def split(flat: Array) -> dict[str, Array]:
        """``[..., D]`` by part: logits ``[..., n, K]`` of choices, ``[..., n]`` of numbers."""
        pieces = dict(zip(names, jnp.split(flat, np.cumsum(widths)[:-1], axis=-1), strict=True))
        return {
            name: x.reshape(*x.shape[:-1], sizes[name], levels.categories[name]) if name in levels.categories else x
            for name, x in pieces.items()
        }

    def seen(level: PyTree) -> tuple[dict[str, Array], Array]:
        """Of one level: its parts, choices as one-hot rows, and all of them as one vector."""
        parts = levels.parts(level)
        parts = {
            name: jax.nn.one_hot(parts[name], levels.categories[name]) if name in levels.categories else parts[name]
            for name in names
        }
        return parts, jnp.concatenate([parts[name].ravel() for name in names])

    def init(key: Key) -> PyTree:
        encoder_key, decoder_key = jax.random.split(key)
        params = {"encoder": encoder.init(encoder_key), "decoder": decoder.init(decoder_key)}
        return params | ({"log_std": jnp.full(numbers, 0.5 * (FLOOR + CEILING))} if numbers else {})

    def posterior(params: PyTree, flat: Array) -> tuple[Array, Array]:
        mean, log_std = jnp.split(encoder.apply(params["encoder"], flat), 2, axis=-1)
        return mean, jnp.clip(log_std, -10.0, 2.0)

    def spreads(params: PyTree) -> dict[str, Array]:
        """Log-std of the parts that are numbers."""
        floats = [name for name in names if name not in levels.categories]
        if not floats:
            return {}
        ends = np.cumsum([sizes[name] for name in floats])[:-1]
        return dict(zip(floats, jnp.split(jnp.clip(params["log_std"], FLOOR, CEILING), ends), strict=True))

    def loss(params: PyTree, level: PyTree, key: Key) -> tuple[Array, Metrics]:
        parts, flat = jax.vmap(seen)(level)
        mean, log_std = posterior(params, flat)
        code = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        found, spread = split(decoder.apply(params["decoder"], code)), spreads(params)
        missed = jnp.float32(0)
        for name in names:
            if name in levels.categories:
                missed += losses.cross_entropy_loss(found[name], parts[name]).sum(-1).mean()
            else:
                apart = (parts[name] - found[name]) * jnp.exp(-spread[name])
                missed += (0.5 * jnp.square(apart) + spread[name] + 0.5 * jnp.log(2.0 * jnp.pi)).sum(-1).mean()
        standard = jnp.zeros_like(mean)
        divergence = losses.gaussian_kl(mean, log_std, standard, standard).mean()
        total = missed + beta * divergence
        return total, {"loss": total, "missed": missed, "kl": divergence}

    def encode(params: PyTree, level: PyTree) -> tuple[Array, Array]:
        mean, log_std = posterior(params, jax.vmap(seen)(level)[1])
        return mean, jnp.exp(log_std)

    def decode(params: PyTree, code: Array, key: Key) -> PyTree:
        found, spread = split(decoder.apply(params["decoder"], code)), spreads(params)
        parts = {}
        for number, name in enumerate(names):
            if name in levels.categories:
                parts[name] = jnp.argmax(found[name], axis=-1).astype(jnp.int32)
            else:
                apart = jax.random.normal(jax.random.fold_in(key, number), found[name].shape) if noise else 0.0
                parts[name] = jnp.clip(found[name] + jnp.exp(spread[name]) * apart, -1.0, 1.0)
        return levels.join(parts)

    return LevelVae(init, loss, encode, decode)


def fit(vae: LevelVae, levels: PyTree, key: Key, steps: int, learning_rate: float) -> PyTree:
    """Parameters after ``steps`` steps of Adam on all ``levels`` ``[M]`` at once; pure, so it runs in any program."""
    init_key, key = jax.random.split(key)
    optimiser = adam(learning_rate)

    def step(carry: tuple[PyTree, PyTree], key: Key) -> tuple[tuple[PyTree, PyTree], None]:
        params, state = carry
        gradients = jax.grad(vae.loss, has_aux=True)(params, levels, key)[0]
        updates, state = optimiser.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = vae.init(init_key)
    return jax.lax.scan(step, (params, optimiser.init(params)), jax.random.split(key, steps))[0][0]


def polar_interpolation(first: Array, second: Array, fraction: Array) -> Array:
    """``[..., Z]`` between ``first`` (``fraction [...]`` 0) and ``second`` (1) along the arc, ``[..., Z]`` each:
    ``[sin((1-t) w) a + sin(t w) b] / sin w``, ``w`` the angle between them; a straight line where they point nearly the
    same or the opposite way. White 2016, as in the released code of Garcin et al. 2024.
    """
    lengths = jnp.linalg.norm(first, axis=-1) * jnp.linalg.norm(second, axis=-1)
    cosine = jnp.where(lengths > 0, (first * second).sum(-1) / jnp.where(lengths > 0, lengths, 1.0), 1.0)
    straight = jnp.abs(cosine) > STRAIGHT
    angle = jnp.arccos(jnp.where(straight, 0.0, cosine))
    arc = [jnp.sin(part * angle) / jnp.sin(angle) for part in (1.0 - fraction, fraction)]
    near, far = (jnp.where(straight, *pair)[..., None] for pair in zip((1.0 - fraction, fraction), arc, strict=True))
    return near * first + far * second


def between(mean: Array, std: Array, key: Key, count: int) -> Array:
    """``count`` codes ``[count, Z]``, each between the posteriors of two different levels of ``[M, Z]``: the mean along
    the arc, the standard deviation along the line, at a point drawn uniformly, with the posterior's noise."""
    first_key, second_key, point_key, noise_key = jax.random.split(key, 4)
    levels = mean.shape[0]
    first = jax.random.randint(first_key, (count,), 0, levels)
    second = (first + jax.random.randint(second_key, (count,), 1, levels)) % levels
    point = jax.random.uniform(point_key, (count,))
    middle = polar_interpolation(mean[first], mean[second], point)
    spread = (1.0 - point)[:, None] * std[first] + point[:, None] * std[second]
    return middle + spread * jax.random.normal(noise_key, middle.shape)

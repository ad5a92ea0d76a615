"""Networks for diffusion and flow policies: a noised action, a time and an observation in, an action-shaped array out.

All share ``apply(params, x [..., A], time [...], observation [..., O]) -> [..., A]``; with ``times=2`` it is
``apply(params, x, r [...], t [...], observation)`` for average velocities. ``observation`` may be left out when the
spec's ``observation_dim`` is 0. What the output means (eps, velocity, ...) is the loss's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reg.errors import unknown
from jaxrl_reg.networks.activations import activation as resolve
from jaxrl_reg.networks.feedforward import mlp
from jaxrl_reg.types import Array, Key, Network, PyTree, Spec

EMBEDDINGS = ("sinusoidal", "fourier", "linear")
FILMS = ("multiplicative", "one_plus")
# PyTorch's default: uniform within 1 / sqrt(fan in).
_torch_uniform = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def time_embedding(
    kind: str = "sinusoidal", width: int = 16, *, scale: float = 1000.0, activation: str = "mish"
) -> Network:
    """Features of a scalar: ``apply(params, time [...]) -> [..., width]``, a two-layer network behind a fixed or
    learned map.

    Args: kind: ``sinusoidal``: sines and cosines of ``scale * time`` at geometric frequencies from 1 down to 1e-4;
    ``fourier``: learned frequencies, started at N(0, 0.2^2) turns, for integer steps or with ``scale``; ``linear``:
    the scalar itself, for ``log(sigma) / 4``. width: of the features, even. scale: brings the time to the range of the
    frequencies. 1000 suits ``[0, 1]`` and eps networks; average velocities are differentiated by time and want about
    10. Not used by ``linear``. activation: between the two layers.

    Raises ``UserError`` for an unknown kind, ``ValueError`` for an odd width.
    """
    if kind not in EMBEDDINGS:
        raise unknown("time embedding", kind, EMBEDDINGS)
    if width % 2:
        raise ValueError(f"a time embedding needs an even width, got {width}")
    half = width // 2
    network = mlp((1 if kind == "linear" else width, 2 * width, width), activation)

    def init(key: Key) -> PyTree:
        params = {"layers": network.init(key)}
        if kind == "fourier":
            params["frequencies"] = 0.2 * jax.random.normal(jax.random.fold_in(key, 1), (half,))
        return params

    def apply(params: PyTree, time: Array) -> Array:
        time = jnp.asarray(time, jnp.float32)[..., None]
        if kind == "linear":
            features = time
        else:
            if kind == "fourier":
                angle = 2 * math.pi * scale * time * params["frequencies"]
            else:
                angle = scale * time * jnp.exp(-math.log(1e4) * jnp.arange(half) / max(half - 1, 1))
            features = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        return network.apply(params["layers"], features)

    return Network(init, apply)


def _conditioned(
    spec: Spec, body: Callable[[int], Network], embeddings: Sequence[Network], width: int, times: int
) -> Network:
    """Concatenate time features, noised action and observation, and feed them to ``body(input width)``."""
    if times not in (1, 2):
        raise ValueError(f"a denoiser takes 1 time or 2, got {times}")
    network = body(times * width + spec.action_dim + spec.observation_dim)

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, times + 1)
        return {
            "time": [embedding.init(k) for embedding, k in zip(embeddings, keys[1:], strict=True)],
            "body": network.init(keys[0]),
        }

    def apply(params: PyTree, x: Array, *inputs: Array, **options) -> Array:
        moments, rest = inputs[:times], inputs[times:]
        if len(moments) < times or len(rest) > 1 or (spec.observation_dim > 0 and not rest):
            raise ValueError(f"expected x, {times} time(s) and an observation, got {1 + len(inputs)} arrays")
        if times == 2:  # the end of the jump and its length, which is what a one-step sampler varies least
            r, t = moments
            moments = (t, t - r)
        features = [e.apply(p, m) for e, p, m in zip(embeddings, params["time"], moments, strict=True)]
        return network.apply(params["body"], jnp.concatenate([*features, x, *rest], axis=-1), **options)

    return Network(init, apply)


def denoiser_mlp(
    spec: Spec,
    hidden: Sequence[int] = (256, 256, 256),
    activation: str = "mish",
    *,
    times: int = 1,
    embedding: str = "sinusoidal",
    time_width: int = 16,
    time_scale: float = 1000.0,
    **options,
) -> Network:
    """The multi-layer perceptron of Diffusion-QL. ``options`` go to ``networks.mlp``."""
    embeddings = [time_embedding(embedding, time_width, scale=time_scale, activation=activation) for _ in range(times)]

    def body(width: int) -> Network:
        return mlp((width, *hidden, spec.action_dim), activation, **options)

    return _conditioned(spec, body, embeddings, time_width, times)


class _ResNet(nn.Module):
    width: int
    out: int
    blocks: int
    expansion: int
    dropout: float
    film: str
    activation: Callable[[Array], Array]
    zero_output: bool

    @nn.compact
    def __call__(self, x: Array, z: Array | None, deterministic: bool):
        def dense(width: int, x: Array) -> Array:
            return nn.Dense(width, kernel_init=_torch_uniform)(x)

        def zero(width: int, x: Array) -> Array:
            return nn.Dense(width, kernel_init=nn.initializers.zeros)(x)

        x = dense(self.width, x)
        for _ in range(self.blocks):
            h = nn.Dropout(self.dropout)(x, deterministic=deterministic) if self.dropout > 0 else x
            h = nn.LayerNorm(epsilon=1e-5)(h)
            h = self.activation(dense(self.expansion * self.width, h))
            if z is not None:
                gain = zero(h.shape[-1], z) + (1.0 if self.film == "one_plus" else 0.0)
                h = gain * h + zero(h.shape[-1], z)
            x = x + dense(self.width, h)
        x = self.activation(x)
        return zero(self.out, x) if self.zero_output else dense(self.out, x)


def denoiser_resnet(
    spec: Spec,
    width: int = 256,
    blocks: int = 3,
    activation: str = "mish",
    *,
    times: int = 1,
    embedding: str = "fourier",
    time_width: int = 128,
    time_scale: float = 1.0,
    expansion: int = 4,
    dropout: float = 0.1,
    film_width: int = 0,
    film: str = "one_plus",
    zero_output: bool = False,
) -> Network:
    """Residual blocks with LayerNorm, as in IDQL; with ``film_width`` a task vector modulates every block, as in
    BREEZE.

    ``apply(params, x, time, observation, z=None, key=None)``; ``z [..., film_width]`` is required iff ``film_width`` >
    0; dropout is active only where a key is given. The modulation starts at zero: ``one_plus`` leaves a block as it
    is; ``multiplicative``, BREEZE's form, switches it off, so its first layer learns only once the gain has moved.
    ``zero_output`` starts the whole network at 0. Raises ``UserError`` for an unknown ``film``.
    """
    if film not in FILMS:
        raise unknown("film", film, FILMS)
    embeddings = [time_embedding(embedding, time_width, scale=time_scale, activation=activation) for _ in range(times)]

    def body(in_width: int) -> Network:
        module = _ResNet(width, spec.action_dim, blocks, expansion, dropout, film, resolve(activation), zero_output)

        def init(key: Key) -> PyTree:
            z = jnp.zeros((1, film_width)) if film_width else None
            return module.init(key, jnp.zeros((1, in_width)), z, True)["params"]

        def apply(params: PyTree, x: Array, *, z: Array | None = None, key: Key | None = None) -> Array:
            if (z is not None) != (film_width > 0):
                raise ValueError(f"film_width is {film_width}, but z was {'not ' if z is None else ''}given")
            rngs = None if key is None else {"dropout": key}
            return jnp.asarray(module.apply({"params": params}, x, z, key is None, rngs=rngs))

        return Network(init, apply)

    return _conditioned(spec, body, embeddings, time_width, times)

"""What lets only a part of the features through to a decoder, so that an encoder must choose: codes, or noise.

Give one to ``autoencoding`` or ``forward_dynamics``; ``objective.encode`` is then what passes without noise. A
bottleneck limits how much is kept, not what: where noise is the larger part of a picture, it is still kept first.

Source: Misra et al., 2024, Towards Principled Representation Learning from Videos for Reinforcement Learning.
Deviation: codebooks learn by gradient, as in van den Oord et al., 2017, where the paper averages what chose each code;
its orthogonality penalty is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.errors import UserError
from jaxrl_reg.networks import mlp
from jaxrl_reg.types import Array, Key, Metrics, PyTree


class Bottleneck(NamedTuple):
    """``init(key) -> params``; ``apply(params, features [B, D], key) -> (passed [B, D], cost [B], metrics)``;
    ``read(params, features [..., D]) -> [..., D]``, what passes without noise.
    """

    init: Callable[[Key], PyTree]
    apply: Callable[[PyTree, Array, Key], tuple[Array, Array, Metrics]]
    read: Callable[[PyTree, Array], Array]


class LatentCodes(NamedTuple):
    """A :class:`Bottleneck` that can also say ``indices(params, features [..., D]) -> int32 [..., D]``, each feature's
    value by number: a factored, discrete state.
    """

    init: Callable[[Key], PyTree]
    apply: Callable[[PyTree, Array, Key], tuple[Array, Array, Metrics]]
    read: Callable[[PyTree, Array], Array]
    indices: Callable[[PyTree, Array], Array]


def vector_quantised(width: int, codes: int = 512, heads: int = 4, commitment: float = 0.1) -> Bottleneck:
    """Features ``[..., width]`` in ``heads`` parts, each replaced by the nearest of ``codes`` vectors of its own.

    At most ``heads log(codes)`` nats pass. The decoder's gradient goes straight through to the encoder. Metric
    ``codes_used``: the share of a head's codes that the batch chose, mean over heads; codes may die.

    Raises ``UserError`` if the width is no multiple of ``heads``.
    """
    if width % heads:
        raise UserError(f"vector_quantised: {heads} heads do not divide {width} features")
    size = width // heads

    def init(key: Key) -> PyTree:
        return jax.random.normal(key, (heads, codes, size))

    def choose(codebook: Array, features: Array) -> tuple[Array, Array, Array]:
        """Features and their codes, both ``[..., H, D / H]``, and the codes' numbers ``[..., H]``."""
        parts = features.reshape(*features.shape[:-1], heads, size)
        product = jnp.einsum("...hd,hkd->...hk", parts, codebook, precision="highest")
        chosen = (jnp.square(codebook).sum(-1) - 2.0 * product).argmin(-1)
        return parts, codebook[jnp.arange(heads), chosen], chosen

    def apply(codebook: Array, features: Array, key: Key) -> tuple[Array, Array, Metrics]:
        parts, code, chosen = choose(codebook, features)
        cost = losses.vector_quantisation_loss(parts, code, commitment).mean(-1)
        passed = parts + jax.lax.stop_gradient(code - parts)
        used = jnp.zeros((heads, codes)).at[jnp.arange(heads), chosen].set(1.0).mean()
        return passed.reshape(features.shape), cost, {"codes_used": used}

    def read(codebook: Array, features: Array) -> Array:
        return choose(codebook, features)[1].reshape(features.shape)

    return Bottleneck(init, apply, read)


def latent_quantised(width: int, values: int = 10, quantisation: float = 0.01, commitment: float = 0.01) -> LatentCodes:
    """Features ``[..., width]`` in which each one takes one of ``values`` numbers of its own: scalar codebooks.

    The cost is ``quantisation mean_j (sg z_j - q_j)^2 + commitment mean_j (z_j - sg q_j)^2``. Few values and weight
    decay of everything but the codebook (``loops.pretrain`` leaves it out) make each feature stand for one source of
    variation where sources are separate; for symmetric ones such as positions of blobs it makes no difference. Decay of
    0.1 at a rate of 1e-3 takes 1e5 updates to act: for a few thousand use 1 or 2.

    Source: Hsu et al., 2023, Disentanglement via Latent Quantization (QLAE).
    """

    def init(key: Key) -> PyTree:
        return {"codebook": jnp.tile(jnp.linspace(-0.5, 0.5, values), (width, 1))}

    def indices(params: PyTree, features: Array) -> Array:
        return jnp.abs(features[..., None] - params["codebook"]).argmin(-1).astype(jnp.int32)

    def read(params: PyTree, features: Array) -> Array:
        return params["codebook"][jnp.arange(width), indices(params, features)]

    def apply(params: PyTree, features: Array, key: Key) -> tuple[Array, Array, Metrics]:
        code = read(params, features)
        cost = quantisation * losses.vector_quantisation_loss(features, code, commitment / quantisation)
        chosen = jax.nn.one_hot(indices(params, features), values).any(axis=tuple(range(features.ndim - 1)))
        return features + jax.lax.stop_gradient(code - features), cost, {"codes_used": chosen.mean(dtype=jnp.float32)}

    return LatentCodes(init, apply, read, indices)


def gaussian(width: int, divergence_coef: float = 1e-4) -> Bottleneck:
    """Features with normal noise, whose size they choose, at the price of their divergence from a learnt prior.

    Metric ``kl``: nats that pass, summed over the ``width`` features, mean over the batch.
    """
    spread = mlp((width, width))

    def init(key: Key) -> PyTree:
        return {"log_std": spread.init(key), "prior_mean": jnp.zeros(width), "prior_log_std": jnp.zeros(width)}

    def apply(params: PyTree, features: Array, key: Key) -> tuple[Array, Array, Metrics]:
        log_std = jnp.clip(spread.apply(params["log_std"], features), -10.0, 2.0)
        prior = (jnp.broadcast_to(params[name], features.shape) for name in ("prior_mean", "prior_log_std"))
        divergence = losses.gaussian_kl(features, log_std, *prior)
        passed = features + jnp.exp(log_std) * jax.random.normal(key, features.shape)
        return passed, divergence_coef * divergence, {"kl": divergence.mean()}

    return Bottleneck(init, apply, lambda params, features: features)

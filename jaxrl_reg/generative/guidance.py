"""Guidance as wrappers: each takes a denoiser (or velocity) and returns one, so it composes with every solver.

``classifier_free``, ``energy``, ``clip`` and ``inpaint`` wrap a denoiser. ``gradient_guide`` makes the ``guide``
argument of a solver. ``best_of_k`` wraps a whole sampler.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl_reg.generative.parameterisations import Denoiser
from jaxrl_reg.generative.samplers import Guide
from jaxrl_reg.generative.shapes import example_sum, expand

# Small against any gradient that matters; added to the norm, not to the quotient, so a zero gradient gives zero.
NORM_OFFSET = 1e-8


def classifier_free(
    field: Callable[[Array, Array, Any], Array], condition: Any, null: Any, weight: Array | float
) -> Denoiser:
    """``D_null + weight (D_condition - D_null)`` by one call on ``2 B`` rows (Ho and Salimans 2022, with ``w = weight
    - 1``).

    ``field(x, level, condition)`` is a denoiser, velocity or eps network; ``condition`` and ``null`` are pytrees of
    ``[B, ...]`` arrays. Weight 1 is conditional, 0 unconditional. The samples do not follow
    ``p_null^(1 - weight) p_condition^weight``: for one-dimensional Gaussians the flow interpolates standard deviations
    geometrically and over-sharpens beyond weight 1.
    """
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), condition, null)

    def guided(x: Array, level: Array) -> Array:
        out = field(jnp.concatenate([x, x]), jnp.concatenate([level, level]), both)
        with_condition, without = jnp.split(out, 2)
        return without + weight * (with_condition - without)

    return guided


def drop_condition(key: Array, condition: Any, null: Any, rate: Array | float = 0.1) -> tuple[Any, Array]:
    """Replace whole conditions by ``null`` with probability ``rate`` per example; also gives the mask ``[B]`` (1 =
    dropped).

    Dropping each entry on its own would never show the network the all-null condition that sampling asks for. Where a
    real condition can look like ``null``, give the mask to the network as well.
    """
    batch = jax.tree.leaves(condition)[0].shape[0]
    dropped = jax.random.bernoulli(key, rate, (batch,))
    mixed = jax.tree.map(lambda c, n: jnp.where(expand(dropped, c), n, c), condition, null)
    return mixed, dropped.astype(jnp.float32)


def energy(
    denoise: Denoiser,
    log_weight: Callable[[Array, Array], Array],
    weight: Array | float = 1.0,
    *,
    at: str = "noisy",
    sigma_data: Array | float = 0.5,
) -> Denoiser:
    """Steer towards large ``log_weight(x [B, ...], sigma [B]) -> [B]``: a classifier, a negative energy or a critic.

    ``at`` says where the gradient is taken:

    * "noisy": at ``x`` itself, for a classifier trained on noised samples: ``D + weight sigma^2 grad log_weight(x)``.
    * "exact": of ``log_weight(D(x))`` through the denoiser, for critics that know clean samples only. One backward
      pass.
    * "denoised": at ``D(x)`` without that pass. ``sigma^2 dD/dx``, the posterior variance, is replaced by what it is
      for Gaussian data, ``sigma^2 sigma_data^2 / (sigma^2 + sigma_data^2)``; the plain ``sigma^2`` would explode.

    Raises ``ValueError`` for another ``at``. Examples must not influence each other's ``log_weight``.
    """
    if at not in ("noisy", "exact", "denoised"):
        raise ValueError(f"unknown place for the gradient {at!r}; known: noisy, exact, denoised")

    def total(x: Array, sigma: Array) -> Array:
        return log_weight(x, sigma).sum()

    def guided(x: Array, sigma: Array) -> Array:
        if at == "exact":
            denoised, backward = jax.vjp(lambda x: denoise(x, sigma), x)
            (slope,) = backward(jax.grad(total)(denoised, sigma))
        else:
            denoised = denoise(x, sigma)
            slope = jax.grad(total)(x if at == "noisy" else denoised, sigma)
        scale = sigma**2
        if at == "denoised":
            scale = sigma**2 * sigma_data**2 / (sigma**2 + sigma_data**2)
        return denoised + weight * expand(scale, x) * slope

    return guided


def q_guidance(
    denoise: Denoiser,
    critic: Callable[[Array], Array],
    weight: Array | float = 1.0,
    *,
    at: str = "denoised",
    sigma_data: Array | float = 0.5,
) -> Denoiser:
    """``energy`` for a critic ``critic(action [B, A]) -> [B]``, states closed over; towards ``p exp(weight Q)``."""
    return energy(denoise, lambda action, sigma: critic(action), weight, at=at, sigma_data=sigma_data)


def clip(denoise: Denoiser, low: Array | float, high: Array | float) -> Denoiser:
    """Keep the denoised estimate in a box: a different denoiser, and still a differential equation."""
    return lambda x, sigma: jnp.clip(denoise(x, sigma), low, high)


def inpaint(denoise: Denoiser, known: Array, mask: Array) -> Denoiser:
    """Hold ``known`` where ``mask`` is 1 (broadcastable to the sample): clean values go in and come out.

    Train with a level per token (``edm_loss(..., level_axes=2)``) if the network should know which ones are clean.
    """

    def painted(x: Array, sigma: Array) -> Array:
        return jnp.where(mask > 0, known, denoise(jnp.where(mask > 0, known, x), sigma))

    return painted


def gradient_guide(
    log_prob: Callable[[Array], Array],
    weights: Array,
    *,
    denoise: Denoiser | None = None,
    normalise: bool = True,
) -> Guide:
    """A solver's guide ``weights[index] * gradient of log_prob(x [B, ...]) -> [B]`` (Policy-Guided Diffusion).

    The gradient is taken at ``x``, or at ``denoise(x, sigma)`` held as an input when given; ``normalise`` divides by
    its norm over each example. Hold fixed what must not be pushed (states, say) by ``stop_gradient`` inside
    ``log_prob``.
    """

    def guide(x: Array, sigma: Array, index: Array) -> Array:
        at = x if denoise is None else denoise(x, sigma)
        slope = jax.grad(lambda y: log_prob(y).sum())(at)
        if normalise:
            square = example_sum(jnp.square(slope))
            norm = jnp.sqrt(jnp.where(square > 0, square, 1.0))  # sqrt has an infinite slope at 0
            slope = slope / expand(norm + NORM_OFFSET, x)
        return weights[index] * slope

    return guide


def cosine_weights(steps: int, coefficient: Array | float, cosine: float = 0.3) -> Array:
    """``[steps]`` guidance weights ``c ((1 - i / n) + cosine sin(pi (i + 1) / n))`` of Policy-Guided Diffusion."""
    i = jnp.arange(steps)
    return coefficient * ((1 - i / steps) + cosine * jnp.sin(math.pi * (i + 1) / steps))


def choose(
    key: Array | None,
    scores: Array,
    *,
    method: str = "argmax",
    temperature: Array | float = 1.0,
    expectile: Array | float = 0.7,
    baseline: Array | None = None,
) -> Array:
    """Index ``[B]`` of one of ``K`` candidates from their ``scores [K, B]`` (any axes in place of ``B``).

    * "argmax": the best; needs no key.
    * "softmax": with probability proportional to ``exp(score / temperature)`` (Diffusion-QL).
    * "expectile": proportional to ``|expectile - 1[advantage < 0]|``, the advantage being ``score - baseline [B]``
      (IDQL's implicit policy; the baseline defaults to the candidates' mean).

    Raises ``ValueError`` for another method.
    """
    if method == "argmax":
        return jnp.argmax(scores, axis=0)
    if method == "softmax":
        logits = scores / temperature
    elif method == "expectile":
        advantage = scores - (scores.mean(axis=0) if baseline is None else baseline)
        logits = jnp.log(jnp.abs(expectile - (advantage < 0)))
    else:
        raise ValueError(f"unknown selection {method!r}; known: argmax, softmax, expectile")
    if key is None:
        raise ValueError(f"selection by {method} is random and needs a key")
    return jax.random.categorical(key, logits, axis=0)


def best_of_k(
    key: Array,
    sample: Callable[[Array], Array],
    score: Callable[[Array], Array],
    k: int,
    **selection: Any,
) -> Array:
    """Draw ``sample(key) -> [B, ...]`` ``k`` times, score by ``score(x) -> [B]``, keep one per row, see ``choose``."""
    key_sample, key_choose = jax.random.split(key)
    candidates = jax.vmap(sample)(jax.random.split(key_sample, k))
    return pick(candidates, choose(key_choose, jax.vmap(score)(candidates), **selection))


def pick(candidates: Array, index: Array) -> Array:
    """``candidates [K, B, ...]`` at ``index [B]``, giving ``[B, ...]`` (any axes in place of ``B``)."""
    index = index.reshape(1, *index.shape, *(1,) * (candidates.ndim - 1 - index.ndim))
    return jnp.take_along_axis(candidates, index, axis=0)[0]

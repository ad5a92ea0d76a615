"""What a network predicts, and exact conversions between the possibilities.

Everything is a statement about ``x = alpha x0 + sigma eps``. Given ``x`` and any one of ``x0``, ``eps``, ``score``,
``v = alpha eps - sigma x0`` and ``velocity = eps - x0``, the others follow. The formulas hold for every ``alpha`` and
``sigma``, so the variance-preserving, variance-exploding (``alpha = 1``) and flow (``alpha = 1 - t, sigma = t``)
coordinates need no cases.

A **denoiser** is a plain callable ``denoise(x [B, ...], sigma [B]) -> x0 estimate [B, ...]`` in variance-exploding
coordinates, parameters and conditions closed over; a **velocity** is ``velocity(z [B, ...], t [B])``; an **average
velocity** is ``average_velocity(z, r [B], t [B])``. Adapters below turn networks of every kind into denoisers, so that
schedules, solvers and guidance are chosen independently of what was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrl_reg.generative.schedules import vp_coefficients
from jaxrl_reg.generative.shapes import expand, same_shape

Denoiser = Callable[[Array, Array], Array]
Velocity = Callable[[Array, Array], Array]
AverageVelocity = Callable[[Array, Array, Array], Array]

KINDS = ("x0", "eps", "score", "v", "velocity")


def _unknown(kind: str) -> ValueError:
    return ValueError(f"unknown parameterisation {kind!r}; known: {', '.join(KINDS)}")


def to_x0(kind: str, prediction: Array, x: Array, alpha: Array | float, sigma: Array | float) -> Array:
    """The ``x0`` that a prediction of the given kind stands for.

    ``alpha`` and ``sigma`` are scalars or ``[B]``. Raises ``ValueError`` for an unknown kind or unequal shapes.
    """
    same_shape("prediction", prediction, x)
    alpha, sigma = expand(alpha, x), expand(sigma, x)
    if kind == "x0":
        return prediction
    if kind == "eps":
        return (x - sigma * prediction) / alpha
    if kind == "score":
        return (x + sigma**2 * prediction) / alpha
    if kind == "v":
        return (alpha * x - sigma * prediction) / (alpha**2 + sigma**2)
    if kind == "velocity":
        return (x - sigma * prediction) / (alpha + sigma)
    raise _unknown(kind)


def from_x0(kind: str, x0: Array, x: Array, alpha: Array | float, sigma: Array | float) -> Array:
    """The value of the given kind that corresponds to ``x0``; the inverse of ``to_x0``."""
    same_shape("x0", x0, x)
    alpha, sigma = expand(alpha, x), expand(sigma, x)
    if kind == "x0":
        return x0
    eps = (x - alpha * x0) / sigma
    if kind == "eps":
        return eps
    if kind == "score":
        return -eps / sigma
    if kind == "v":
        return alpha * eps - sigma * x0
    if kind == "velocity":
        return eps - x0
    raise _unknown(kind)


def convert(prediction: Array, source: str, target: str, x: Array, alpha: Array | float, sigma: Array | float) -> Array:
    """A prediction of kind ``source`` as one of kind ``target``."""
    return from_x0(target, to_x0(source, prediction, x, alpha, sigma), x, alpha, sigma)


def training_target(kind: str, x0: Array, eps: Array, alpha: Array | float, sigma: Array | float) -> Array:
    """What a network of the given kind regresses on; unlike ``from_x0`` it never divides a difference by ``sigma``."""
    alpha, sigma = expand(alpha, x0), expand(sigma, x0)
    targets = {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "velocity": eps - x0}
    if kind == "score":
        return -eps / sigma
    if kind not in targets:
        raise _unknown(kind)
    return targets[kind]


# ---------------------------------------------------------------------------------------------------------------------
# EDM preconditioning.


class Preconditioning(NamedTuple):
    """``D(x) = skip x + out F(scale x, noise)``; each ``[B]``."""

    skip: Array
    out: Array
    scale: Array
    noise: Array


def edm_preconditioning(sigma: Array, sigma_data: Array | float = 0.5) -> Preconditioning:
    """Unit-variance inputs and targets for the network at every level (Karras et al. 2022, table 1)."""
    sigma = jnp.asarray(sigma)
    total = jnp.sqrt(sigma**2 + sigma_data**2)
    return Preconditioning(sigma_data**2 / total**2, sigma * sigma_data / total, 1 / total, jnp.log(sigma) / 4)


def edm_weight(sigma: Array, sigma_data: Array | float = 0.5) -> Array:
    """The weight of ``(D - x0)^2`` that makes it the squared error of the raw network ``F``."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def edm_denoiser(network: Callable[[Array, Array], Array], sigma_data: Array | float = 0.5) -> Denoiser:
    """The denoiser of a raw network ``network(scaled x [B, ...], log(sigma) / 4 [B]) -> [B, ...]``."""

    def denoise(x: Array, sigma: Array) -> Array:
        c = edm_preconditioning(sigma, sigma_data)
        return expand(c.skip, x) * x + expand(c.out, x) * network(expand(c.scale, x) * x, c.noise)

    return denoise


def consistency_function(
    network: Callable[[Array, Array], Array], sigma_data: Array | float = 0.5, sigma_min: Array | float = 0.002
) -> Denoiser:
    """``f(x, sigma)`` with ``f(x, sigma_min) = x`` exactly, whatever the network (Song et al. 2023, section 3).

    The network has the inputs of ``edm_denoiser``; only the outer coefficients differ.
    """

    def consistency(x: Array, sigma: Array) -> Array:
        sigma = jnp.asarray(sigma)
        shifted = sigma - sigma_min
        skip = sigma_data**2 / (shifted**2 + sigma_data**2)
        out = shifted * sigma_data / jnp.sqrt(sigma**2 + sigma_data**2)
        c = edm_preconditioning(sigma, sigma_data)
        return expand(skip, x) * x + expand(out, x) * network(expand(c.scale, x) * x, c.noise)

    return consistency


# ---------------------------------------------------------------------------------------------------------------------
# Adapters.


def vp_predictor(network: Callable[[Array, Array], Array], betas: Array, kind: str = "eps") -> Denoiser:
    """``predict(x_t [B, ...], t [B] int32) -> x0`` of a network ``network(x_t, t)`` trained with ``ddpm_loss``."""
    alpha, sigma = vp_coefficients(betas)

    def predict(x: Array, t: Array) -> Array:
        return to_x0(kind, network(x, t), x, alpha[t], sigma[t])

    return predict


def vp_denoiser(predict: Denoiser, betas: Array) -> Denoiser:
    """The denoiser of a ``vp_predictor``, so that every solver runs a discretely trained network.

    A level is rounded to the nearest trained one in ``log sigma``; ``vp_sigmas(betas)`` needs no rounding.
    """
    alpha, sigma = vp_coefficients(betas)
    levels = jnp.log(sigma / alpha)
    middles = 0.5 * (levels[1:] + levels[:-1])

    def denoise(x: Array, sigma: Array) -> Array:
        t = jnp.searchsorted(middles, jnp.log(sigma)).astype(jnp.int32)
        return predict(x / expand(jnp.sqrt(1 + sigma**2), x), t)

    return denoise


def flow_denoiser(velocity: Velocity) -> Denoiser:
    """The denoiser of a flow: ``sigma = t / (1 - t)``, ``z = (1 - t) x`` and ``x0 = z - t velocity``."""

    def denoise(x: Array, sigma: Array) -> Array:
        t = sigma / (1 + sigma)
        z = x / expand(1 + sigma, x)
        return z - expand(t, x) * velocity(z, t)

    return denoise


def denoiser_flow(denoise: Denoiser, time_min: float = 1e-3, time_max: float = 1 - 1e-4) -> Velocity:
    """The velocity of a denoiser.

    Times are clipped to ``[time_min, time_max]`` where the field is evaluated: the level is infinite at 1, and the
    quotient ``(z - x0) / t`` loses all digits at 0.
    """

    def velocity(z: Array, t: Array) -> Array:
        t = jnp.clip(t, time_min, time_max)
        x0 = denoise(z / expand(1 - t, z), t / (1 - t))
        return (z - x0) / expand(t, z)

    return velocity

"""Diffusion policies: conditional samplers of actions, with their training loss. They have no cheap log density.

Any network of ``networks.denoisers`` (``apply(params, x [B, A], time [B], observation [B, O])``) fits. Sample with an
averaged copy of the parameters (``transforms.polyak``). Steps and solver are static; temperatures, guidance weights and
the like may be traced: building a policy costs nothing, so build it inside the update.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import generative
from jaxrl_reg.types import Array, Key, Network, PyTree, Spec


class GenerativePolicy(NamedTuple):
    """A policy that samples but gives no log density, made by this module or by ``policies.flow``.

    ``init(key) -> params``; ``loss(params, observation [B, O], action [B, A], key) -> (loss [B], aux)``, weighted and
    averaged by the caller; ``sample(params, observation [..., O], key, shape=()) -> action [*shape, ..., A]`` draws
    ``shape`` actions per observation in one batch and can be differentiated. ``aux["x0"] [B, A]`` is the action that
    the noised one is denoised to in a single step.
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, Array, Array, Key], tuple[Array, dict[str, Array]]]
    sample: Callable[..., Array]


def batched(draw: Callable[[PyTree, Array, Array, Key], Array], spec: Spec, clip: float | None) -> Callable[..., Array]:
    """``sample`` from ``draw(params, observation [B, O], noise [B, A], key)``: candidates are folded into the batch."""

    def sample(params: PyTree, observation: Array, key: Key, shape: tuple[int, ...] = ()) -> Array:
        if observation.shape[-1:] != (spec.observation_dim,):
            raise ValueError(f"expected observations of width {spec.observation_dim}, got shape {observation.shape}")
        key_noise, key_draw = jax.random.split(key)
        lead = (*shape, *observation.shape[:-1])
        rows = jnp.broadcast_to(observation, (*lead, spec.observation_dim)).reshape(
            math.prod(lead), spec.observation_dim
        )
        noise = jax.random.normal(key_noise, (math.prod(lead), spec.action_dim))
        action = draw(params, rows, noise, key_draw).reshape(*lead, spec.action_dim)
        return action if clip is None else jnp.clip(action, -clip, clip)

    return sample


def ddpm(
    network: Network,
    spec: Spec,
    betas: Array,
    *,
    target: str = "eps",
    variance: str = "small",
    temperature: Array | float = 1.0,
    clip_denoised: float | None = 1.0,
    clip_sample: float | None = None,
    clip: float | None = 1.0,
    guidance: Callable[[Array], generative.Guide] | None = None,
) -> GenerativePolicy:
    """The discrete chain of Diffusion-QL and IDQL; ``betas`` from ``generative.vp_betas(5)``, say.

    The network gets the time ``(t + 1) / T`` in (0, 1] and predicts ``target``. ``clip_denoised``, ``clip_sample`` and
    ``clip`` bound the estimates, the intermediate and the final actions; all must be None for standardised actions.
    IDQL: ``variance="large", clip_denoised=None, clip_sample=1.0``. ``guidance(observation [B, O])`` gives a solver
    guide.
    """
    steps = betas.shape[0]

    def field(params: PyTree, observation: Array) -> Callable[[Array, Array], Array]:
        return lambda x, t: network.apply(params, x, (t + 1) / steps, observation)

    def loss(params: PyTree, observation: Array, action: Array, key: Key):
        return generative.ddpm_loss(key, field(params, observation), action, betas, target=target)

    def draw(params: PyTree, observation: Array, noise: Array, key: Key) -> Array:
        predict = generative.vp_predictor(field(params, observation), betas, target)
        return generative.ddpm(
            key,
            predict,
            noise,
            betas,
            variance=variance,
            temperature=temperature,
            clip_denoised=clip_denoised,
            clip_sample=clip_sample,
            guide=None if guidance is None else guidance(observation),
        )

    return GenerativePolicy(network.init, loss, batched(draw, spec, clip))


def edm(
    network: Network,
    spec: Spec,
    sigmas: Array,
    *,
    method: str = "dpmpp_2m",
    sigma_data: Array | float = 0.5,
    density: Callable[..., Array] = generative.log_normal,
    clip: float | None = 1.0,
    guidance: Callable[[generative.Denoiser, Array], generative.Denoiser] | None = None,
    **options: Any,
) -> GenerativePolicy:
    """A preconditioned denoiser (EDM, BESO) with any solver of ``generative.SAMPLERS`` on the grid ``sigmas``.

    The network gets ``log(sigma) / 4``: use a ``linear`` time embedding. ``guidance(denoise, observation [B, O])``
    wraps the denoiser when sampling. ``options`` go to the solver. Starting at ``sigmas[0]`` not much above
    ``sigma_data`` pulls actions towards 0: for Gaussian actions the mean shrinks by ``sigma_data / sqrt(sigma_data^2 +
    sigmas[0]^2)``.
    """

    def field(params: PyTree, observation: Array) -> Callable[[Array, Array], Array]:
        return lambda x, noise: network.apply(params, x, noise, observation)

    def loss(params: PyTree, observation: Array, action: Array, key: Key):
        return generative.edm_loss(key, field(params, observation), action, density=density, sigma_data=sigma_data)

    def draw(params: PyTree, observation: Array, noise: Array, key: Key) -> Array:
        denoise = generative.edm_denoiser(field(params, observation), sigma_data)
        if guidance is not None:
            denoise = guidance(denoise, observation)
        return generative.sample(key, denoise, sigmas[0] * noise, sigmas, method=method, **options)

    return GenerativePolicy(network.init, loss, batched(draw, spec, clip))


def best_of_k(
    policy: GenerativePolicy,
    params: PyTree,
    observation: Array,
    key: Key,
    critic: Callable[[Array, Array], Array],
    k: int,
    **selection: Any,
) -> Array:
    """Draw ``k`` actions per observation ``[..., O]`` and keep one by ``critic(observation, action) -> [k, ...]``.

    The critic gets arrays with a leading axis ``k`` and returns one number for each, so reduce an ensemble first.
    ``selection`` goes to ``generative.choose``: ``method`` argmax (IDQL), softmax with ``temperature`` (Diffusion-QL)
    or expectile with ``baseline [...]``.
    """
    key_sample, key_choose = jax.random.split(key)
    actions = policy.sample(params, observation, key_sample, (k,))
    scores = critic(jnp.broadcast_to(observation, (k, *observation.shape)), actions)
    if scores.shape != actions.shape[:-1]:
        raise ValueError(f"the critic's scores have shape {scores.shape}, expected {actions.shape[:-1]}")
    return generative.pick(actions, generative.choose(key_choose, scores, **selection))

"""Actors that are given a task z: how each learns from the value of tasks, and how it acts.

Observations and the diffusion actor's actions are as the networks see them, standardised where the agent does that; the
other actors' actions lie in [-1, 1]. ``q(observation, action, z) -> [...]`` is the value of an action under the policy
of z; leading axes broadcast.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import generative, losses
from jaxrl_reg.errors import unknown
from jaxrl_reg.networks.denoisers import denoiser_resnet
from jaxrl_reg.networks.successor import task_actor
from jaxrl_reg.policies import deterministic, diffusion, gaussian
from jaxrl_reg.types import Array, Key, Network, PyTree, Spec, setting

Value = Callable[[Array, Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class Config:
    """Of the actors."""

    hidden: tuple[int, ...] = setting(
        default=(1024,), help="no layer is wider than the first; papers: 256 to 1024", small=(16,)
    )
    features: int = setting(default=50, help="D, the dimension of F, B and z; 100 for mazes", small=8)
    actor: str = setting(default="deterministic", help="deterministic, gaussian, diffusion or diffusion_bc")
    steps: int = setting(default=10, help="denoising steps; 5 for walker and Kitchen", small=3)
    time_width: int = setting(default=128, help="width of the noise level's embedding in the diffusion actor", small=8)
    actor_dropout: float = setting(default=0.1, help="dropout in the diffusion actor")
    candidates: int = setting(default=64, help="samples of it among which F^T z chooses when acting", small=4)
    train_candidates: int = setting(default=1, help="samples of it among which F^T z chooses a'; 2 to 9 for some data")
    max_weight: float = setting(default=100.0, help="largest weight of a row in the actor loss")
    policy_noise: float = setting(
        default=0.2, help="scale of the noise on a deterministic actor's actions while training"
    )
    noise_clip: float = setting(default=0.3, help="largest such noise")


class TaskActor(NamedTuple):
    """``init(key) -> params``.

    ``loss(params, observation [B, O], action [B, A], z [B, D], weight [B], q, key, hyper) -> [B]`` with the data's
    actions. ``draw(params, observation [..., O], z [..., D], q, key, hyper) -> action [..., A]`` is what the policy
    does while the representation learns, ``greedy(params, observation, z, q, key)`` what it does when it counts.
    ``weighted``: rows of the data count by their advantage; ``averaged``: a slow average acts; ``diffuses``: actions
    are to be standardised.
    """

    init: Callable[[Key], PyTree]
    loss: Callable[..., Array]
    draw: Callable[..., Array]
    greedy: Callable[..., Array]
    weighted: bool = False
    averaged: bool = False
    diffuses: bool = False


def climbing(config: Config, spec: Spec) -> TaskActor:
    """Deterministic, climbs q at a noisy action: DDPG's actor, as in FB. Looks at no action of the data."""
    network = task_actor(spec, config.features, limit=config.hidden[0])

    def draw(params: PyTree, observation: Array, z: Array, q: Value, key: Key, hyper: Any) -> Array:
        action = network.apply(params, observation, z)
        return deterministic.smoothed(action, key, hyper.policy_noise, hyper.noise_clip)

    def loss(params, observation, action, z, weight, q, key, hyper) -> Array:
        return -q(observation, draw(params, observation, z, q, key, hyper), z)

    def greedy(params: PyTree, observation: Array, z: Array, q: Value, key: Key) -> Array:
        return network.apply(params, observation, z)

    return TaskActor(network.init, loss, draw, greedy)


def weighted_gaussian(config: Config, spec: Spec) -> TaskActor:
    """Normal around a tanh mean, one standard deviation per action dimension: advantage-weighted regression."""
    network = task_actor(spec, config.features, limit=config.hidden[0])

    def init(key: Key) -> PyTree:
        return {"mean": network.init(key), "log_std": jnp.zeros(spec.action_dim)}

    def normal(params: PyTree, observation: Array, z: Array) -> tuple[Array, Array]:
        return network.apply(params["mean"], observation, z), jnp.clip(params["log_std"], -5.0, 2.0)

    def loss(params, observation, action, z, weight, q, key, hyper) -> Array:
        return losses.weighted_log_prob_loss(gaussian.normal_log_prob(*normal(params, observation, z), action), weight)

    def draw(params: PyTree, observation: Array, z: Array, q: Value, key: Key, hyper: Any) -> Array:
        mean, log_std = normal(params, observation, z)
        return jnp.clip(mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape), -1.0, 1.0)

    def greedy(params: PyTree, observation: Array, z: Array, q: Value, key: Key) -> Array:
        return normal(params, observation, z)[0]

    return TaskActor(init, loss, draw, greedy, weighted=True, averaged=True)


def diffusing(config: Config, spec: Spec, *, weighted: bool) -> TaskActor:
    """Denoising of the data's action, weighted row by row; z modulates every block of the network.

    The error is a SUM over action dimensions. Nothing is clipped, since actions are standardised.
    """
    features, steps, dropout = config.features, config.steps, config.actor_dropout
    options = {"dropout": dropout, "time_scale": float(steps), "film_width": features, "film": "multiplicative"}
    network = denoiser_resnet(spec, min(1024, config.hidden[0]), time_width=config.time_width, **options)
    joint = dataclasses.replace(spec, observation_dim=spec.observation_dim + features)

    def apply(params: PyTree, x: Array, time: Array, asked: Array, key: Key | None = None) -> Array:
        observation, z = jnp.split(asked, [spec.observation_dim], axis=-1)
        return network.apply(params, x, time, observation, z=z, key=key)

    def policy(key: Key | None = None) -> diffusion.GenerativePolicy:
        denoise = Network(network.init, functools.partial(apply, key=key))
        betas = generative.vp_betas(steps)
        return diffusion.ddpm(denoise, joint, betas, variance="large", clip_denoised=None, clip=None)

    def asked(observation: Array, z: Array) -> Array:
        return jnp.concatenate([observation, jnp.broadcast_to(z, (*observation.shape[:-1], features))], axis=-1)

    def loss(params, observation, action, z, weight, q, key, hyper) -> Array:
        dropout_key, loss_key = jax.random.split(key)
        error, _ = policy(dropout_key if dropout > 0 else None).loss(params, asked(observation, z), action, loss_key)
        return losses.weighted_denoising_loss(spec.action_dim * error, weight)

    def best(params: PyTree, observation: Array, z: Array, q: Value, key: Key, k: int) -> Array:
        if k == 1:
            return policy().sample(params, asked(observation, z), key)

        def value(_, actions: Array) -> Array:  # the state and the task once, not once per candidate
            return q(observation, actions, z)

        return diffusion.best_of_k(policy(), params, asked(observation, z), key, value, k)

    def draw(params: PyTree, observation: Array, z: Array, q: Value, key: Key, hyper: Any) -> Array:
        return best(params, observation, z, q, key, config.train_candidates)

    def greedy(params: PyTree, observation: Array, z: Array, q: Value, key: Key) -> Array:
        return best(params, observation, z, q, key, config.candidates)

    return TaskActor(network.init, loss, draw, greedy, weighted, averaged=True, diffuses=True)


ACTORS: dict[str, Callable[[Any, Spec], TaskActor]] = {
    "deterministic": climbing,
    "gaussian": weighted_gaussian,
    "diffusion": functools.partial(diffusing, weighted=True),
    "diffusion_bc": functools.partial(diffusing, weighted=False),
}


def make(config: Config, spec: Spec) -> TaskActor:
    """The actor that ``config.actor`` names. Raises ``UserError`` for an unknown one."""
    if config.actor not in ACTORS:
        raise unknown("actor", config.actor, tuple(ACTORS))
    return ACTORS[config.actor](config, spec)

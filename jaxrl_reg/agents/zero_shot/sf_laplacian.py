"""Successor features on the graph Laplacian: features change slowly along the data's transitions and span many ways.

In words. phi(s), on the sphere of radius sqrt(D), minimises the mean squared change phi(s) - phi(s') over transitions,
while C = phi(s_i)^T phi(s_k) over the batch is pushed to orthonormality: mean of C^2 off the diagonal minus twice the
mean of the diagonal. Its low frequencies tell apart regions that the data seldom leave. Tasks, psi and the actor are
those of ``_features``; reaching a state is the task M^-1 phi(s), as in training, with M the running mean of phi phi^T.

Metrics: ``feature_loss``, with its first part ``change``; ``successor_loss`` summed over the two; ``q`` mean of psi^T z
on the batch's actions; ``actor_loss``.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.zero_shot import _features
from jaxrl_reg.agents.zero_shot._features import State
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, PyTree, Spec, Transition, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Does Zero-Shot Reinforcement Learning Exist? (its successor features on Laplacian eigenfunctions)",
    authors="Touati, Rapin, Ollivier",
    year=2023,
    url="https://arxiv.org/abs/2209.14935",
    deviations=_features.DEVIATIONS,
)
KIND = "offline"
PROTOCOL = Protocol(
    batch_size=512, updates=1_000_000, rewards=False, note="ExORL's data, as the later zero-shot benchmark trains it."
)
MOMENT_RATE = 0.005  # of the running mean of phi phi^T


@dataclasses.dataclass(frozen=True)
class Config(_features.Config):
    """As in ``_features``."""


@pytree
class Hyper(_features.Hyper):
    """As in ``_features``, and the weight of orthonormality."""

    orthonormality: float = setting(default=1.0, help="weight of the orthonormality of the features")


class Laplacian(NamedTuple):
    """The feature map, and the running mean ``[D, D]`` of phi phi^T."""

    map: _common.Trainable
    second: Array


def make(config: Config, spec: Spec) -> Agent:
    network = networks.mlp((spec.observation_dim, *config.hidden, config.features), layer_norm="first_tanh")

    def phi_of(params: PyTree, observation: Array) -> Array:
        return losses.project_sphere(network.apply(params, observation))

    def init(key: Key, hyper: Any) -> Laplacian:
        trainable = _common.trainable(network.init(key), adam(hyper.feature_learning_rate))
        return Laplacian(trainable, jnp.eye(config.features))

    def update(state: Laplacian, batch: Transition, hyper: Any) -> tuple[Laplacian, Metrics]:
        def loss(params):
            phi, following = phi_of(params, batch.observation), phi_of(params, batch.next_observation)
            change = jnp.square(phi - following).mean()
            size, similarity = phi.shape[0], phi @ phi.T
            on = jnp.diagonal(similarity)
            off = (jnp.square(similarity).sum() - jnp.square(on).sum()) / (size * (size - 1))
            total = change + hyper.orthonormality * (off - 2.0 * on.mean())
            return total, (phi, {"feature_loss": total, "change": change})

        learnt, (phi, metrics) = _common.descend(loss, state.map, adam(hyper.feature_learning_rate))
        second = state.second + MOMENT_RATE * (_features.second_moment(phi) - state.second)
        return Laplacian(learnt, second), metrics

    def phi(state: Laplacian, observation: Array) -> Array:
        return phi_of(state.map.params, observation)

    def goal(state: Laplacian, observation: Array) -> Array:
        with jax.default_matmul_precision("highest"):
            return _features.best_explained(state.second, phi(state, observation), _features.RIDGE)

    return _features.make(config, spec, _features.Features(init, update, phi, goal))

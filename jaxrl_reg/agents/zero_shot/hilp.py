"""HILP: features in which distance is the number of steps between states; a task is a direction to travel in.

In words. V_j(s, g) = -||phi_j(s) - phi_j(g)|| for two feature maps is fitted by expectile regression to the number of
steps from s to g: rows get goals from their own future, or, with probability ``random_goals``, from anywhere in the
data, and each step costs 1. The features used downstream are those of the first map minus their running mean. Tasks,
psi and the actor are those of ``_features``.

Metrics: ``feature_loss``, the regression, summed over the two maps; ``distance`` mean steps to the goal; then
``successor_loss`` summed over the two; ``q`` mean of psi^T z on the batch's actions; ``actor_loss``.
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
from jaxrl_reg.data import samplers
from jaxrl_reg.errors import UserError
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, PyTree, Spec, Transition, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Foundation Policies with Hilbert Representations",
    authors="Park, Kreiman, Levine",
    year=2024,
    url="https://arxiv.org/abs/2402.15567",
    deviations="A step that arrives at the goal still costs 1, and goals are never the present state. One rate moves "
    "all targets. A goal's z is its feature, seen from the mean, not from the present state. " + _features.DEVIATIONS,
)
KIND = "offline"
PROTOCOL = Protocol(batch_size=1024, updates=1_000_000, rewards=False, note="ExORL's data.")
MEAN_RATE = 0.005  # of the running mean of the features


@dataclasses.dataclass(frozen=True)
class Config(_features.Config):
    """As in ``_features``, and how goals are drawn."""

    random_goals: float = setting(
        default=0.375, help="fraction of goals from anywhere in the data; the others are future states"
    )
    goal_discount: float = setting(
        default=0.98, help="future goals are k steps ahead with probability proportional to its power k"
    )


@pytree
class Hyper(_features.Hyper):
    """As in ``_features``, and those of the distance."""

    distance_discount: float = setting(default=0.98, help="gamma of the distance")
    expectile: float = setting(default=0.5, help="0.5: mean over the data's ways to the goal, towards 1: the shortest")


class Distance(NamedTuple):
    """Two feature maps, their slow copies, and the running mean ``[D]`` of the first one's features."""

    maps: _common.Trainable
    target_maps: PyTree
    mean: Array


def make(config: Config, spec: Spec) -> Agent:
    if not 0.0 <= config.random_goals <= 1.0:
        raise UserError(f"hilp: random_goals={config.random_goals} must lie in [0, 1]")
    network = networks.ensemble(
        networks.mlp((spec.observation_dim, *config.hidden, config.features), layer_norm="first_tanh"), 2
    )
    sample = samplers.hindsight(config.goal_discount, geometric=1.0 - config.random_goals, random=config.random_goals)

    def value(params: PyTree, observation: Array, goal: Array) -> Array:
        gap = network.apply(params, observation) - network.apply(params, goal)
        return -jnp.sqrt(jnp.maximum(jnp.square(gap).sum(axis=-1), 1e-6))  # [2, B]

    def init(key: Key, hyper: Any) -> Distance:
        maps = network.init(key)
        trainable = _common.trainable(maps, adam(hyper.feature_learning_rate))
        return Distance(trainable, _common.copy(maps), jnp.zeros(config.features))

    def update(state: Distance, batch: Transition, hyper: Any) -> tuple[Distance, Metrics]:
        goal, going = batch.extras["goal"], 1.0 - batch.extras["goal_reached"]
        old = value(state.target_maps, batch.observation, goal)
        following = value(state.target_maps, batch.next_observation, goal)
        cost = -jnp.ones_like(batch.reward)

        def loss(params):
            values = value(params, batch.observation, goal)
            error = losses.goal_value_loss(
                values, old, following, cost, going, hyper.distance_discount, hyper.expectile
            ).mean()
            return error, {"feature_loss": error, "distance": -values.mean()}

        maps, metrics = _common.descend(loss, state.maps, adam(hyper.feature_learning_rate))
        found = network.apply(networks.members(maps.params, 1), batch.observation)[0].mean(axis=0)
        mean = state.mean + MEAN_RATE * (found - state.mean)
        return Distance(maps, polyak(maps.params, state.target_maps, hyper.tau), mean), metrics

    def phi(state: Distance, observation: Array) -> Array:
        return network.apply(networks.members(state.maps.params, 1), observation)[0] - jax.lax.stop_gradient(state.mean)

    return _features.make(config, spec, _features.Features(init, update, phi), sample)

"""TD3: a deterministic actor and two critics, with three cures for overestimation.

In words. Critics: all fit y = r + gamma d min_j Q'_j(s', a'), with a' the target actor's action plus clipped noise.
Actor, every ``policy_freq`` updates: maximise Q_1(s, pi(s)). Target networks move only with the actor. The update is
written out in ``_td3``, which TD3+BC, ReBRAC, PRDC and A2PR share.

Metrics: ``critic_loss`` sum over critics of the mean squared TD error; ``q`` mean value of the batch's actions;
``target`` mean TD target; ``actor_loss`` and ``q_policy`` (mean Q_1 of the policy's own actions) of the latest actor
update, one being minus the other.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp

from jaxrl_reg.agents import _common, _resets, _td3
from jaxrl_reg.agents._td3 import State
from jaxrl_reg.errors import UserError
from jaxrl_reg.policies import deterministic
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, PyTree, Spec, Transition, pytree

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Addressing Function Approximation Error in Actor-Critic Methods",
    authors="Fujimoto, van Hoof, Meger",
    year=2018,
    url="https://arxiv.org/abs/1802.09477",
    deviations=_td3.FIRST_STEP,
)
KIND = "off_policy"
PROTOCOL = Protocol(batch_size=256, note="Learns in the environment; on data it has no published protocol.")


@dataclasses.dataclass(frozen=True)
class Config(_td3.Config):
    pass


@pytree
class Hyper(_td3.Hyper):
    pass


def make(
    config: Config,
    spec: Spec,
    penalty: _common.Penalty | None = None,
    transform: _common.Transform | None = None,
) -> Agent:
    """TD3; ``penalty`` and ``transform`` hold the actor as in ``ppo.make``. The ``distribution`` of a penalty is the
    normal that the policy explores with: ``(action, log of the exploration noise)``."""
    network = deterministic.make(spec, config.hidden)

    def exploring(action: Array) -> tuple[Array, Array]:
        if config.exploration_noise <= 0:
            raise UserError("exploration_noise=0 leaves td3 no distribution to be held to: set it above 0")
        return action, jnp.full_like(action, math.log(config.exploration_noise))

    def distribution(state: State, params: PyTree, observation: Array) -> tuple[Array, Array]:
        return exploring(network.apply(params, observation))

    spoken = None if penalty is None else lambda action, *rest: penalty(exploring(action), *rest)
    steps = _td3.core(config, spec, hold=(spoken, transform))

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array | int) -> tuple[State, Metrics]:
        critic, _, critic_metrics = steps.critics(state, batch, hyper, key)
        state, actor_metrics = steps.actor(state, critic, batch, hyper, step, pull=None)
        return state, {**critic_metrics, **actor_metrics}

    cycle = _common.cycle(update, config.policy_freq)
    agent = Agent(
        steps.init,
        update,
        steps.act,
        measure=steps.measure,
        kind=KIND,
        cycle=cycle,
        distribution=distribution,
        q=_common.least_value(steps.q),
    )
    return _resets.switched(config, agent, steps.q)

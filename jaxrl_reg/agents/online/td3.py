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

from jaxrl_reg.agents import _common, _td3
from jaxrl_reg.agents._td3 import State
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, Spec, Transition, pytree

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


def make(config: Config, spec: Spec) -> Agent:
    steps = _td3.core(config, spec)

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array | int) -> tuple[State, Metrics]:
        critic, _, critic_metrics = steps.critics(state, batch, hyper, key)
        state, actor_metrics = steps.actor(state, critic, batch, hyper, step, pull=None)
        return state, {**critic_metrics, **actor_metrics}

    cycle = _common.cycle(update, config.policy_freq)
    return Agent(steps.init, update, steps.act, measure=steps.measure, kind=KIND, cycle=cycle)

"""TD3+BC: TD3 whose actor is also pulled towards the data's actions.

In words. Critics: both fit y = r + gamma d min_j Q'_j(s', a'), with a' the target actor's action plus clipped noise.
Actor, every ``policy_freq`` updates: maximise lambda Q_1(s, pi(s)) minus ``bc_coef`` times the mean squared distance of
pi(s) to the data's action (mean over dimensions), where lambda = alpha / mean |Q_1|, held constant, makes alpha
independent of the scale of rewards. Target networks move only with the actor. The update is written out in ``_td3``.

Metrics: ``critic_loss`` sum over critics of the mean squared TD error; ``q`` mean value of data actions; ``target``
mean TD target; ``actor_loss``, ``bc_loss`` (the distance above) and ``q_policy`` (mean Q_1 of the policy's actions),
all three of the latest actor update.
"""

from __future__ import annotations

import dataclasses

from jaxrl_reg.agents import _td3
from jaxrl_reg.agents._td3 import State
from jaxrl_reg.types import Agent, Array, Paper, Protocol, Spec, Transition, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="A Minimalist Approach to Offline Reinforcement Learning",
    authors="Fujimoto, Gu",
    year=2021,
    url="https://arxiv.org/abs/2106.06860",
    deviations=f"Observations are normalised by the data pipeline, not by the agent. {_td3.FIRST_STEP}",
)
KIND = "offline"
PROTOCOL = Protocol(normalise=True, batch_size=256, updates=1_000_000)


@dataclasses.dataclass(frozen=True)
class Config(_td3.Config):
    pass


@pytree
class Hyper(_td3.Hyper):
    alpha: float = setting(default=2.5, help="weight of the normalised value against cloning")
    bc_coef: float = setting(default=1.0, help="weight of the cloning term; 0 leaves TD3 on fixed data")


def make(config: Config, spec: Spec) -> Agent:
    def pull(batch: Transition, action: Array, hyper: Hyper) -> _td3.Pull:
        return _td3.Pull(batch.action, hyper.bc_coef, hyper.alpha)

    return _td3.make(config, spec, pull)

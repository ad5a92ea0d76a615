"""Implicit Q-Learning: never asks the critics about an action that is not in the data.

In words. Value: V(s) is the ``expectile`` of min_j Q'_j(s, a) over the data's actions, so it leans towards the best of
them. Critics: both fit y = r + gamma d V(s'). Actor: maximise the log-density of the data's actions, weighted by
exp(inverse_temperature (min_j Q'_j(s, a) - V(s))), cut at ``max_weight``. Q' is the slowly moving copy of the critics.
Order: value, actor, critics, targets; the update is written out in ``_in_sample``, which XQL, SQL and EQL share.

Metrics: ``value_loss``, ``critic_loss`` (sum over critics of the mean squared TD error), ``actor_loss``; ``v`` and
``q`` mean values on the batch; ``advantage`` mean of Q' - V; ``weight`` mean actor weight, ``active`` fraction above 0.
"""

from __future__ import annotations

import dataclasses

from jaxrl_reg import losses
from jaxrl_reg.agents.offline import _in_sample
from jaxrl_reg.agents.offline._in_sample import State
from jaxrl_reg.types import Agent, Array, Paper, Protocol, Spec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Offline Reinforcement Learning with Implicit Q-Learning",
    authors="Kostrikov, Nair, Levine",
    year=2021,
    url="https://arxiv.org/abs/2110.06169",
    deviations=_in_sample.DEVIATIONS,
)
KIND = "offline"
OFFLINE_FRACTION = None  # when fine-tuned online the data stand in the replay, every row as likely, as released
PROTOCOL = Protocol(
    reward_scale="returns",
    sparse=(1.0, -1.0),
    batch_size=256,
    updates=1_000_000,
    note="Kitchen and Adroit: rewards as they are, which --reward-scale none keeps.",
)


@dataclasses.dataclass(frozen=True)
class Config(_in_sample.Config):
    layer_norm: str = setting(default="none", help="LayerNorm in critics and value: none, every, before or first_tanh")


@pytree
class Hyper(_in_sample.Hyper):
    expectile: float = setting(
        default=0.7, help="0.5: mean over the data's actions, towards 1: maximum; 0.9 for AntMaze"
    )
    inverse_temperature: float = setting(
        default=3.0, help="beta of the actor's weights; 10 for AntMaze, 0.5 for Kitchen and Adroit"
    )


def make(config: Config, spec: Spec) -> Agent:
    def value_loss(target_q: Array, v: Array, hyper: Hyper) -> Array:
        return losses.expectile_loss(target_q - v, hyper.expectile)

    def weight(advantage: Array, hyper: Hyper) -> Array:
        return losses.awr_weight(advantage, hyper.inverse_temperature, config.max_weight)

    return _in_sample.make(config, spec, value_loss, weight, critic_layer_norm=config.layer_norm)

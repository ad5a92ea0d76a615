"""XQL, extreme Q-learning: the soft maximum over the data's actions by Gumbel regression.

In words. Value: minimise e^z - z - 1 with z = (min_j Q'_j(s, a) - V(s)) / temperature, cut at ``max_exponent`` and the
batch rescaled so that nothing overflows; its minimum is temperature log E exp(Q' / temperature) over the data's
actions. Critics: both fit y = r + gamma d V(s') by the Huber loss, quadratic up to ``huber_delta``. Actor: maximise the
log-density of the data's actions, weighted by exp(inverse_temperature (min_j Q'_j(s, a) - V(s))), cut at
``max_weight``. Q' is the slowly moving copy of the critics. Order: value, actor, critics, targets; the update is
written out in ``_in_sample``, which IQL, SQL and EQL share.

Metrics: ``value_loss``, ``critic_loss`` (sum over critics of the mean Huber loss), ``actor_loss``; ``v`` and ``q`` mean
values on the batch; ``advantage`` mean of Q' - V; ``weight`` mean actor weight, ``active`` fraction above 0.
"""

from __future__ import annotations

import dataclasses

import jax

from jaxrl_reg import losses
from jaxrl_reg.agents.offline import _in_sample
from jaxrl_reg.agents.offline._in_sample import State
from jaxrl_reg.types import Agent, Array, Paper, Protocol, Spec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Extreme Q-Learning: MaxEnt RL without Entropy",
    authors="Garg, Hejna, Geist, Ermon",
    year=2023,
    url="https://arxiv.org/abs/2301.02328",
    deviations=f"{_in_sample.DEVIATIONS} Its options of noisy and random actions in the value's loss are left out. "
    "Batch size is a setting of the run; the released runs use 1,024.",
)
KIND = "offline"
PROTOCOL = Protocol(
    reward_scale="returns",
    sparse=(1.0, -1.0),
    batch_size=256,
    updates=1_000_000,
    note="Kitchen and Adroit: rewards as they are, which --reward-scale none keeps.",
)


@dataclasses.dataclass(frozen=True)
class Config(_in_sample.Config):
    max_exponent: float = setting(default=7.0, help="largest (q - v) / temperature in the value's loss; 5 to 7")
    huber: bool = setting(default=True, help="critics by the Huber loss; otherwise by the squared error")


@pytree
class Hyper(_in_sample.Hyper):
    temperature: float = setting(
        default=2.0, help="of the soft maximum, in units of value; 1 to 10, smaller is greedier"
    )
    inverse_temperature: float = setting(default=3.0, help="of the actor's weights")
    huber_delta: float = setting(default=20.0, help="TD error at which the Huber loss turns linear")


def make(config: Config, spec: Spec) -> Agent:
    def value_loss(target_q: Array, v: Array, hyper: Hyper) -> Array:
        return losses.gumbel_loss(target_q - v, hyper.temperature, config.max_exponent)

    def weight(advantage: Array, hyper: Hyper) -> Array:
        return losses.awr_weight(advantage, hyper.inverse_temperature, config.max_weight)

    def huber(q: Array, target: Array, hyper: Hyper) -> Array:
        return jax.vmap(losses.huber_loss, in_axes=(0, None, None))(q, target, hyper.huber_delta).sum(axis=0)

    return _in_sample.make(config, spec, value_loss, weight, huber if config.huber else None)

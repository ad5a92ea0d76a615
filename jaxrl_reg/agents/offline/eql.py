"""EQL, exponential Q-learning: implicit value regularisation towards the behaviour by the KL divergence.

In words. Value: minimise exp((q - V(s)) / alpha) + V(s) / alpha with q = min_j Q'_j(s, a), whose minimum is the soft
maximum of q over the data's actions at temperature ``alpha``; the exponent is cut at ``max_exponent`` and the batch
rescaled so that nothing overflows. Critics: both fit y = r + gamma d V(s'). Actor: maximise the log-density of the
data's actions, weighted by exp(inverse_temperature (q - V(s)) / alpha), cut at ``max_weight``. Q' is the slowly moving
copy of the critics. Order: value, actor, critics, targets; the update is written out in ``_in_sample``.

Metrics: those of ``sql``.
"""

from __future__ import annotations

import dataclasses

from jaxrl_reg import losses
from jaxrl_reg.agents.offline import _in_sample
from jaxrl_reg.agents.offline._in_sample import State
from jaxrl_reg.agents.offline.sql import KIND, PAPER, PROTOCOL
from jaxrl_reg.types import Agent, Array, Spec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]


@dataclasses.dataclass(frozen=True)
class Config(_in_sample.Config):
    max_exponent: float = setting(default=5.0, help="largest (q - v) / alpha in the value's loss")


@pytree
class Hyper(_in_sample.Hyper):
    alpha: float = setting(default=2.0, help="in units of value: larger stays closer to the data, smaller is greedier")
    inverse_temperature: float = setting(default=10.0, help="of the actor's weights, after the division by alpha")


def make(config: Config, spec: Spec) -> Agent:
    def value_loss(target_q: Array, v: Array, hyper: Hyper) -> Array:
        return losses.exponential_value_loss(target_q, v, hyper.alpha, config.max_exponent)

    def weight(advantage: Array, hyper: Hyper) -> Array:
        return losses.awr_weight(advantage, hyper.inverse_temperature / hyper.alpha, config.max_weight)

    return _in_sample.make(config, spec, value_loss, weight)

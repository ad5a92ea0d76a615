"""SQL, sparse Q-learning: implicit value regularisation that ignores the data's poor actions altogether.

In words. Value: minimise max(1 + (q - V(s)) / (2 alpha), 0)^2 + V(s) / alpha with q = min_j Q'_j(s, a), the dual of
a chi-square regulariser of strength ``alpha`` towards the behaviour: actions worth less than V - 2 alpha drop out.
Critics: both fit y = r + gamma d V(s'). Actor: maximise the log-density of the data's actions, weighted by
max(q - V(s), 0), cut at ``max_weight``. Q' is the slowly moving copy of the critics. Order: value, actor, critics,
targets; the update is written out in ``_in_sample``, which IQL, XQL and EQL share.

Metrics: ``value_loss`` (can be negative), ``critic_loss`` (sum over critics of the mean squared TD error),
``actor_loss``; ``v`` and ``q`` mean values on the batch; ``advantage`` mean of Q' - V; ``weight`` mean actor weight;
``active`` fraction of weights above 0 (at 0 the actor learns nothing: raise alpha).
"""

from __future__ import annotations

from jaxrl_reg import losses
from jaxrl_reg.agents.offline import _in_sample
from jaxrl_reg.agents.offline._in_sample import Config, State
from jaxrl_reg.types import Agent, Array, Paper, Protocol, Spec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Offline RL with No OOD Actions: In-Sample Learning via Implicit Value Regularization",
    authors="Xu, Jiang, Li, Yang, Wang, Chan, Zhan",
    year=2023,
    url="https://arxiv.org/abs/2303.15810",
    deviations=f"{_in_sample.DEVIATIONS} No dropout in the value, which for AntMaze is 0.5 in the released code, "
    "nor its learning rate of 2e-4 there.",
)
KIND = "offline"
PROTOCOL = Protocol(reward_scale="returns", sparse=(1.0, -1.0), batch_size=256, updates=1_000_000)


@pytree
class Hyper(_in_sample.Hyper):
    alpha: float = setting(default=1.0, help="in units of value: larger stays closer to the data, smaller is greedier")


def make(config: Config, spec: Spec) -> Agent:
    def value_loss(target_q: Array, v: Array, hyper: Hyper) -> Array:
        return losses.sparse_value_loss(target_q, v, hyper.alpha)

    def weight(advantage: Array, hyper: Hyper) -> Array:
        return losses.sparse_weight(advantage, config.max_weight)

    return _in_sample.make(config, spec, value_loss, weight)

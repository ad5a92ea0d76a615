"""RLOO: REINFORCE whose baseline for a completion is what the others of its group earned.

In words. The reward of a completion is the verified one minus ``kl_coef`` times its log-probability over that of the
reference; its advantage is that minus the mean of the others. One plain policy-gradient step on each batch.

Metrics: those of ``grpo`` without ``clipped``.
"""

from __future__ import annotations

from jaxrl_reg.agents.tokens import _group, _switches
from jaxrl_reg.agents.tokens._group import State
from jaxrl_reg.types import Agent, Paper, TokenSpec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs",
    authors="Ahmadian, Cremer, Galle, Fadaee, Kreutzer, Pietquin, Ustun, Hooker",
    year=2024,
    url="https://arxiv.org/abs/2402.14740",
    deviations="A small transformer trained from scratch in place of a language model; the sum over tokens is "
    "divided by a constant.",
)
KIND = _group.KIND
PROTOCOL = _group.PROTOCOL
Config = _switches.SizesOnPolicy


@pytree
class Hyper(_switches.Hyper):
    kl_coef: float = setting(default=0.05, help="weight of the divergence from the reference in the reward; trl's beta")


def make(config: Config, spec: TokenSpec) -> Agent:
    fixed = _switches.Config(
        **vars(config), advantage="leave_one_out", surrogate="reinforce", aggregation="constant", kl="reward"
    )
    return _group.make(fixed, spec)

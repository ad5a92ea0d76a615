"""REINFORCE with the mean reward of the batch as its baseline: the simplest of the family, to compare with.

In words. A completion's advantage is its reward minus the mean over all completions of the batch; one plain
policy-gradient step, summed over tokens and divided by a constant.

Metrics: those of ``grpo`` without ``clipped`` and ``kl``.
"""

from __future__ import annotations

from jaxrl_reg.agents.tokens import _group, _switches
from jaxrl_reg.agents.tokens._group import State
from jaxrl_reg.types import Agent, Paper, TokenSpec

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
    authors="Williams",
    year=1992,
    url="https://doi.org/10.1007/BF00992696",
    deviations="Batches, gradient clipping and Adam; a baseline that is the batch's own mean, which shrinks "
    "advantages by one over its size.",
)
KIND = _group.KIND
PROTOCOL = _group.PROTOCOL
Config = _switches.SizesOnPolicy
Hyper = _switches.Hyper


def make(config: Config, spec: TokenSpec) -> Agent:
    fixed = _switches.Config(
        **vars(config), advantage="batch", surrogate="reinforce", aggregation="constant", kl="none"
    )
    return _group.make(fixed, spec)

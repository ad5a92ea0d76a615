"""CISPO: the ratio weighs the policy gradient and is clipped as a weight, so that no token loses its gradient.

In words. As ``grpo``, but the loss is ``-sg(clip(ratio)) A log pi``, averaged over tokens: beyond the clips a token
goes on learning, with a bounded weight. There is no divergence from a reference.

Metrics: those of ``grpo`` without ``kl``.
"""

from __future__ import annotations

from jaxrl_reg.agents.tokens import _group, _switches
from jaxrl_reg.agents.tokens._group import State
from jaxrl_reg.types import Agent, Paper, TokenSpec

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention",
    authors="MiniMax",
    year=2025,
    url="https://arxiv.org/abs/2506.13585",
    deviations="A small transformer trained from scratch in place of a language model.",
)
KIND = _group.KIND
PROTOCOL = _group.PROTOCOL
Config = _switches.Sizes
Hyper = _switches.ClippedHyper


def make(config: Config, spec: TokenSpec) -> Agent:
    fixed = _switches.Config(**vars(config), advantage="group", surrogate="cispo", aggregation="token", kl="none")
    return _group.make(fixed, spec)

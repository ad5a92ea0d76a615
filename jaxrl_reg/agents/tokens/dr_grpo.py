"""Dr. GRPO: GRPO without what biases it: no division by the group's deviation, none by a completion's length.

In words. As ``grpo``, but a completion's advantage is its reward minus the group's mean, and the loss sums over tokens
and divides by a constant, so that neither easy and hard prompts nor long and short completions weigh more. There is no
divergence from a reference.

Metrics: those of ``grpo`` without ``kl``.
"""

from __future__ import annotations

from jaxrl_reg.agents.tokens import _group, _switches
from jaxrl_reg.agents.tokens._group import State
from jaxrl_reg.types import Agent, Paper, TokenSpec

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Understanding R1-Zero-Like Training: A Critical Perspective",
    authors="Liu, Chen, Li, Qi, Pang, Du, Lee, Lin",
    year=2025,
    url="https://arxiv.org/abs/2503.20783",
    deviations="A small transformer trained from scratch in place of a language model.",
)
KIND = _group.KIND
PROTOCOL = _group.PROTOCOL
Config = _switches.Sizes
Hyper = _switches.ClippedHyper


def make(config: Config, spec: TokenSpec) -> Agent:
    fixed = _switches.Config(**vars(config), advantage="centred", surrogate="ppo", aggregation="constant", kl="none")
    return _group.make(fixed, spec)

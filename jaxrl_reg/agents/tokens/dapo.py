"""DAPO: GRPO with a wider upper clip, a mean over tokens, and cut-off completions left out.

In words. As ``grpo``, but ratios may rise further than they may fall, so that unlikely tokens can gain; every token of
the batch counts the same; completions without an end carry no gradient; there is no divergence from a reference. Runs
sample ``OVERSAMPLE`` times the prompts and keep groups whose rewards differ (dynamic sampling). ``overlong_buffer``
takes a growing penalty off the rewards of completions near the longest.

Metrics: those of ``grpo`` without ``kl``.
"""

from __future__ import annotations

import dataclasses

from jaxrl_reg.agents.tokens import _group, _switches
from jaxrl_reg.agents.tokens._group import State
from jaxrl_reg.types import Agent, Paper, TokenSpec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
    authors="Yu, Zhang, Zhu, Yuan, Zuo, Yue, Dai, Fan, Liu, Liu, et al.",
    year=2025,
    url="https://arxiv.org/abs/2503.14476",
    deviations="Dynamic sampling draws a fixed multiple of the prompts instead of sampling until a batch is full; no "
    "penalty of length by default, since the tasks here end at their longest answer.",
)
KIND = _group.KIND
PROTOCOL = _group.PROTOCOL
OVERSAMPLE = 2


@dataclasses.dataclass(frozen=True)
class Config(_switches.Sizes):
    overlong_buffer: int = setting(
        default=0, help="last columns over which a growing penalty, up to 1, is taken off the reward; 0: none"
    )


@pytree
class Hyper(_switches.ClippedHyper):
    clip_high: float = setting(default=0.28, help="how far ratios may rise above 1; trl's epsilon_high")


def make(config: Config, spec: TokenSpec) -> Agent:
    fixed = _switches.Config(
        **vars(config), advantage="group", surrogate="ppo", aggregation="token", kl="none", mask_truncated=True
    )
    return _group.make(fixed, spec)

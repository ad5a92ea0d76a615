"""GSPO: GRPO with one ratio per completion, the geometric mean of its tokens' ratios.

In words. As ``grpo``, but what is clipped is the ratio of whole completions, so that all tokens of one are kept or left
out together; being means, ratios stay near 1 and clips are narrow. There is no divergence from a reference.

Metrics: those of ``grpo`` without ``kl``; ``clipped`` counts tokens.
"""

from __future__ import annotations

from jaxrl_reg.agents.tokens import _group, _switches
from jaxrl_reg.agents.tokens._group import State
from jaxrl_reg.types import Agent, Paper, TokenSpec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Group Sequence Policy Optimization",
    authors="Zheng, Liu, Li, Chen, Yu, Gao, Dang, Liu, Men, Yang, Zhou, Lin",
    year=2025,
    url="https://arxiv.org/abs/2507.18071",
    deviations="A small transformer trained from scratch in place of a language model; wider clips than a language "
    "model's, whose completions are a hundred times longer.",
)
KIND = _group.KIND
PROTOCOL = _group.PROTOCOL
Config = _switches.Sizes


@pytree
class Hyper(_switches.ClippedHyper):
    clip_low: float = setting(default=0.03, help="how far a completion's ratio may fall below 1")
    clip_high: float = setting(default=0.04, help="how far a completion's ratio may rise above 1")


def make(config: Config, spec: TokenSpec) -> Agent:
    fixed = _switches.Config(**vars(config), advantage="group", surrogate="gspo", aggregation="sequence", kl="none")
    return _group.make(fixed, spec)

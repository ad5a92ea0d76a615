"""GRPO: every prompt gets a group of completions, and the group's rewards are their own baseline.

In words. Of each prompt ``G`` completions are sampled and verified; a completion's advantage is its reward minus the
group's mean, over the group's deviation, the same for all of its tokens. Then ``epochs`` passes of PPO's clipped
surrogate, averaged over tokens as ``aggregation`` says, plus ``kl_coef`` times a divergence from the reference, which
is what the supervised warm start left, minus ``entropy_coef`` times the entropy. The switches make every relative of
it; those that have a name have a file: ``dapo``, ``dr_grpo``, ``gspo``, ``cispo``, ``rloo``, ``reinforce``.

Metrics, means over passes: ``actor_loss``; ``entropy`` (nats per token); ``approximate_kl`` from the policy that
sampled, and ``kl`` from the reference (nats per token); ``clipped`` share of ratios outside the clips.
"""

from __future__ import annotations

from jaxrl_reg.agents.tokens import _group, _switches
from jaxrl_reg.agents.tokens._group import State
from jaxrl_reg.agents.tokens._switches import Config
from jaxrl_reg.types import Agent, Paper, TokenSpec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
    authors="Shao, Wang, Zhu, Xu, Song, Bi, Zhang, Zhang, Li, Wu, Guo",
    year=2024,
    url="https://arxiv.org/abs/2402.03300",
    deviations="A small transformer trained from scratch in place of a language model; the divergence from the "
    "reference has weight 0 by default, as in trl; gradient clipping and Adam with b2 = 0.99.",
)
KIND = _group.KIND
PROTOCOL = _group.PROTOCOL


@pytree
class Hyper(_switches.ClippedHyper):
    kl_coef: float = setting(default=0.0, help="weight of the divergence from the reference; trl's beta")


def make(config: Config, spec: TokenSpec) -> Agent:
    return _group.make(config, spec)

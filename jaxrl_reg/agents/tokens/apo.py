"""APO: GRPO that lets hard questions go from the reference and punishes wrong completions for being long.

In words. As ``grpo``, with two weights. DADS: the divergence of a right completion from the reference counts
``1 - exp(-e s)``, where ``s`` is the pass rate of its group, that of all others 1: what is seldom answered right may
move further. STCR: the advantage of a wrong completion that is ``D`` tokens longer than the group's right ones is
multiplied by ``2 - exp(-sharpness D)``; the advantages of a group then no longer sum to 0. Right is a reward of 1.

What DADS is worth shows against ``difficulty=False`` with ``kl_coef`` times ``kl_weight``.

Metrics: those of ``grpo``; ``kl_weight``, the divergence as DADS weighs it over the plain one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents.tokens import _group, _switches, _terms
from jaxrl_reg.agents.tokens._group import State
from jaxrl_reg.types import Agent, Array, Completions, Metrics, Paper, PyTree, TokenSpec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="APO: Enhancing Reasoning Ability of MLLMs via Asymmetric Policy Optimization",
    authors="Hong, Guo, Xia, Wang, Zhang, Jin, Zhao",
    year=2025,
    url="https://arxiv.org/abs/2506.21655",
    deviations="A small transformer trained from scratch in place of a multimodal language model. STCR's base of "
    "1.00001 per token, which does nothing to completions of a hundred tokens, is a setting, sharpness, and far "
    "larger; right is a reward of 1, where the released code cuts off decimals.",
)
KIND = _group.KIND
PROTOCOL = _group.PROTOCOL
RIGHT = 1.0 - 1e-6


@dataclasses.dataclass(frozen=True)
class Config(_switches.Sizes):
    difficulty: bool = setting(
        default=True, help="weigh divergences by DADS; without, all the same: with kl_coef times kl_weight its control"
    )


@pytree
class Hyper(_switches.ClippedHyper):
    kl_coef: float = setting(
        default=1e-3, help="weight of the divergence from the reference; trl's beta. Small models feel 0.3 and more"
    )
    sharpness: float = setting(
        default=0.5, help="of STCR, per token: how soon the advantage of a long wrong completion doubles; 0: never"
    )


def weights(batch: Completions, sharpness: Array | float) -> tuple[Array, Array]:
    """STCR's factors of the advantages and DADS's weights of the divergences, ``[B, G]`` both."""
    right = (batch.reward >= RIGHT).astype(batch.reward.dtype)
    factor = losses.overthinking_weight(batch.mask.sum(-1), right, sharpness)
    return factor, losses.difficulty_weight(right)


def objective(config: _switches.Config, longest: int, difficulty: bool = True) -> _group.Objective:
    """GRPO's loss with both weights, or without that of the divergences.

    A completion's divergence is the mean over its tokens, as the weights are of whole completions; the surrogate is
    averaged over tokens.
    """
    plain = dataclasses.replace(config, kl="none")

    def loss(known: _group.Known, log_prob: Array, logits: Array, hyper: Any, kept: PyTree) -> tuple[Array, Metrics]:
        factor, weight = weights(known.batch, hyper.sharpness)
        weight = weight if difficulty else jnp.ones_like(weight)
        scored = _terms.Scored(log_prob, logits, known.old, known.advantage * factor, known.mask)
        value, metrics = _terms.total(plain, scored, known.reference, hyper, longest)
        each = losses.sampled_kl(log_prob, known.reference)
        weighed = losses.sequence_mean(weight[..., None] * each, known.mask)
        metrics["kl"] = losses.masked_mean(each, known.mask)
        metrics["kl_weight"] = (weighed + 1e-8) / (losses.sequence_mean(each, known.mask) + 1e-8)
        return value + hyper.kl_coef * weighed, metrics

    return _group.Objective(loss)


def make(config: Config, spec: TokenSpec) -> Agent:
    sizes = {field.name: getattr(config, field.name) for field in dataclasses.fields(_switches.Sizes)}
    fixed = _switches.Config(**sizes, advantage="group", surrogate="ppo", aggregation="token", kl="k3")
    return _group.make(fixed, spec, objective(fixed, spec.completion, config.difficulty))

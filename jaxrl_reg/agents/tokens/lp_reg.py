"""Lp-Reg: GRPO that keeps unlikely but valid tokens alive where wrong completions would stamp them out.

In words. As ``grpo`` with hardly any clips and a mean over tokens, but of the tokens with a negative advantage the
``lp_share`` that is least likely is pulled, with weight ``lp_coef``, towards a proxy: the policy that sampled, without
tokens below ``min_p`` of the likeliest one's probability, renormalised. Those that the proxy has not, noise, are pushed
down as ever.

The pull acts on negative advantages alone, and fades as the tail does: it does nothing against what likely tokens gain
by being right. With the published weight of 1 a few hundred steps show no difference; far above 30 rare tokens take
over.

Metrics: those of ``grpo`` without ``kl``; ``protected``, the share of tokens that are pulled.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents.tokens import _group, _switches, _terms
from jaxrl_reg.agents.tokens._group import State
from jaxrl_reg.losses.verified import lowest_share, min_p_log_proxy
from jaxrl_reg.types import Agent, Array, Metrics, Paper, PyTree, TokenSpec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Low-probability Tokens Sustain Exploration in Reinforcement Learning with Verifiable Reward",
    authors="Huang, Xu, Wang, Yi, Gong, Li, Xiong, Li, Jiang, Zhou",
    year=2025,
    url="https://arxiv.org/abs/2510.03222",
    deviations="A small transformer trained from scratch in place of a language model. The least likely tokens are "
    "found by rank over all that a step learns from, where the released code has a threshold, which takes every tied "
    "token, over parts of it; lp_coef 30 instead of 1 and a share of 0.2 instead of 0.01, for steps that are few.",
)
KIND = _group.KIND
PROTOCOL = _group.PROTOCOL
Config = _switches.SizesOnPolicy


@pytree
class Hyper(_switches.ClippedHyper):
    clip_low: float = setting(default=1.0, help="how far ratios may fall below 1; trl's epsilon")
    clip_high: float = setting(default=9.0, help="how far ratios may rise above 1; trl's epsilon_high")
    lp_coef: float = setting(default=30.0, help="weight of the pull on tokens with a negative advantage")
    lp_share: float = setting(default=0.2, range=(0.0, 1.0), help="share of them, the least likely, that is pulled")
    min_p: float = setting(
        default=0.02, range=(0.0, 1.0), help="share of the likeliest token's probability below which a token is noise"
    )


def objective(config: _switches.Config, longest: int) -> _group.Objective:
    """The family's loss with another surrogate; nothing is kept."""

    def before(known: _group.Known, logits: Array, hyper: Any, kept: PyTree) -> tuple[Array, PyTree]:
        proxy = min_p_log_proxy(logits, hyper.min_p)
        return jnp.take_along_axis(proxy, known.batch.completion[..., None], axis=-1)[..., 0], kept

    def loss(known: _group.Known, log_prob: Array, logits: Array, hyper: Any, kept: PyTree) -> tuple[Array, Metrics]:
        each = jnp.broadcast_to(known.advantage[..., None], known.mask.shape)
        still = jax.lax.stop_gradient(log_prob)
        selected = lowest_share(still, (known.mask > 0) & (each < 0), hyper.lp_share)
        surrogate = losses.lp_reg_loss(
            log_prob,
            known.old,
            known.more,
            each,
            selected.astype(jnp.float32),
            hyper.clip_low,
            hyper.clip_high,
            hyper.lp_coef,
        )
        scored = _terms.Scored(log_prob, logits, known.old, known.advantage, known.mask)
        value, metrics = _terms.total(config, scored, known.reference, hyper, longest, surrogate)
        pulled = (selected & (still < known.more)).astype(jnp.float32)
        return value, {**metrics, "protected": losses.masked_mean(pulled, known.mask)}

    return _group.Objective(loss, before=before)


def make(config: Config, spec: TokenSpec) -> Agent:
    fixed = _switches.Config(**vars(config), advantage="group", surrogate="ppo", aggregation="token", kl="none")
    return _group.make(fixed, spec, objective(fixed, spec.completion))

"""SIREN: GRPO whose entropy, where the policy hesitates most, is held at what it was in the beginning.

In words. As ``dr_grpo``, plus ``anchor_coef`` times ``(H - H0)^2``. ``H`` looks at forks only: at each token the
entropy of the nucleus, the likeliest tokens that together hold ``nucleus``; of each completion the tokens whose entropy
is above its ``quantile``; the mean over those, then over completions. ``H0`` is the same of the first batch after the
warm start and never changes. A bonus on the entropy (``entropy_coef``) gains from noise wherever it is; here nothing is
gained past ``H0``, and where 49 answers are right a weight of 30 does no more harm than 1 (docs/tokens.md).

The anchor is as good as the start: that of a policy which guesses holds learning back where one answer alone is right.

Metrics: those of ``grpo`` without ``kl``; ``peak_entropy``, which is ``H``, and ``anchor``, in nats.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents.tokens import _group, _switches, _terms
from jaxrl_reg.agents.tokens._group import State
from jaxrl_reg.losses.entropy import nucleus_entropy, peak_entropy
from jaxrl_reg.types import Agent, Array, Metrics, Paper, PyTree, TokenSpec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Rethinking Entropy Regularization in Large Reasoning Models",
    authors="Jiang, Li, Chen, Liu, Cheng, Shao",
    year=2025,
    url="https://arxiv.org/abs/2509.25133",
    deviations="A small transformer trained from scratch in place of a language model. The nucleus keeps the token "
    "that crosses its mass, which the released code leaves out, and padding is in no quantile; weight 1 instead of "
    "0.005; no weight decay.",
)
KIND = _group.KIND
PROTOCOL = _group.PROTOCOL
Config = _switches.Sizes
UNSET = -1.0  # an entropy is never below 0


@pytree
class Hyper(_switches.ClippedHyper):
    clip_low: float = setting(default=0.28, help="how far ratios may fall below 1; trl's epsilon")
    clip_high: float = setting(default=0.28, help="how far ratios may rise above 1; trl's epsilon_high")
    anchor_coef: float = setting(default=1.0, help="weight of the squared distance of the entropy from its start")
    nucleus: float = setting(default=0.8, range=(0.1, 1.0), help="mass of the tokens whose entropy counts")
    quantile: float = setting(
        default=0.8, range=(0.0, 1.0), help="share of a completion's tokens, the least uncertain, that do not count"
    )


def objective(config: _switches.Config, longest: int) -> _group.Objective:
    """The family's loss and the anchored entropy; the anchor is kept."""

    def before(known: _group.Known, logits: Array, hyper: Any, anchor: Array) -> tuple[PyTree, Array]:
        entropy = peak_entropy(nucleus_entropy(logits, hyper.nucleus), known.mask, hyper.quantile)
        return (), jnp.where(anchor < 0.0, entropy, anchor)

    def loss(known: _group.Known, log_prob: Array, logits: Array, hyper: Any, anchor: Array) -> tuple[Array, Metrics]:
        scored = _terms.Scored(log_prob, logits, known.old, known.advantage, known.mask)
        value, metrics = _terms.total(config, scored, known.reference, hyper, longest)
        entropy = nucleus_entropy(logits, hyper.nucleus)
        value = value + hyper.anchor_coef * losses.anchored_entropy_loss(entropy, known.mask, anchor, hyper.quantile)
        return value, {**metrics, "peak_entropy": peak_entropy(entropy, known.mask, hyper.quantile), "anchor": anchor}

    return _group.Objective(loss, lambda hyper: jnp.float32(UNSET), before)


def make(config: Config, spec: TokenSpec) -> Agent:
    fixed = _switches.Config(**vars(config), advantage="centred", surrogate="ppo", aggregation="constant", kl="none")
    return _group.make(fixed, spec, objective(fixed, spec.completion))

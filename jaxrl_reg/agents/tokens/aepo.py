"""AEPO: GRPO whose entropy is steered to a target by the temperature at which it samples what it clones.

In words. The last ``extra`` completions of every group are drawn at a regulating temperature: ``temperature_high``
while the entropy of the others is below ``target_entropy``, else ``temperature_low``. The others are learned from as in
``grpo``; of the extra ones those that are right (a reward of 1) are cloned with weight ``alpha``, at the ordinary
temperature. The likeliest fit to right samples of a flatter policy is a flatter policy, still on right answers: so the
entropy is held, where several answers are right. Where one alone is, samples of every temperature are the same.

The entropy of single batches swings about the target by a tenth of a nat; its mean over fifty of them ended 0.04 to
0.13 nats from it on a task with 49 right answers (docs/tokens.md).

Metrics: those of ``grpo`` without ``kl``, of the ordinary completions; ``temperature``, at which the extra ones of the
next batch are drawn; ``cloned``, the share of those of this one that is right. ``train/return`` and its like count all
completions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents.tokens import _group, _switches, _terms
from jaxrl_reg.agents.tokens._group import State
from jaxrl_reg.errors import UserError
from jaxrl_reg.losses.entropy import categorical_entropy
from jaxrl_reg.policies import tokens
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, PyTree, TokenSpec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Arbitrary Entropy Policy Optimization Breaks the Exploration Bottleneck of Reinforcement Learning",
    authors="Wang, Li, Bai, Zhang, Cui, Zhao, Wang",
    year=2025,
    url="https://arxiv.org/abs/2510.08141",
    deviations="A small transformer trained from scratch in place of a language model. The term has a weight, alpha, "
    "as in the paper, where the released code puts its samples in the place of others; right ones of every group are "
    "cloned, not only those with an advantage; the entropy that steers is exact and of ordinary samples alone; "
    "temperatures are further from 1, since the vocabulary is small.",
)
KIND = _group.KIND
PROTOCOL = _group.PROTOCOL
RIGHT = 1.0 - 1e-6


@dataclasses.dataclass(frozen=True)
class Config(_switches.Sizes):
    extra: int = setting(default=2, help="completions of each group, its last, at the regulating temperature")


@pytree
class Hyper(_switches.ClippedHyper):
    alpha: float = setting(default=1.0, help="weight of cloning the right ones of the extra completions")
    target_entropy: float = setting(default=0.4, help="of a token, in nats, on average")
    temperature_high: float = setting(default=2.0, range=(1.0, 10.0), help="of the extra ones below the target")
    temperature_low: float = setting(default=0.5, range=(0.05, 1.0), help="of the extra ones above the target")


def objective(config: _switches.Config, longest: int, extra: int) -> _group.Objective:
    """The family's loss on the first ``G - extra`` completions of each group and cloning of the right ones of the rest;
    kept is the temperature at which the rest of the next batch is drawn."""

    def before(known: _group.Known, logits: Array, hyper: Any, kept: Array) -> tuple[PyTree, Array]:
        entropy = losses.masked_mean(categorical_entropy(logits[:, :-extra]), known.mask[:, :-extra])
        low, high = hyper.temperature_low, hyper.temperature_high
        return (), losses.regulating_temperature(entropy, hyper.target_entropy, low, high)

    def loss(known: _group.Known, log_prob: Array, logits: Array, hyper: Any, kept: Array) -> tuple[Array, Metrics]:
        ours = jax.tree.map(lambda leaf: leaf[:, :-extra], (log_prob, logits, known.old))
        advantage = _terms.advantages(config, known.batch.reward[:, :-extra])
        scored = _terms.Scored(*ours, advantage, known.mask[:, :-extra])
        value, metrics = _terms.total(config, scored, known.reference[:, :-extra], hyper, longest)
        right = (known.batch.reward[:, -extra:] >= RIGHT).astype(jnp.float32)
        each = losses.one_sided_reinforce_loss(log_prob[:, -extra:], right)
        value = value + hyper.alpha * losses.masked_mean(each, known.mask[:, -extra:] * right[..., None])
        return value, {**metrics, "temperature": kept, "cloned": right.mean()}

    return _group.Objective(loss, lambda hyper: jnp.asarray(hyper.temperature_low, jnp.float32), before)


def make(config: Config, spec: TokenSpec) -> Agent:
    """Raises ``UserError`` for fewer than one extra completion, and its update and ``act`` for a group too small."""
    extra = config.extra
    if extra < 1:
        raise UserError(f"extra={extra} must be at least 1; without extra completions aepo is grpo")
    sizes = {name: value for name, value in vars(config).items() if name != "extra"}
    fixed = _switches.Config(**sizes, advantage="group", surrogate="ppo", aggregation="token", kl="none", dual_clip=3.0)
    agent = _group.make(fixed, spec, objective(fixed, spec.completion, extra))
    policy = tokens.make(spec, config.hidden, config.heads)

    def act(state: State, prompt: Array, hyper: Any, key: Key, explore: bool) -> Array:
        if not explore or prompt.ndim < 3:  # not groups: prompts of an evaluation
            return agent.act(state, prompt, hyper, key, explore)
        group = prompt.shape[-2]
        if group < extra + 2:
            raise UserError(f"extra={extra} of a group of {group} must leave 2 or more; take --group {extra + 2}")
        temperature = jnp.where(jnp.arange(group) < group - extra, hyper.temperature, state.kept)
        return policy.sample(state.model.params, prompt, key, temperature=temperature[:, None])[0]

    return agent._replace(act=act)

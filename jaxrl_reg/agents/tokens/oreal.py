"""OREAL: right completions are cloned and wrong ones pushed down, at tokens that a reward model learns to tell.

In words. Of groups that are neither all right nor all wrong, right completions are cloned with their advantage over the
others as a weight, and wrong ones get ``negative`` times a policy gradient. The reward model, the policy's network with
one output per token, learns from outcomes whether a completion is right; how far the probability of that is above
``threshold`` at a token weighs the tokens of right completions, how far the rest is above it those of wrong ones. Each
side of a group has the same total weight, so that the model does not learn to say "wrong" to everything. The policy is
held to the reference by k3 and stands still for the first ``freeze`` updates. One step per batch. Right is a reward
above 0.

With ``prefixes``, the default, the reward model judges every prefix; without, whole completions alone as released,
which leaves free how a short completion's score is spread over its tokens.

Metrics: ``actor_loss``; ``score_loss``, of the reward model, in nats; ``weight_right`` and ``weight_wrong``, means over
the tokens that they weigh: near 0 the reward model has nothing to say; ``kl`` from the reference and ``entropy``, nats
per token.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.tokens import _group, _model, _switches
from jaxrl_reg.agents.tokens._group import State
from jaxrl_reg.networks.tokens import token_scorer
from jaxrl_reg.policies import tokens
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Agent, Array, Completions, Key, Metrics, Paper, PyTree, TokenSpec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Exploring the Limit of Outcome Reward for Learning Mathematical Reasoning",
    authors="Lyu, Gao, Gu, Zhang, Gao, Liu, Wang, Li, Zhao, Huang, et al.",
    year=2025,
    url="https://arxiv.org/abs/2502.06781",
    deviations="A small transformer trained from scratch in place of a language model. The reward model judges every "
    "prefix and has read the token that it scores, where the released one judges the whole and has not; both sides of "
    "a group are weighted alike instead of drawing one completion of each; sampling is without top-p, and prompts are "
    "not repeated by difficulty.",
)
KIND = _group.KIND
PROTOCOL = _group.PROTOCOL


@dataclasses.dataclass(frozen=True)
class Config(_switches.Network):
    reward_model: bool = setting(
        default=True, help="weigh tokens by a reward model; without one every token of every completion counts the same"
    )
    prefixes: bool = setting(default=True, help="the reward model judges every prefix, not whole completions alone")


@pytree
class Hyper(_switches.Hyper):
    kl_coef: float = setting(default=0.01, help="weight of the divergence from the reference; trl's beta")
    negative: float = setting(default=0.5, help="weight of pushing wrong completions down")
    threshold: float = setting(
        default=0.5, help="probability above which a token of a right completion has weight", range=(0.0, 0.9)
    )
    score_learning_rate: float = setting(default=2e-3, help="Adam step size of the reward model")
    freeze: float = setting(
        default=10.0, help="updates in which only the reward model learns, where there is one", small=2.0
    )


class Judged(NamedTuple):
    """A batch as its outcomes, and the reward model, see it; all DETACHED."""

    right: Array  # [B, G], 1 for right, 0 for wrong
    share: Array  # [B, G], weight of each completion
    weight_right: Array  # [B, G, T]
    weight_wrong: Array  # [B, G, T]


def shares(right: Array) -> Array:
    """``[B, G]``: one over the right ones of a group for right, over its wrong ones for wrong completions; 0 in groups
    that are all right or all wrong. That is what drawing one of each would give on average."""
    count, wrong = right.sum(-1, keepdims=True), (1.0 - right).sum(-1, keepdims=True)
    each = jnp.where(right > 0, 1.0 / jnp.maximum(count, 1.0), 1.0 / jnp.maximum(wrong, 1.0))
    return jnp.where((count > 0) & (wrong > 0), each, 0.0)


def sides(judged: Judged, mask: Array) -> tuple[Array, Array]:
    """Masks ``[B, G, T]`` of the tokens of right and of wrong completions, each with its completion's share."""
    each = mask * judged.share[..., None]
    return each * judged.right[..., None], each * (1.0 - judged.right[..., None])


def actor_loss(
    judged: Judged, batch: Completions, log_prob: Array, reference: Array, hyper: Any
) -> tuple[Array, Array]:
    """OREAL's loss, means over tokens of right and of wrong completions apart, and the mean divergence."""
    old, advantage = jax.lax.stop_gradient(log_prob), losses.leave_one_out_advantage(batch.reward)
    weights = judged.weight_right, judged.weight_wrong
    each = losses.oreal_loss(log_prob, old, reference, advantage, judged.right, *weights, hyper.negative, 0.0)
    right, wrong = sides(judged, batch.mask)
    value = losses.masked_mean(each, right) + losses.masked_mean(each, wrong)
    return value, losses.masked_mean(losses.sampled_kl(log_prob, reference), right + wrong)


def make(config: Config, spec: TokenSpec) -> Agent:
    fixed = _switches.Config(config.hidden, config.heads)
    base, policy = _group.make(fixed, spec), tokens.make(spec, config.hidden, config.heads)
    scorer = token_scorer(spec, config.hidden, config.heads)

    def score_optimiser(hyper: Hyper) -> Any:
        return adam(hyper.score_learning_rate, b2=0.99, eps=1e-5)

    def with_scorer(state: State, hyper: Hyper) -> State:
        """The reward model starts as the policy with another head."""
        if not config.reward_model:
            return state
        return state._replace(kept=_common.trainable(scorer.of(state.model.params), score_optimiser(hyper)))

    def init(key: Key, hyper: Hyper) -> State:
        return with_scorer(base.init(key, hyper), hyper)

    def imitate(state: State, batch: Completions, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        assert base.imitate is not None
        state, metrics = base.imitate(state, batch, hyper, key, step)
        return with_scorer(state, hyper), metrics

    def judge(kept: PyTree, batch: Completions, hyper: Hyper) -> tuple[Judged, PyTree, Metrics]:
        """What the reward model says of a batch, and the model after a step on it."""
        right = (batch.reward > 0).astype(jnp.float32)
        if not config.reward_model:
            return Judged(right, jnp.ones_like(right), batch.mask, batch.mask), kept, {}
        share, prompt = shares(right), _model.each(batch.prompt, batch.completion)

        def loss(params: PyTree) -> tuple[Array, tuple[Array, Array]]:
            score = scorer.apply(params, prompt, batch.completion)
            each = losses.outcome_score_loss(score, batch.mask, right, config.prefixes)
            value = (share * each).sum() / jnp.maximum(share.sum(), 1.0)
            return value, (value, score)

        kept, (value, score) = _common.descend(loss, kept, score_optimiser(hyper))
        judged = Judged(right, share, *losses.score_weights(score, batch.mask, hyper.threshold))
        of_right, of_wrong = sides(judged, batch.mask)
        metrics = {
            "score_loss": value,
            "weight_right": losses.masked_mean(judged.weight_right, of_right),
            "weight_wrong": losses.masked_mean(judged.weight_wrong, of_wrong),
        }
        return judged, kept, metrics

    def update(state: State, batch: Completions, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        judged, kept, metrics = judge(state.kept, batch, hyper)
        rows = batch.prompt, batch.completion, hyper.temperature
        reference, _ = _model.score(policy, state.reference, *rows)

        def loss(params: PyTree) -> tuple[Array, Metrics]:
            log_prob, logits = _model.score(policy, params, *rows)
            value, kl = actor_loss(judged, batch, log_prob, reference, hyper)
            entropy = losses.masked_mean(losses.categorical_entropy(logits), batch.mask)
            total = value + hyper.kl_coef * kl - hyper.entropy_coef * entropy
            return total, {"actor_loss": value, "kl": kl, "entropy": entropy}

        model, more = _common.descend(loss, state.model, _model.optimiser(hyper))
        if config.reward_model:
            still = step < hyper.freeze
            model = jax.tree.map(lambda old, new: jnp.where(still, old, new), state.model, model)
        return State(model, state.reference, kept), metrics | more

    return Agent(init, update, base.act, kind=KIND, imitate=imitate)

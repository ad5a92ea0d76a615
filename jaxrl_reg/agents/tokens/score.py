"""SCoRe: every prompt is answered twice, and what is learnt is to mend the first answer.

In words. The second prompt shows the first answer (``TokenTask.follow``). In the first ``stage_one`` updates only the
second answer is rewarded, and the first is held to the reference by ``kl_first`` times the divergence, so that the two
come apart instead of both improving as one. After that the first answer earns its reward ``r1``, and the second
``r2 + bonus (r2 - r1)``: mending pays, spoiling costs. No credit flows from the second to the tokens of the first,
which would be paid for failing. Baselines are what the others of the group earned in the same turn; one plain
policy-gradient step on both turns at once, summed over tokens. The divergence from the reference is exact, over the
vocabulary.

Metrics: ``actor_loss``, of both turns; ``kl`` and ``second/kl`` from the reference (nats per token), ``entropy`` and
``second/entropy`` (nats per token); ``stage``, 1 or 2.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.tokens import _group, _model, _switches
from jaxrl_reg.agents.tokens._group import State
from jaxrl_reg.errors import UserError
from jaxrl_reg.policies import tokens
from jaxrl_reg.types import Agent, Array, Completions, Key, Metrics, Paper, PyTree, TokenSpec, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Training Language Models to Self-Correct via Reinforcement Learning",
    authors="Kumar, Zhuang, Agarwal, Su, Co-Reyes, Singh, Baumli, Iqbal, Bishop, Roelofs, et al.",
    year=2024,
    url="https://arxiv.org/abs/2409.12917",
    deviations="A small transformer trained from scratch in place of a language model; it shares all of its weights "
    "between the turns, so that the first answer has to be held ten times harder in stage one than published. No code "
    "was released: leave-one-out baselines, one Adam step per batch and gradient clipping are ours.",
)
KIND = _group.KIND
PROTOCOL = _group.PROTOCOL
TURNS = 2


@dataclasses.dataclass(frozen=True)
class Config(_switches.Network):
    """Nothing but sizes: each batch is used once."""


@pytree
class Hyper(_switches.Hyper):
    stage_one: float = setting(
        default=120.0,
        help="updates in which only second answers are rewarded and first ones stay as they were",
        small=2.0,
    )
    bonus: float = setting(default=10.0, help="reward of a second answer that mends, and price of one that spoils")
    kl_coef: float = setting(default=0.01, help="weight of the divergence from the reference, of what kl_first leaves")
    kl_first: float = setting(default=1.0, help="weight of the first answer's divergence in stage one")


class Turn(NamedTuple):
    """What a loss needs of one of the two answers to each prompt; all but the batch DETACHED."""

    batch: Completions
    reference: Array  # [B, G, T, V], logits
    advantage: Array  # [B, G]
    kl_coef: Array  # scalar


def rewarded(first: Array, second: Array, early: Array, bonus: Array | float) -> tuple[Array, Array]:
    """Advantages ``[B, G]`` of both answers, from the rewards ``[B, G]`` of both; ``early``: in stage one."""
    credit = losses.leave_one_out_advantage(first)
    shaped = losses.progress_reward(first, second, jnp.where(early, 0.0, bonus))
    return jnp.where(early, 0.0, credit), losses.leave_one_out_advantage(shaped)


def turn_loss(turn: Turn, log_prob: Array, logits: Array) -> tuple[Array, Array, Array, Array]:
    """Policy gradient and weighted divergence, sums over tokens; divergence and entropy per token."""
    mask = turn.batch.mask
    each = losses.policy_gradient_loss(log_prob, jnp.broadcast_to(turn.advantage[..., None], mask.shape))
    divergence = losses.categorical_kl(logits, turn.reference)
    gradient = losses.constant_mean(each, mask, 1.0)
    held = turn.kl_coef * losses.constant_mean(divergence, mask, 1.0)
    entropy = losses.masked_mean(losses.categorical_entropy(logits), mask)
    return gradient, held, losses.masked_mean(divergence, mask), entropy


def make(config: Config, spec: TokenSpec) -> Agent:
    columns = spec.second.prompt + spec.second.completion
    policies = [tokens.make(one, config.hidden, config.heads, columns) for one in (spec, spec.second)]

    def init(key: Key, hyper: Hyper) -> State:
        params = policies[0].init(key)
        return State(_common.trainable(params, _model.optimiser(hyper)), _common.copy(params))

    def score(params: PyTree, turn: int, batch: Completions, temperature: Array) -> tuple[Array, Array]:
        return _model.score(policies[turn], params, batch.prompt, batch.completion, temperature)

    def update(state: State, batch: Completions, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        batches, early = (batch, second_of(batch)), step < hyper.stage_one
        advantages = rewarded(batch.reward, batches[1].reward, early, hyper.bonus)
        kl_coefs = jnp.where(early, hyper.kl_first, hyper.kl_coef), jnp.asarray(hyper.kl_coef)
        turns = [
            Turn(batches[t], score(state.reference, t, batches[t], hyper.temperature)[1], advantages[t], kl_coefs[t])
            for t in range(TURNS)
        ]

        def loss(params: PyTree) -> tuple[Array, Metrics]:
            scored = (score(params, t, turns[t].batch, hyper.temperature) for t in range(TURNS))
            found = [turn_loss(turn, *one) for turn, one in zip(turns, scored, strict=True)]
            gradient, held, kl, entropy = zip(*found, strict=True)
            value = sum(gradient) + sum(held) - hyper.entropy_coef * sum(entropy)
            metrics = {"actor_loss": sum(gradient), "kl": kl[0], "second/kl": kl[1]}
            return value, {**metrics, "entropy": entropy[0], "second/entropy": entropy[1]}

        model, metrics = _common.descend(loss, state.model, _model.optimiser(hyper))
        metrics["stage"] = jnp.where(early, 1.0, 2.0)
        return State(model, state.reference), metrics

    def imitate(state: State, batch: Completions, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        batches = batch, second_of(batch)

        def loss(params: PyTree) -> tuple[Array, Metrics]:
            value = sum(
                -losses.masked_mean(score(params, t, batches[t], jnp.float32(1.0))[0], batches[t].mask)
                for t in range(TURNS)
            )
            return value, {"imitation_loss": value}

        model, metrics = _common.descend(loss, state.model, _model.optimiser(hyper))
        return State(model, _common.copy(model.params)), metrics

    def act(state: State, prompt: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        widths, got = [one.prompt for one in (spec, spec.second)], prompt.shape[-1]
        if got not in widths:
            raise UserError(f"score answers prompts of {widths[0]} ids, and again those of {widths[1]}; got {got}")
        policy = policies[widths.index(got)]
        if not explore:
            return policy.mode(state.model.params, prompt)
        return policy.sample(state.model.params, prompt, key, temperature=hyper.temperature)[0]

    return Agent(init, update, act, kind=KIND, imitate=imitate, turns=TURNS)


def second_of(batch: Completions) -> Any:
    """The second turn of a batch. Raises ``UserError`` if there is none."""
    if "second" not in batch.extras:
        raise UserError("score learns from two answers to each prompt: batch.extras['second'], which loops.rlvr gives")
    return batch.extras["second"]

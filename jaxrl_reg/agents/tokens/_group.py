"""What all token agents share: a policy, its reference, groups of completions, and the losses that switches choose."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.tokens._switches import ADVANTAGES, AGGREGATIONS, PENALTIES, SURROGATES, Config
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.losses.entropy import categorical_entropy
from jaxrl_reg.policies import tokens
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Agent, Array, Completions, Key, Metrics, Protocol, PyTree, TokenSpec

KIND = "tokens"
PROTOCOL = Protocol(note="Learns from completions that a task verifies.")


class State(NamedTuple):
    """The policy, and the parameters that imitation left, from which divergences are measured."""

    model: _common.Trainable
    reference: PyTree


class Scored(NamedTuple):
    """What a loss sees of a batch ``[B, G]`` of completions; the old policy is the one that sampled."""

    log_prob: Array  # [B, G, T], differentiated
    logits: Array  # [B, G, T, V], differentiated, at the temperature
    old: Array  # [B, G, T]
    advantage: Array  # [B, G]
    mask: Array  # [B, G, T]


def make(config: Config, spec: TokenSpec) -> Agent:
    """A token agent with these switches; ``config`` may be any dataclass with the fields of ``Config``.

    Raises:
      UserError: for an unknown word of a switch, with the nearest one.
    """
    for name, known in (("advantage", ADVANTAGES), ("surrogate", SURROGATES), ("aggregation", AGGREGATIONS)):
        if getattr(config, name) not in known:
            raise unknown(name, getattr(config, name), known)
    if config.kl not in PENALTIES:
        raise unknown("kl", config.kl, PENALTIES)
    policy = tokens.make(spec, config.hidden, config.heads)

    def optimiser(hyper: Any) -> optax.GradientTransformation:
        # A second moment over the last 100 updates: these runs are too short for one over 1,000. Advantages of a group
        # sum to 0, and so do many gradients but for rounding, which a small eps would make into whole steps.
        return optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), adam(hyper.learning_rate, b2=0.99, eps=1e-5))

    def init(key: Key, hyper: Any) -> State:
        params = policy.init(key)
        return State(_common.trainable(params, optimiser(hyper)), _common.copy(params))

    def score(params: PyTree, prompt: Array, completion: Array, temperature: Array) -> tuple[Array, Array]:
        shape = (*completion.shape[:-1], prompt.shape[-1])
        logits = policy.apply(params, jnp.broadcast_to(prompt[:, None], shape), completion) / temperature
        return policy.log_prob_of(logits, completion), logits

    def update(state: State, batch: Completions, hyper: Any, key: Key, step: Array) -> tuple[State, Metrics]:
        rows = batch.prompt.shape[0]
        if rows % config.minibatches:
            raise UserError(f"minibatches={config.minibatches} must divide the {rows} prompts of a batch")
        reference = jnp.zeros(batch.mask.shape)
        if config.kl != "none":
            reference = score(state.reference, batch.prompt, batch.completion, hyper.temperature)[0]
        once = config.epochs == config.minibatches == 1  # then the policy that is trained is the one that sampled
        old = jnp.zeros(batch.mask.shape)
        if not once or config.kl == "reward":
            old = score(state.model.params, batch.prompt, batch.completion, hyper.temperature)[0]
        reward = shaped(config, batch, spec) - kl_in_reward(config, old, reference, hyper)
        mask = batch.mask * (1.0 - batch.truncated[..., None]) if config.mask_truncated else batch.mask
        columns = (batch.prompt, batch.completion, mask, old, reference, advantages(config, reward))

        def loss(params: PyTree, part: tuple[Array, ...]) -> tuple[Array, Metrics]:
            prompt, completion, mask, old, reference, advantage = part
            log_prob, logits = score(params, prompt, completion, hyper.temperature)
            scored = Scored(log_prob, logits, jax.lax.stop_gradient(log_prob) if once else old, advantage, mask)
            return total(config, scored, reference, hyper, spec.completion)

        def minibatch(model: _common.Trainable, part: tuple[Array, ...]) -> tuple[_common.Trainable, Metrics]:
            return _common.descend(lambda params: loss(params, part), model, optimiser(hyper))

        def epoch(model: _common.Trainable, key: Key) -> tuple[_common.Trainable, Metrics]:
            if config.minibatches == 1:
                return minibatch(model, columns)
            order = jnp.argsort(jax.random.bits(key, (rows,))).reshape(config.minibatches, -1)  # groups stay whole
            model, found = jax.lax.scan(lambda m, at: minibatch(m, tuple(x[at] for x in columns)), model, order)
            return model, jax.tree.map(jnp.mean, found)

        model, metrics = jax.lax.scan(epoch, state.model, jax.random.split(key, config.epochs))
        return State(model, state.reference), jax.tree.map(jnp.mean, metrics)

    def imitate(state: State, batch: Completions, hyper: Any, key: Key, step: Array) -> tuple[State, Metrics]:
        def loss(params: PyTree) -> tuple[Array, Metrics]:
            log_prob, _ = score(params, batch.prompt, batch.completion, jnp.float32(1.0))
            value = -losses.masked_mean(log_prob, batch.mask)
            return value, {"imitation_loss": value}

        model, metrics = _common.descend(loss, state.model, optimiser(hyper))
        return State(model, _common.copy(model.params)), metrics

    def act(state: State, prompt: Array, hyper: Any, key: Key, explore: bool) -> Array:
        if not explore:
            return policy.mode(state.model.params, prompt)
        return policy.sample(state.model.params, prompt, key, temperature=hyper.temperature)[0]

    return Agent(init, update, act, kind=KIND, imitate=imitate)


def shaped(config: Config, batch: Completions, spec: TokenSpec) -> Array:
    """The reward that is learned from: with DAPO's penalty of overlong completions, if it is asked for."""
    if not config.overlong_buffer:
        return batch.reward
    length = batch.mask.sum(-1)
    return batch.reward + losses.overlong_penalty(length, float(spec.completion), float(config.overlong_buffer))


def kl_in_reward(config: Config, old: Array, reference: Array, hyper: Any) -> Array | float:
    """k1 summed over a completion's tokens, where the divergence is taken off the reward."""
    if config.kl != "reward":
        return 0.0
    return hyper.kl_coef * losses.sampled_kl(old, reference, "k1").sum(-1)


def advantages(config: Config, reward: Array) -> Array:
    """``[B, G]``, by the static switch."""
    if config.advantage == "leave_one_out":
        return losses.leave_one_out_advantage(reward)
    if config.advantage == "batch":
        return reward - reward.mean()
    return losses.group_advantage(reward, normalise=config.advantage == "group")


def total(config: Config, scored: Scored, reference: Array, hyper: Any, longest: int) -> tuple[Array, Metrics]:
    """The loss of a minibatch and its metrics: surrogate, divergence, entropy."""
    log_prob, logits, old, advantage, mask = scored
    each = jnp.broadcast_to(advantage[..., None], mask.shape)
    if config.surrogate == "reinforce":
        loss = losses.policy_gradient_loss(log_prob, each)
    elif config.surrogate == "gspo":
        loss = losses.gspo_loss(log_prob, old, advantage, mask, hyper.clip_low, hyper.clip_high)
    elif config.surrogate == "cispo":
        loss = losses.cispo_loss(log_prob, old, each, hyper.clip_low, hyper.clip_high)
    else:
        loss = losses.ppo_clip_loss(log_prob, old, each, hyper.clip_low, hyper.clip_high, config.dual_clip)
    metrics = {"actor_loss": aggregated(config, loss, mask, longest)}
    value = metrics["actor_loss"]
    if config.kl in ("k1", "k2", "k3"):
        divergence = losses.sampled_kl(log_prob, reference, config.kl)
        value = value + hyper.kl_coef * aggregated(config, divergence, mask, longest)
    if config.kl != "none":
        metrics["kl"] = losses.masked_mean(losses.sampled_kl(log_prob, reference, "k3"), mask)
    metrics["entropy"] = losses.masked_mean(categorical_entropy(logits), mask)
    value = value - hyper.entropy_coef * metrics["entropy"]
    change = jnp.clip(log_prob - old, -20.0, 20.0)
    ratio = jnp.expm1(change)  # minus 1
    metrics["approximate_kl"] = losses.masked_mean(ratio - change, mask)
    if hasattr(hyper, "clip_low"):
        outside = (ratio < -hyper.clip_low) | (ratio > hyper.clip_high)
        metrics["clipped"] = losses.masked_mean(outside.astype(jnp.float32), mask)
    return value, metrics


def aggregated(config: Config, loss: Array, mask: Array, longest: int) -> Array:
    """Scalar, by the static switch."""
    if config.aggregation == "token":
        return losses.masked_mean(loss, mask)
    if config.aggregation == "sequence":
        return losses.sequence_mean(loss, mask)
    return losses.constant_mean(loss, mask, float(longest))

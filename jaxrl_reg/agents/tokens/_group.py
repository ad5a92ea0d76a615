"""What all token agents share: a policy, its reference, groups of completions, and the losses that switches choose.

An agent with a loss of its own gives ``make`` an ``Objective``; ``_terms.total`` is the family's, for it to build on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.tokens import _terms
from jaxrl_reg.agents.tokens._model import optimiser
from jaxrl_reg.agents.tokens._model import score as score_of
from jaxrl_reg.agents.tokens._switches import ADVANTAGES, AGGREGATIONS, PENALTIES, SURROGATES, Config
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.policies import tokens
from jaxrl_reg.types import Agent, Array, Completions, Key, Metrics, Protocol, PyTree, TokenSpec

KIND = "tokens"
PROTOCOL = Protocol(note="Learns from completions that a task verifies.")


class State(NamedTuple):
    """The policy, the parameters that imitation left, from which divergences are measured, and what an objective keeps
    from batch to batch."""

    model: _common.Trainable
    reference: PyTree
    kept: PyTree = ()


class Known(NamedTuple):
    """What is known of a batch before the policy moves; every leaf ``[B, ...]`` and DETACHED."""

    batch: Completions
    mask: Array  # [B, G, T], of the tokens that are learned from
    old: Array  # [B, G, T], of the policy that sampled
    reference: Array  # [B, G, T]; 0 where no divergence is asked for
    advantage: Array  # [B, G]
    more: PyTree = ()  # what ``Objective.before`` found


class Objective(NamedTuple):
    """The loss of an agent that has its own, and what it keeps from batch to batch.

    ``loss(known, log_prob, logits, hyper, kept) -> (scalar, metrics)``, of a minibatch, with ``log_prob`` ``[B, G, T]``
    and ``logits`` ``[B, G, T, V]`` differentiated; ``start(hyper) -> kept``, before the first batch; ``before(known,
    logits, hyper, kept) -> (more, kept)``, once per batch, with the logits of the policy that sampled.
    """

    loss: Callable[..., tuple[Array, Metrics]]
    start: Callable[[Any], PyTree] = lambda hyper: ()
    before: Callable[..., tuple[PyTree, PyTree]] = lambda known, logits, hyper, kept: ((), kept)


def make(config: Config, spec: TokenSpec, objective: Objective | None = None) -> Agent:
    """A token agent with these switches; ``config`` may be any dataclass with the fields of ``Config``. Without an
    ``objective`` its loss is ``_terms.total``.

    Raises:
      UserError: for an unknown word of a switch, with the nearest one.
    """
    for name, known in (("advantage", ADVANTAGES), ("surrogate", SURROGATES), ("aggregation", AGGREGATIONS)):
        if getattr(config, name) not in known:
            raise unknown(name, getattr(config, name), known)
    if config.kl not in PENALTIES:
        raise unknown("kl", config.kl, PENALTIES)
    policy = tokens.make(spec, config.hidden, config.heads)

    def family(known: Known, log_prob: Array, logits: Array, hyper: Any, kept: PyTree) -> tuple[Array, Metrics]:
        scored = _terms.Scored(log_prob, logits, known.old, known.advantage, known.mask)
        return _terms.total(config, scored, known.reference, hyper, spec.completion)

    objective = Objective(family) if objective is None else objective

    def init(key: Key, hyper: Any) -> State:
        params = policy.init(key)
        return State(_common.trainable(params, optimiser(hyper)), _common.copy(params), objective.start(hyper))

    def score(params: PyTree, prompt: Array, completion: Array, temperature: Array) -> tuple[Array, Array]:
        return score_of(policy, params, prompt, completion, temperature)

    def update(state: State, batch: Completions, hyper: Any, key: Key, step: Array) -> tuple[State, Metrics]:
        rows = batch.prompt.shape[0]
        if rows % config.minibatches:
            raise UserError(f"minibatches={config.minibatches} must divide the {rows} prompts of a batch")
        reference = jnp.zeros(batch.mask.shape)
        if config.kl != "none":
            reference = score(state.reference, batch.prompt, batch.completion, hyper.temperature)[0]
        once = config.epochs == config.minibatches == 1  # then the policy that is trained is the one that sampled
        old, logits = jnp.zeros(batch.mask.shape), None
        if not once or config.kl == "reward":
            old, logits = score(state.model.params, batch.prompt, batch.completion, hyper.temperature)
        reward = _terms.shaped(config, batch, spec) - _terms.kl_in_reward(config, old, reference, hyper)
        mask = batch.mask * (1.0 - batch.truncated[..., None]) if config.mask_truncated else batch.mask
        known, kept = Known(batch, mask, old, reference, _terms.advantages(config, reward)), state.kept
        if not once:
            more, kept = objective.before(known, logits, hyper, kept)
            known = known._replace(more=more)

        def loss(params: PyTree, part: Known, kept: PyTree) -> tuple[Array, tuple[Metrics, PyTree]]:
            log_prob, logits = score(params, part.batch.prompt, part.batch.completion, hyper.temperature)
            if once:
                part = part._replace(old=jax.lax.stop_gradient(log_prob))
                more, kept = objective.before(part, jax.lax.stop_gradient(logits), hyper, kept)
                part = part._replace(more=more)
            value, metrics = objective.loss(part, log_prob, logits, hyper, kept)
            return value, (metrics, kept)

        def minibatch(carry: tuple[_common.Trainable, PyTree], part: Known) -> tuple[Any, Metrics]:
            model, kept = carry
            model, (metrics, kept) = _common.descend(lambda params: loss(params, part, kept), model, optimiser(hyper))
            return (model, kept), metrics

        (model, kept), metrics = passes(config, minibatch, (state.model, kept), known, key)
        return State(model, state.reference, kept), metrics

    def imitate(state: State, batch: Completions, hyper: Any, key: Key, step: Array) -> tuple[State, Metrics]:
        def loss(params: PyTree) -> tuple[Array, Metrics]:
            log_prob, _ = score(params, batch.prompt, batch.completion, jnp.float32(1.0))
            value = -losses.masked_mean(log_prob, batch.mask)
            return value, {"imitation_loss": value}

        model, metrics = _common.descend(loss, state.model, optimiser(hyper))
        return State(model, _common.copy(model.params), state.kept), metrics

    def act(state: State, prompt: Array, hyper: Any, key: Key, explore: bool) -> Array:
        if not explore:
            return policy.mode(state.model.params, prompt)
        return policy.sample(state.model.params, prompt, key, temperature=hyper.temperature)[0]

    return Agent(init, update, act, kind=KIND, imitate=imitate)


def passes(
    config: Config, step: Callable[[PyTree, Known], tuple[PyTree, Metrics]], carry: PyTree, known: Known, key: Key
) -> tuple[PyTree, Metrics]:
    """``epochs`` passes of ``step`` over the batch, each in ``minibatches`` parts; metrics are means."""
    rows = known.advantage.shape[0]

    def epoch(carry: PyTree, key: Key) -> tuple[PyTree, Metrics]:
        if config.minibatches == 1:
            return step(carry, known)
        order = jnp.argsort(jax.random.bits(key, (rows,))).reshape(config.minibatches, -1)  # groups stay whole
        carry, found = jax.lax.scan(lambda c, at: step(c, jax.tree.map(lambda x: x[at], known)), carry, order)
        return carry, jax.tree.map(jnp.mean, found)

    carry, metrics = jax.lax.scan(epoch, carry, jax.random.split(key, config.epochs))
    return carry, jax.tree.map(jnp.mean, metrics)

"""Decision Transformer: clone the data's actions, given the return that followed them, and ask for a high one.

In words. A transformer reads the last ``context`` steps as returns-to-go, observations and actions, and predicts each
action from everything before it; the loss is the mean squared error over the real steps of the windows. How windows are
drawn and how returns are asked for is written in ``_sequence``.

Metrics: ``actor_loss``, the mean squared error per action dimension.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.offline import _sequence
from jaxrl_reg.networks.sequence import decision_transformer
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, Spec, Transition, pytree, setting

PAPER = Paper(
    title="Decision Transformer: Reinforcement Learning via Sequence Modeling",
    authors="Chen, Lu, Rajeswaran, Lee, Grover, Laskin, Abbeel, Srinivas, Mordatch",
    year=2021,
    url="https://arxiv.org/abs/2106.01345",
    deviations=_sequence.DEVIATIONS,
)
KIND = "offline"
PROTOCOL = Protocol(normalise=True, eps=1e-6, batch_size=1280, updates=100_000)


@dataclasses.dataclass(frozen=True)
class Config(_sequence.Config):
    heads: int = setting(default=1, help="attention heads; must divide the width")


@pytree
class Hyper(_sequence.Hyper):
    pass


class State(NamedTuple):
    model: _common.Trainable
    returns: _sequence.Returns


def make(config: Config, spec: Spec) -> Agent:
    """Raises ``UserError`` for blocks of several widths, or heads that do not divide them."""
    model = decision_transformer(spec, config.hidden, config.context, heads=config.heads, dropout=config.dropout)

    def init(key: Key, hyper: Hyper) -> State:
        return State(_common.trainable(model.init(key), _sequence.optimiser(hyper)), _sequence.Returns.unknown())

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        def loss(params):
            action = model.apply(params, *_sequence.inputs(batch), key=key if config.dropout > 0 else None).action
            error = losses.behaviour_cloning_loss(action, batch.action)
            value = losses.masked_mean(error, batch.extras["mask"])
            return value, {"actor_loss": value}

        learnt, metrics = _common.descend(loss, state.model, _sequence.optimiser(hyper, step))
        return State(learnt, _sequence.Returns.of(batch)), metrics

    return _sequence.make(config, model, init, update)

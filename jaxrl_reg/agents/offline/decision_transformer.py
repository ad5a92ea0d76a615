"""Decision Transformer: clone the data's actions, given the return that followed them, and ask for a high one.

In words. A transformer reads the last ``context`` steps as returns-to-go, observations and actions, and predicts each
action from everything before it; the loss is the mean squared error over the real steps of the windows. How windows are
drawn and how returns are asked for is written in ``_sequence``.

With ``memory`` signatures it also looks up what was done in the episode so far where the observation was alike, however
long ago: a table of fixed size (``networks.hashed_memory``) that each step is written into, so that acting costs the
same at every step. Keys are a linear map of the observation, learnt through the expectation of a read over at most 64
rows from before the window and those within it. It pays where what matters lies further back than ``context`` steps.

Metrics: ``actor_loss``, the mean squared error per action dimension.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.offline import _sequence
from jaxrl_reg.errors import UserError
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
PAST = 64  # rows from before a window that a memory is trained on


@dataclasses.dataclass(frozen=True)
class Config(_sequence.Config):
    heads: int = setting(default=1, help="attention heads; must divide the width")
    memory: int = setting(
        default=0, help="signatures of a hashed memory of the whole episode beside the window, such as 16; 0: none"
    )


@pytree
class Hyper(_sequence.Hyper):
    pass


class State(NamedTuple):
    model: _common.Trainable
    returns: _sequence.Returns


def make(config: Config, spec: Spec) -> Agent:
    """Raises ``UserError`` for blocks of several widths, heads that do not divide them, or a memory below 0."""
    if config.memory < 0:
        raise UserError(f"memory={config.memory} must be at least 0, the number of signatures; 16 are many")
    model = decision_transformer(
        spec, config.hidden, config.context, heads=config.heads, dropout=config.dropout, memory=config.memory
    )

    def past(batch: Transition) -> tuple[Array, Array, Array] | None:
        if not config.memory:
            return None
        if "past_mask" not in batch.extras:
            raise UserError(
                "decision_transformer with a memory draws its own batches, see data.samplers.windows_with_past"
            )
        return tuple(batch.extras[f"past_{name}"] for name in ("observation", "action", "mask"))

    def init(key: Key, hyper: Hyper) -> State:
        return State(_common.trainable(model.init(key), _sequence.optimiser(hyper)), _sequence.Returns.unknown())

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        def loss(params):
            drop = key if config.dropout > 0 else None
            action = model.apply(params, *_sequence.inputs(batch), key=drop, past=past(batch)).action
            error = losses.behaviour_cloning_loss(action, batch.action)
            value = losses.masked_mean(error, batch.extras["mask"])
            return value, {"actor_loss": value}

        learnt, metrics = _common.descend(loss, state.model, _sequence.optimiser(hyper, step))
        return State(learnt, _sequence.Returns.of(batch)), metrics

    return _sequence.make(config, model, init, update, PAST if config.memory else 0)

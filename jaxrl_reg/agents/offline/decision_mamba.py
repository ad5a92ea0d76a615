"""Decision Mamba: a state space model that clones, given a return, labels that its own earlier self has refined.

In words. A Mamba over tokens (return-to-go, observation, action) with a second one over whole steps predicts each
action from everything before it, and then the next observation and return-to-go. The action's target is
``(1 - beta) a + beta a_past`` with the prediction of a slow copy of the model, a constant; ``beta`` grows linearly to
``final_weight`` over ``ramp_steps`` updates but not above ``cap``. The loss is the weighted sum of the mean squared
error of the action and the Huber losses of the other two, over the real steps of the windows. How windows are drawn and
how returns are asked for is written in ``_sequence``.

Metrics: ``actor_loss`` against the refined action, ``action_error`` against the data's, both per dimension;
``observation_loss`` per dimension, ``return_loss``; ``model_loss`` the weighted sum.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, cast

import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.offline import _sequence
from jaxrl_reg.networks.sequence import decision_mamba
from jaxrl_reg.transforms import polyak
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, PyTree, Spec, Transition, pytree, setting

PAPER = Paper(
    title="Decision Mamba: A Multi-Grained State Space Model with Self-Evolution Regularization for Offline RL",
    authors="Lv, Deng, Chen, Wang, Nie",
    year=2024,
    url="https://arxiv.org/abs/2406.05427",
    deviations="The released code switches the refinement off, and as written it would only rescale the loss: here the "
    "past policy has parameters of its own, a slow average instead of a snapshot per stage. The released code tiles "
    "what it knows of whole steps over the tokens, so that half of a window's actions see their own label; here a "
    "token gets the step before its own. Three blocks of width 128 and state 8 instead of 24 of 768 and 16, linear "
    "embeddings, one learning rate. The memory is emptied every context steps instead of being built anew from the "
    "last ones, so that acting costs the same at every step. Next observation and return are predicted at every real "
    "step. " + _sequence.DEVIATIONS,
)
KIND = "offline"
PROTOCOL = Protocol(normalise=True, eps=1e-6, batch_size=1280, updates=100_000)


@dataclasses.dataclass(frozen=True)
class Config(_sequence.Config):
    state_size: int = setting(default=8, help="numbers of memory per channel")
    ramp_steps: int = setting(default=100_000, help="updates over which the refinement reaches its final weight")


@pytree
class Hyper(_sequence.Hyper):
    action_coef: float = setting(default=0.9, help="weight of the action's error")
    observation_coef: float = setting(default=0.05, help="weight of the next observation's")
    return_coef: float = setting(default=0.05, help="weight of the next return's")
    final_weight: float = setting(
        default=0.85, help="weight of the past policy in the labels at the end, before the cap"
    )
    cap: float = setting(default=0.5, help="largest weight of the past policy", range=(0.0, 1.0))
    target_rate: float = setting(default=0.005, help="step of the past policy towards the present one")


class State(NamedTuple):
    model: _common.Trainable
    target_model: PyTree
    returns: _sequence.Returns


def make(config: Config, spec: Spec) -> Agent:
    """Raises ``UserError`` for blocks of several widths."""
    model = decision_mamba(spec, config.hidden, config.context, state_size=config.state_size, dropout=config.dropout)

    def init(key: Key, hyper: Hyper) -> State:
        params = model.init(key)
        learnt = _common.trainable(params, _sequence.optimiser(hyper))
        return State(learnt, _common.copy(params), _sequence.Returns.unknown())

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        inputs, mask = _sequence.inputs(batch), batch.extras["mask"]
        past = model.apply(state.target_model, *inputs).action
        progress = jnp.minimum(step / config.ramp_steps, 1.0)
        label = losses.self_evolution_target(batch.action, past, progress, hyper.final_weight, hyper.cap)
        next_return = inputs[0] - batch.reward / batch.extras["return_scale"]

        def loss(params):
            found = model.apply(params, *inputs, key=key if config.dropout > 0 else None)
            next_observation, predicted_return = cast(tuple[Array, Array], (found.next_observation, found.next_return))
            parts = {
                "actor_loss": losses.behaviour_cloning_loss(found.action, label),
                "observation_loss": losses.huber_loss(next_observation, batch.next_observation, 1.0).mean(-1),
                "return_loss": losses.huber_loss(predicted_return, next_return, 1.0),
                "action_error": losses.behaviour_cloning_loss(found.action, batch.action),
            }
            parts = {name: losses.masked_mean(part, mask) for name, part in parts.items()}
            total = (
                hyper.action_coef * parts["actor_loss"]
                + hyper.observation_coef * parts["observation_loss"]
                + hyper.return_coef * parts["return_loss"]
            )
            return total, {**parts, "model_loss": total}

        learnt, metrics = _common.descend(loss, state.model, _sequence.optimiser(hyper, step))
        slow = polyak(learnt.params, state.target_model, hyper.target_rate)
        return State(learnt, slow, _sequence.Returns.of(batch)), metrics

    return _sequence.make(config, model, init, update)

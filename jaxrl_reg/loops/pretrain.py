"""Training an encoder before the task: batches from a data set, one optimiser step each on an objective."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg.data.samplers import Sampler, uniform
from jaxrl_reg.loops.offline import INIT, TRAIN, per_segment
from jaxrl_reg.representation import (
    ContentBehaviour,
    EventModel,
    Labeller,
    Objective,
    RewardModel,
    SensorAlignment,
    SensorModel,
    StateActionVae,
)
from jaxrl_reg.types import Array, Dataset, Key, Metrics, PyTree, Run, pytree, setting

Trainable = (
    Objective | ContentBehaviour | EventModel | Labeller | RewardModel | SensorAlignment | SensorModel | StateActionVae
)


@pytree
class Hyper:
    """Settings of pretraining that can be swept."""

    learning_rate: float = setting(default=1e-3, help="AdamW step size")
    weight_decay: float = setting(default=1e-4, help="AdamW weight decay")


class State(NamedTuple):
    """Parameters of the objective, as its ``encode`` takes them, and the state of their optimiser."""

    params: PyTree
    opt_state: PyTree


def pretrain(
    objective: Trainable,
    *,
    batch_size: int = 256,
    updates: int,
    segments: int = 1,
    sample: Sampler = uniform,
) -> Run:
    """A run of ``updates`` steps on ``objective``, in ``segments`` equal parts; hyperparameters are ``Hyper``.

    Call it as ``(key, hyper, data) -> (state, history)``, or hand it to ``population.sweep``; ``state.params`` is what
    the objective's other functions take. Raises ``UserError`` if ``updates`` is not a multiple of ``segments``.
    """
    length, advance = per_segment(updates, segments), getattr(objective, "advance", None)

    def optimiser(hyper: Hyper) -> optax.GradientTransformation:
        return optax.adamw(hyper.learning_rate, weight_decay=hyper.weight_decay, mask=_decays)

    def init(key: Key, hyper: Hyper) -> State:
        params = objective.init(jax.random.fold_in(key, INIT))
        return State(params, optimiser(hyper).init(params))

    def train(state: State, index: Array, key: Key, hyper: Hyper, data: Dataset) -> tuple[State, Metrics]:
        key = jax.random.fold_in(jax.random.fold_in(key, TRAIN), index)

        def body(state: State, i: Array) -> tuple[State, Metrics]:
            sample_key, loss_key = jax.random.split(jax.random.fold_in(key, i))
            batch = sample(data, sample_key, batch_size)
            gradients, metrics = jax.grad(objective.loss, has_aux=True)(state.params, batch, loss_key)
            changes, opt_state = optimiser(hyper).update(gradients, state.opt_state, state.params)
            params = optax.apply_updates(state.params, changes)
            if advance is not None:
                params = advance(params, (index * length + i) / updates)
            return State(params, opt_state), metrics

        state, metrics = jax.lax.scan(body, state, jnp.arange(length))
        return state, jax.tree.map(jnp.mean, metrics)

    return Run(init, train, None, segments, length)


def _decays(params: PyTree) -> PyTree:
    """Everything but codebooks, which decay would draw together, and what no gradient moves."""
    still = {"codebook", "target", "teacher"}
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: not any(getattr(part, "key", None) in still for part in path), params
    )

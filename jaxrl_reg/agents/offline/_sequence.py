"""What Decision Transformer and Decision Mamba share: cloning of the data's actions, given the return that followed.

Windows of ``context`` steps start at rows drawn uniformly and are padded at their end; an update takes as many of them
as make up its batch in rows. Returns-to-go are divided by the largest one of the data. Acting asks for a return at the
start of an episode and subtracts each reward as it comes. ``target_return`` says how much relative to the data's
episodes; what those brought travels with the batches and is kept in the state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg.data import samplers
from jaxrl_reg.networks.sequence import SequenceModel
from jaxrl_reg.policies import deterministic
from jaxrl_reg.types import Agent, Array, Dataset, Key, Metrics, Policy, PyTree, Transition, pytree, setting

DEVIATIONS = (
    "Returns are divided by the largest return-to-go of the data instead of 1000, and the return asked for is given "
    "relative to the data's episodes. Windows are padded at their end. An update takes batch / context windows, so "
    "that it sees as many rows as other agents. The warm-up is 100 updates, for short runs (published: 10,000 and "
    "2,500), and the learning rate 1e-3 (published: 1e-4)."
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of both."""

    hidden: tuple[int, ...] = setting(default=(128, 128, 128), help="width of each block; they must be equal")
    context: int = setting(default=20, help="steps in a window, and how far back an action may look", small=4)
    dropout: float = setting(default=0.1, help="rate of dropout while learning")
    exploration_noise: float = setting(default=0.1, help="scale of the noise added when exploring")


@pytree
class Hyper:
    """Settings of both."""

    learning_rate: float = setting(default=1e-3, help="AdamW step size, after warm-up")
    warm_up: float = setting(default=100.0, help="updates over which the step size rises linearly")
    weight_decay: float = setting(default=1e-4, help="of AdamW, per unit of the learning rate, on matrices only")
    gradient_clip: float = setting(default=0.25, help="largest norm of the gradient over all parameters")
    target_return: float = setting(
        default=1.0, help="return asked for: 0 is the mean of the data's episodes, 1 their best"
    )


class Returns(NamedTuple):
    """Of the data: mean and best return of an episode, and the largest size of a return-to-go; scalars."""

    mean: Array
    best: Array
    scale: Array

    @classmethod
    def unknown(cls) -> Returns:
        """Before the first update."""
        return cls(jnp.zeros(()), jnp.zeros(()), jnp.ones(()))

    @classmethod
    def of(cls, batch: Transition) -> Returns:
        return cls(*(batch.extras[f"return_{name}"] for name in cls._fields))


class Memory(NamedTuple):
    """Of an episode: the model's own, steps so far (int32), and the scaled return still asked for."""

    model: PyTree
    time: Array
    togo: Array


def optimiser(hyper: Any, step: Array | int = 0) -> optax.GradientTransformation:
    """Clipped AdamW with a linear warm-up; biases, gains, embeddings and the like do not decay."""
    warm = jnp.minimum((step + 1) / jnp.maximum(hyper.warm_up, 1.0), 1.0)

    def matrices(params: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(lambda path, leaf: path[-1].key == "kernel", params)

    return optax.chain(
        optax.clip_by_global_norm(hyper.gradient_clip),
        optax.adamw(hyper.learning_rate * warm, weight_decay=hyper.weight_decay, mask=matrices),
    )


def inputs(batch: Transition) -> tuple[Array, Array, Array, Array]:
    """What a model reads of windows ``[B, K]``: scaled returns-to-go, observations, actions, times."""
    scaled = batch.extras["return_to_go"] / batch.extras["return_scale"]
    return scaled, batch.observation, batch.action, batch.extras["step"]


def make(
    config: Config,
    model: SequenceModel,
    init: Callable[[Key, Any], Any],
    update: Callable[[Any, Transition, Any, Key, Array], tuple[Any, Metrics]],
    past: int = 0,
) -> Agent:
    """An agent whose state has ``model.params`` of ``model`` and ``returns``; its windows come with ``past`` rows from
    before them."""
    drawn = samplers.windows_with_past(config.context, past) if past else samplers.windows(config.context, pad="right")
    windows = samplers.returns_to_go(drawn)

    def sample(data: Dataset, key: Key, batch_size: int) -> Transition:
        return windows(data, key, max(1, batch_size // config.context))

    def policy(state: Any, hyper: Any, explore: bool) -> Policy:
        mean, best, scale = state.returns
        asked = (mean + hyper.target_return * (best - mean)) / scale

        def start(shape: tuple[int, ...]) -> Memory:
            return Memory(model.start(shape), jnp.zeros(shape, jnp.int32), jnp.broadcast_to(asked, shape))

        def step(memory: Memory, observation: Array, reward: Array, key: Key) -> tuple[Array, Memory]:
            def choose(action: Array) -> Array:
                return deterministic.explore(action, key, config.exploration_noise) if explore else action

            togo = memory.togo - reward / scale
            action, inner = model.step(state.model.params, memory.model, togo, observation, memory.time, choose)
            return action, Memory(inner, memory.time + 1, togo)

        return Policy(start, step)

    def act(state: Any, observation: Array, hyper: Any, key: Key, explore: bool) -> Array:
        shape, first = observation.shape[:-1], policy(state, hyper, explore)
        return first.step(first.start(shape), observation, jnp.zeros(shape), key)[0]

    return Agent(init, update, act, sample, policy)

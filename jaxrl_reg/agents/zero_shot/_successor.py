"""What the agents on forward-backward representations share: F and B know every policy's future, an actor follows F.

In words. F_j(s, a, z) and B(s) are vectors; F_j(s, a, z)^T B(s+) is how densely the policy of task z, from (s, a) on,
visits s+, from the next state on and relative to the data. Two F fit, by temporal differences, the elementwise smaller
of what the slow copies say at (s', a'); B, on the sphere of radius sqrt(D), is held orthonormal. A reward's task is
z = E[r(s') B(s')], on the same sphere, and F^T z is its value; so the policy of z takes actions of large min_j F_j^T z.
While training, z is uniform on the sphere or, with probability ``mix_ratio``, the task of a state of the batch. True
ends are not looked at: the measure goes on. Order: representation, value, actor, slow copies.

Switches. Actor: see ``_task_actors``; F and B, F regularisation, conservatism: see ``_forward_backward``. Value:
``expectile`` regresses V(s, z) to a high expectile of min_j F_j^T z over the data's actions; with ``none`` an action of
the policy stands in for it.

Metrics: ``critic_loss`` the whole loss of F and B; its parts ``fb_loss`` and ``orthonormality_loss``, and by the
switches ``q_loss`` of the F regularisation and the ``penalty`` of conservatism with its ``multiplier``; ``q`` mean of
F^T z on the batch's actions; ``expectile_loss`` of V; ``actor_loss``; ``weight`` mean weight of rows for the actor.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.zero_shot import _forward_backward, _standardise, _task_actors
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import Agent, Array, Dataset, Key, Metrics, PyTree, Spec, Transition, ZeroShot, pytree, setting

DEVIATIONS = (
    "A deterministic actor's noisy action is clipped, without a straight-through gradient. Heads of F are 256 wide, as "
    "in the code that compares FB, VC-FB, MC-FB and BREEZE, not 1024. Without a task, act follows one fixed z."
)
BOUND = 1.0  # of every entry of a gradient, for F, B and the actor
FIRST_PERIOD, RATE_FLOOR = 5, 0.1  # of warm restarts: updates, and the least rate as a fraction of the largest
ADAM = adam(0.0)  # for the structure of its state
UNSET = {"weight_decay": 0.0, "actor_weight_decay": 0.0}  # unless a Hyper has them


@dataclasses.dataclass(frozen=True)
class Config(_task_actors.Config, _forward_backward.Config):
    """Sizes, switches, and what no ``Hyper`` holds. The defaults are those of FB."""

    standardise: bool = setting(
        default=False, help="observations, and a diffusion actor's actions, by the data's moments"
    )
    warm_restarts: bool = setting(default=False, help="F and B step by cosines down to a tenth, each twice as long")
    second_moment: float = setting(default=0.999, help="Adam's beta_2 for F, B and V")


@pytree
class Hyper:
    """Settings of all."""

    representation_learning_rate: float = setting(default=1e-4, help="Adam step size of F and B")
    actor_learning_rate: float = setting(default=1e-4, help="Adam step size of the actor")
    discount: float = setting(default=0.98, help="gamma, on every row; 0.99 for mazes")
    tau: float = setting(default=0.01, help="step of the slow copies of F and B")
    mix_ratio: float = setting(default=0.5, help="fraction of training tasks that are states of the batch")
    orthonormality: float = setting(default=1.0, help="weight of the orthonormality of B")


class State(NamedTuple):
    representation: _common.Trainable  # forward and backward
    target_representation: PyTree
    actor: _common.Trainable
    average_actor: PyTree
    value: _common.Trainable | None
    multiplier: _common.Trainable | None
    moments: _standardise.Moments


def sample_z(key: Key, size: int, features: int) -> Array:
    """``[size, features]``, uniform on the sphere of radius ``sqrt(features)``."""
    return losses.project_sphere(jax.random.normal(key, (size, features)))


def mix_z(key: Key, z: Array, backward: Array, ratio: Array | float) -> Array:
    """``z [B, D]``, of which a fraction ``ratio`` is exchanged for rows of ``backward [B, D]``, in another order."""
    row_key, mix_key = jax.random.split(key)
    goals = losses.project_sphere(jax.lax.stop_gradient(jax.random.permutation(row_key, backward)))
    return jnp.where(jax.random.uniform(mix_key, (z.shape[0], 1)) < ratio, goals, z)


def make(config: Config, spec: Spec) -> Agent:
    """An agent with these switches. Raises ``UserError`` for one that is unknown."""
    maps, actor = _forward_backward.make(config, spec), _task_actors.make(config, spec)
    joint, width = dataclasses.replace(spec, observation_dim=spec.observation_dim + config.features), config.hidden[0]
    v = networks.value_network(joint, (min(512, width),) * 2, layer_norm="first_tanh", init="orthogonal", gain=1.0)

    def init(key: Key, hyper: Any) -> State:
        maps_key, actor_key, value_key = jax.random.split(key, 3)
        representation, policy = maps.init(maps_key), actor.init(actor_key)
        held = config.conservatism != "none" and config.target_penalty is not None
        return State(
            _common.trainable(representation, ADAM),
            _common.copy(representation),
            _common.trainable(policy, ADAM),
            _common.copy(policy) if actor.averaged else None,
            _common.trainable(v.init(value_key), ADAM) if config.value == "expectile" else None,
            _common.trainable(jnp.zeros(()), ADAM) if held else None,
            _standardise.identity(spec),
        )

    def drawing(state: State, hyper: Any) -> Any:
        """``(observation, z, key=...) -> action`` of the policy that acts."""
        params = state.average_actor if actor.averaged else state.actor.params
        q, settings = functools.partial(maps.q, state.representation.params), _merged(config, hyper)
        return functools.partial(actor.draw, params, q=q, hyper=settings)

    def update(state: State, batch: Transition, hyper: Any, key: Key, step: Array) -> tuple[State, Metrics]:
        draw, hyper = drawing(state, hyper), _merged(config, hyper)
        keys, moments = jax.random.split(key, 9), state.moments
        s, following = (moments.observation.normalize(x) for x in (batch.observation, batch.next_observation))
        a = moments.action.normalize(batch.action)
        z = sample_z(keys[0], s.shape[0], config.features)
        z = mix_z(keys[1], z, maps.backward(state.representation.params, s), hyper.mix_ratio)
        rows = _forward_backward.Batch(s, a, following, z)

        next_action = draw(following, z, key=keys[2])
        if actor.averaged:
            own = moments.action.normalize(_common.present(batch.next_action, "this agent", "next_action"))
            keep = jax.random.uniform(keys[3], (s.shape[0], 1)) < hyper.behaviour_ratio
            next_action = jnp.where(keep, own, next_action)
        ahead = maps.ahead(state.target_representation, rows, next_action, keys[4])
        if state.value is not None:
            ahead = ahead._replace(value=v.apply(state.value.params, following, z))
        others = _forward_backward.other_actions(config, rows, draw, moments.action, keys[5])

        def representation_loss(params):
            return maps.loss(params, rows, ahead, others, state.multiplier, keys[6], hyper)

        rate = hyper.representation_learning_rate
        rate = _common.warm_restarts(rate, step, FIRST_PERIOD, RATE_FLOOR) if config.warm_restarts else rate
        optimiser = adam(rate, b2=config.second_moment, weight_decay=hyper.weight_decay)
        representation, learnt = _common.descend(representation_loss, state.representation, optimiser, BOUND)
        values, multiplier, metrics = learnt

        def value_loss(params):
            loss = losses.expectile_loss(values.min(axis=0) - v.apply(params, s, z), hyper.expectile).mean()
            return loss, {"expectile_loss": loss}

        value = state.value
        if value is not None:
            rate = hyper.value_learning_rate
            optimiser = adam(rate, b2=config.second_moment, weight_decay=hyper.weight_decay)
            value, value_metrics = _common.descend(value_loss, value, optimiser)
            metrics |= value_metrics

        q = functools.partial(maps.q, representation.params)
        weight = jnp.ones(s.shape[0])
        if actor.weighted:
            baseline = q(s, draw(s, z, key=keys[7]), z) if value is None else v.apply(value.params, s, z)
            weight = losses.awr_weight(q(s, a, z) - baseline, hyper.inverse_temperature, config.max_weight)
            metrics["weight"] = weight.mean()

        def actor_loss(params):
            loss = actor.loss(params, s, a, z, weight, q, keys[8], hyper).mean()
            return loss, {"actor_loss": loss}

        optimiser = adam(hyper.actor_learning_rate, weight_decay=hyper.actor_weight_decay)
        policy, actor_metrics = _common.descend(actor_loss, state.actor, optimiser, BOUND)
        average = polyak(policy.params, state.average_actor, hyper.actor_average_rate) if actor.averaged else None
        slow = polyak(representation.params, state.target_representation, hyper.tau)
        return State(representation, slow, policy, average, value, multiplier, moments), metrics | actor_metrics

    def acted(state: State, action: Array) -> Array:
        return jnp.clip(state.moments.action.unnormalize(action), -1.0, 1.0)

    def serve(state: State, observation: Array, z: Array, key: Key) -> Array:
        params = state.average_actor if actor.averaged else state.actor.params
        s, q = state.moments.observation.normalize(observation), functools.partial(maps.q, state.representation.params)
        return acted(state, actor.greedy(params, s, z, q, key))

    def act(state: State, observation: Array, hyper: Any, key: Key, explore: bool) -> Array:
        z = jnp.ones(config.features)
        if not explore:
            return serve(state, observation, z, key)
        return acted(state, drawing(state, hyper)(state.moments.observation.normalize(observation), z, key=key))

    def goal_z(state: State, goal: Array) -> Array:
        return maps.backward(state.representation.params, state.moments.observation.normalize(goal))

    def infer_z(state: State, observation: Array, reward: Array) -> Array:
        return losses.infer_z(goal_z(state, observation), reward)

    def begin(state: State, data: Dataset, segment: Array) -> State:
        return state._replace(moments=_standardise.fitted(state.moments, data, segment, actions=actor.diffuses))

    begin = begin if config.standardise else None
    return Agent(init, update, act, zero_shot=ZeroShot(infer_z, goal_z, serve), begin=begin)


def _merged(config: Config, hyper: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(**{**UNSET, **vars(config), **vars(hyper)})

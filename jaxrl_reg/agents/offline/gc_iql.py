"""Goal-conditioned IQL without action values: a task is served by going to its best rewarded state.

In words. Rows get a goal: a state of their own future, or, with probability ``random_goals``, of anywhere in the data.
Every step costs 1 until the goal. Two values V_j(s, g) are fitted by expectile regression to -1 + gamma V'_j(s', g), or
-1 where the step arrives. Actor pi(a|s, g): maximise the log-density of the data's action, weighted by
exp(inverse_temperature (d mean_j V_j(s', g) - mean_j V_j(s, g))), cut at ``max_weight``, with d = 0 where the step
arrives: nothing trains V(g, g). V' follows V slowly; V lengthens by a step in about 1 / tau updates, so short training
needs a larger tau: of OGBench's medium point maze (200 episodes, one seed), 0.6 of the goals were reached after 9,000
updates of batch 256 with tau 0.05, inverse_temperature 10, step sizes 1e-3 and widths 128,128, and none after 20,000
with tau 0.005, step sizes 3e-4 and widths 64,64. A reward given after training becomes a goal: the labelled state that
brings most. Order: values, actor, targets.

Metrics: ``value_loss`` summed over the two; ``v`` mean value, minus steps if gamma were 1; ``actor_loss``; ``weight``
mean actor weight.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _common
from jaxrl_reg.data import samplers
from jaxrl_reg.errors import UserError
from jaxrl_reg.policies import gaussian
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import (
    Agent,
    Array,
    Key,
    Metrics,
    Paper,
    Protocol,
    PyTree,
    Spec,
    Transition,
    ZeroShot,
    pytree,
    setting,
)

PAPER = Paper(
    title="HIQL: Offline Goal-Conditioned RL with Latent States as Actions (its flat baseline, GC-IQL)",
    authors="Park, Ghosh, Eysenbach, Levine",
    year=2023,
    url="https://arxiv.org/abs/2307.11949",
    deviations="A step that arrives at the goal still costs 1, so that minus V counts steps, and counts as ending at 0 "
    "in the actor's weight, where the released code uses a value that it trains on goals that are the present state. "
    "Goals here never are (a fifth of the released ones are; future and random ones keep the ratio of 0.5 to 0.3). "
    "Three hidden layers in actor and values; released: two of 256 in the actor. The weight uses V from before this "
    "step's update. ReLU, not GELU. Without a task, act heads for the origin.",
)
KIND = "offline"
PROTOCOL = Protocol(
    batch_size=1024, updates=1_000_000, rewards=False, note="OGBench's protocol: it has goals instead of rewards."
)


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(512, 512, 512), help="widths of the hidden layers")
    layer_norm: str = setting(default="every", help="LayerNorm in the values: none, every or first_tanh")
    random_goals: float = setting(
        default=0.375, help="fraction of goals from anywhere in the data; the others are future states"
    )
    goal_discount: float = setting(
        default=0.98, help="future goals are k steps ahead with probability proportional to its power k"
    )
    max_weight: float = setting(default=100.0, help="largest weight of a row in the actor loss")


@pytree
class Hyper:
    actor_learning_rate: float = setting(default=3e-4, help="Adam step size of the actor")
    value_learning_rate: float = setting(default=3e-4, help="Adam step size of the values")
    discount: float = setting(default=0.99, help="gamma")
    tau: float = setting(default=0.005, help="step of the target values towards the online ones")
    expectile: float = setting(default=0.7, help="0.5: mean over the data's ways to the goal, towards 1: the best")
    inverse_temperature: float = setting(default=1.0, help="beta of the actor's weights")


class State(NamedTuple):
    actor: _common.Trainable
    value: _common.Trainable
    target_value: PyTree


def make(config: Config, spec: Spec) -> Agent:
    if not 0.0 <= config.random_goals <= 1.0:
        raise UserError(f"gc_iql: random_goals={config.random_goals} must lie in [0, 1]")
    double = dataclasses.replace(spec, observation_dim=2 * spec.observation_dim)
    policy = gaussian.clipped(double, config.hidden)
    v = networks.ensemble(networks.value_network(double, config.hidden, layer_norm=config.layer_norm), 2)
    sample = samplers.hindsight(config.goal_discount, geometric=1.0 - config.random_goals, random=config.random_goals)

    def init(key: Key, hyper: Hyper) -> State:
        actor_key, value_key = jax.random.split(key)
        value = v.init(value_key)
        return State(
            _common.trainable(policy.init(actor_key), adam(hyper.actor_learning_rate)),
            _common.trainable(value, adam(hyper.value_learning_rate)),
            _common.copy(value),
        )

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        here, there = (towards(x, batch.extras["goal"]) for x in (batch.observation, batch.next_observation))
        old, following = v.apply(state.target_value, here), v.apply(state.target_value, there)
        cost, going = -jnp.ones_like(batch.reward), 1.0 - batch.extras["goal_reached"]

        def value_loss(params):
            values = v.apply(params, here)
            loss = losses.goal_value_loss(values, old, following, cost, going, hyper.discount, hyper.expectile).mean()
            return loss, (values.mean(axis=0), {"value_loss": loss, "v": values.mean()})

        # Both ends by the same values: the slow ones lag behind while values fall, which would make every step good.
        ahead = (going * v.apply(state.value.params, there)).mean(axis=0)
        value, (values, metrics) = _common.descend(value_loss, state.value, adam(hyper.value_learning_rate))
        advantage = ahead - values
        weight = losses.awr_weight(advantage, hyper.inverse_temperature, config.max_weight)

        def actor_loss(params):
            log_prob = policy.log_prob(params, here, batch.action)
            loss = losses.weighted_log_prob_loss(log_prob, weight).mean()
            return loss, {"actor_loss": loss, "weight": weight.mean()}

        actor, actor_metrics = _common.descend(actor_loss, state.actor, adam(hyper.actor_learning_rate))
        state = State(actor, value, polyak(value.params, state.target_value, hyper.tau))
        return state, {**metrics, **actor_metrics}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        here = towards(observation, jnp.zeros(spec.observation_dim))
        if explore:
            return jnp.clip(policy.sample(state.actor.params, here, key)[0], -1.0, 1.0)
        return policy.mode(state.actor.params, here)

    def infer_z(state: State, observation: Array, reward: Array) -> Array:
        return observation[reward.argmax()]

    def serve(state: State, observation: Array, z: Array, key: Key) -> Array:
        return policy.mode(state.actor.params, towards(observation, z))

    return Agent(init, update, act, sample, zero_shot=ZeroShot(infer_z, lambda state, goal: goal, serve))


def towards(observation: Array, goal: Array) -> Array:
    """``[..., 2 O]``: what a goal-conditioned network sees."""
    return jnp.concatenate([observation, jnp.broadcast_to(goal, observation.shape)], axis=-1)

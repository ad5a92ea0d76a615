"""Flow Q-Learning: a flow clones the data in many steps, a one-step policy stays close to it and climbs the critics.

In words. Critics: all fit y = r + gamma d mean_j Q'_j(s', a'), with a' = mu(s', n) clipped, the one-step policy on
fresh noise. Flow: flow matching of the data's actions. One-step policy: ``alpha`` times the mean squared distance of
mu(s, n) to the clipped action that the flow makes of the same n in ``steps`` Euler steps (held constant), minus
mean_j Q_j(s, mu(s, n) clipped). No gradient ever passes through the flow's steps. Order: critics, flow and one-step
policy together, targets. Acting: mu(s, n) clipped, exploring or not.

Metrics: ``critic_loss`` sum over critics of the mean squared TD error; ``q`` mean value of data actions; ``target``
mean TD target; ``actor_loss`` the sum of all terms; ``flow_loss``; ``distillation_loss`` the mean squared distance
above; ``q_policy`` mean value of the one-step policy's actions; with ``beer`` also ``beer_loss``, see ``_beer``.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _beer, _common
from jaxrl_reg.errors import unknown
from jaxrl_reg.networks.denoisers import denoiser_mlp
from jaxrl_reg.policies import flow
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, PyTree, Spec, Transition, pytree, setting

PAPER = Paper(
    title="Flow Q-Learning",
    authors="Park, Li, Levine",
    year=2025,
    url="https://arxiv.org/abs/2502.02538",
    deviations="Time runs from 1 (noise) to 0 (data), so the velocity has the opposite sign. The time enters the flow "
    "through a small network instead of as it is. The actors see the critics after their step, and the targets average "
    "those; in the released code one step moves all, so both see the critics from before it. PyTorch-style "
    "initialisation.",
)
KIND = "offline"
PROTOCOL = Protocol(
    sparse=(1.0, -1.0), batch_size=256, updates=1_000_000, note="OGBench's tasks; on D4RL's 500,000 updates."
)
AGGREGATES = {"mean": jnp.mean, "min": jnp.min}


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(512, 512, 512, 512), help="widths of the hidden layers of all networks")
    n_critics: int = setting(default=2, help="number of critics")
    aggregate: str = setting(default="mean", help="of the target critics: mean, or min (Adroit, some AntMaze)")
    layer_norm: str = setting(default="every", help="LayerNorm in the critics: none, every or first_tanh")
    steps: int = setting(default=10, help="Euler steps of the flow")
    normalise_q: bool = setting(default=False, help="divide the value term by the mean |Q|; alpha then is 0.03 to 10")
    beer: float = _beer.coefficient()
    measure_features: bool = _beer.measured()


@pytree
class Hyper:
    actor_learning_rate: float = setting(default=3e-4, help="Adam step size of the flow and the one-step policy")
    critic_learning_rate: float = setting(default=3e-4, help="Adam step size of the critics")
    discount: float = setting(default=0.99, help="gamma")
    tau: float = setting(default=0.005, help="step of the target critics towards the online ones")
    alpha: float = setting(default=10.0, help="weight of the distillation, in units of value per squared action unit")


class State(NamedTuple):
    actor: _common.Trainable  # {"flow": ..., "one_step": ...}
    critic: _common.Trainable
    target_critic: PyTree


def make(config: Config, spec: Spec) -> Agent:
    if config.aggregate not in AGGREGATES:
        raise unknown("aggregate", config.aggregate, AGGREGATES)
    velocity = denoiser_mlp(spec, config.hidden, "gelu", embedding="linear")
    teacher = flow.matching(velocity, spec, config.steps)
    student = flow.one_step(spec, config.hidden)
    q = networks.q_network(spec, config.hidden, config.n_critics, activation="gelu", layer_norm=config.layer_norm)

    def init(key: Key, hyper: Hyper) -> State:
        flow_key, student_key, critic_key = jax.random.split(key, 3)
        actor = {"flow": teacher.init(flow_key), "one_step": student.init(student_key)}
        critic = q.init(critic_key)
        return State(
            _common.trainable(actor, adam(hyper.actor_learning_rate)),
            _common.trainable(critic, adam(hyper.critic_learning_rate)),
            _common.copy(critic),
        )

    def bootstrap(state: State, batch: Transition, hyper: Hyper, key: Key) -> tuple[Array, _beer.Following]:
        next_action = student.sample(state.actor.params["one_step"], batch.next_observation, key)
        next_q, features = q.apply(state.target_critic, batch.next_observation, next_action, features=True)
        next_value = AGGREGATES[config.aggregate](next_q, axis=0)
        target = losses.td_target(batch.reward, batch.discount, next_value, hyper.discount)
        return target, _beer.following(features, next_q, target, batch, hyper.discount)

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        next_key, flow_key, noise_key = jax.random.split(key, 3)
        target, following = bootstrap(state, batch, hyper, next_key)

        def critic_loss(params):
            values, features = q.apply(params, batch.observation, batch.action, features=True)
            loss = losses.ensemble_td_error(values, target).mean()
            metrics = {"critic_loss": loss, "q": values.mean(), "target": target.mean()}
            return _beer.regularise(config.beer, loss, metrics, params, features, following)

        critic, metrics = _common.descend(critic_loss, state.critic, adam(hyper.critic_learning_rate))
        noise = student.noise(batch.observation, noise_key)
        wanted = flow.integrate_noise(velocity, state.actor.params["flow"], batch.observation, noise, config.steps)

        def actor_loss(params):
            error, _ = teacher.loss(params["flow"], batch.observation, batch.action, flow_key)
            action = student.apply(params["one_step"], batch.observation, noise)
            values = q.apply(critic.params, batch.observation, jnp.clip(action, -1.0, 1.0)).mean(axis=0)
            scale = losses.adaptive_q_scale(values, 1.0) if config.normalise_q else 1.0
            loss = losses.fql_actor_loss(error, action, wanted, values, hyper.alpha, scale).mean()
            distance = losses.one_step_distillation_loss(action, wanted).mean()
            terms = {"flow_loss": error.mean(), "distillation_loss": distance, "q_policy": values.mean()}
            return loss, {"actor_loss": loss, **terms}

        actor, actor_metrics = _common.descend(actor_loss, state.actor, adam(hyper.actor_learning_rate))
        state = State(actor, critic, polyak(critic.params, state.target_critic, hyper.tau))
        return state, {**metrics, **actor_metrics}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        return student.sample(state.actor.params["one_step"], observation, key)

    return Agent(init, update, act, measure=_beer.measure(config.measure_features, q, bootstrap))

"""AWAC: advantage-weighted regression onto the data's actions, with critics of the learned policy.

In words. Critics: fit y = r + gamma d min_j Q'_j(s', a'), a' sampled from the policy. Actor: maximise the log-density
of the data's actions weighted by exp(A / temperature), cut at ``max_weight``, where A = min_j Q_j(s, a) - min_j
Q_j(s, a_pi) with one sampled action as the baseline. Order: critics, actor, targets.

Metrics: ``critic_loss`` sum over critics of the mean squared TD error; ``q`` mean value of data actions;
``actor_loss``; ``advantage`` mean of A; ``weight`` mean actor weight; with ``beer`` also ``beer_loss``, see ``_beer``.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _beer, _common
from jaxrl_reg.policies import gaussian
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, PyTree, Spec, Transition, pytree, setting

PAPER = Paper(
    title="AWAC: Accelerating Online Reinforcement Learning with Offline Datasets",
    authors="Nair, Gupta, Dalal, Levine",
    year=2020,
    url="https://arxiv.org/abs/2006.09359",
    deviations="Unnormalised weights with a cut, as in later implementations, instead of a softmax over the batch. The "
    "mean is a tanh, so that it stays in the range of actions, and the log standard deviation lies in [-5, 2]; in CORL "
    "the mean is free and the range [-20, 2]. lambda is 1/3, CORL's on MuJoCo; its default is 1.",
)
KIND = "offline"
OFFLINE_FRACTION = None  # when fine-tuned online the data stand in the replay, every row as likely, as released
PROTOCOL = Protocol(
    batch_size=1024,
    note="Its 25,000 updates on data precede learning online; comparisons on D4RL train for 1,000,000.",
)


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(256, 256, 256), help="widths of the hidden layers")
    n_critics: int = setting(default=2, help="number of critics; their minimum is used")
    max_weight: float = setting(default=100.0, help="largest weight of a row in the actor loss")
    beer: float = _beer.coefficient()
    measure_features: bool = _beer.measured()


@pytree
class Hyper:
    actor_learning_rate: float = setting(default=3e-4, help="Adam step size of the actor")
    critic_learning_rate: float = setting(default=3e-4, help="Adam step size of the critics")
    discount: float = setting(default=0.99, help="gamma")
    tau: float = setting(default=0.005, help="step of the target critics towards the online ones")
    temperature: float = setting(default=1 / 3, help="lambda: small follows the advantage, large clones the data")


class State(NamedTuple):
    actor: _common.Trainable
    critic: _common.Trainable
    target_critic: PyTree


def make(config: Config, spec: Spec) -> Agent:
    policy = gaussian.clipped(spec, config.hidden)
    q = networks.q_network(spec, config.hidden, config.n_critics)

    def init(key: Key, hyper: Hyper) -> State:
        actor_key, critic_key = jax.random.split(key)
        critic = q.init(critic_key)
        return State(
            _common.trainable(policy.init(actor_key), adam(hyper.actor_learning_rate)),
            _common.trainable(critic, adam(hyper.critic_learning_rate)),
            _common.copy(critic),
        )

    def sample(params: PyTree, observation: Array, key: Key) -> Array:
        return jnp.clip(policy.sample(params, observation, key)[0], -1.0, 1.0)

    def bootstrap(state: State, batch: Transition, hyper: Hyper, key: Key) -> tuple[Array, _beer.Following]:
        next_action = sample(state.actor.params, batch.next_observation, key)
        next_q, features = q.apply(state.target_critic, batch.next_observation, next_action, features=True)
        target = losses.clipped_double_q_target(batch.reward, batch.discount, next_q, hyper.discount)
        return target, _beer.following(features, next_q, target, batch, hyper.discount)

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        next_key, baseline_key = jax.random.split(key)
        target, following = bootstrap(state, batch, hyper, next_key)

        def critic_loss(params):
            values, features = q.apply(params, batch.observation, batch.action, features=True)
            loss = losses.ensemble_td_error(values, target).mean()
            metrics = {"critic_loss": loss, "q": values.mean()}
            return _beer.regularise(config.beer, loss, metrics, params, features, following)

        critic, critic_metrics = _common.descend(critic_loss, state.critic, adam(hyper.critic_learning_rate))

        baseline = sample(state.actor.params, batch.observation, baseline_key)
        both = q.apply(critic.params, jnp.stack([batch.observation] * 2), jnp.stack([batch.action, baseline]))
        of_data, of_policy = both.min(axis=0)
        advantage = of_data - of_policy
        weight = losses.awr_weight(advantage, 1.0 / hyper.temperature, config.max_weight)

        def actor_loss(params):
            log_prob = policy.log_prob(params, batch.observation, batch.action)
            loss = losses.weighted_log_prob_loss(log_prob, weight).mean()
            return loss, {"actor_loss": loss, "advantage": advantage.mean(), "weight": weight.mean()}

        actor, actor_metrics = _common.descend(actor_loss, state.actor, adam(hyper.actor_learning_rate))
        target_critic = polyak(critic.params, state.target_critic, hyper.tau)
        return State(actor, critic, target_critic), {**critic_metrics, **actor_metrics}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        if explore:
            return sample(state.actor.params, observation, key)
        return policy.mode(state.actor.params, observation)

    return Agent(init, update, act, measure=_beer.measure(config.measure_features, q, bootstrap))

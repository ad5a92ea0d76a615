"""CQL: critics that are low where the data has nothing to say.

In words. Critics: the TD error to y = r + gamma d min_j Q'_j(s', a'), a' sampled from the policy, no entropy; plus
``cql_coef`` times, per critic, the log-sum-exp of Q over sampled actions minus Q of the data's action. The samples
(``n_samples`` each) are uniform, from the policy at s, and from the policy at s' but valued at s; each is corrected by
its own log-density. Actor and temperature alpha as in SAC. All of them learn from the networks as they were before the
step. With ``target_gap`` the penalty is held at that gap by a Lagrange multiplier.

Metrics: ``critic_loss`` the whole loss; ``td_loss`` sum over critics of the mean squared TD error; ``cql_penalty`` mean
of the log-sum-exp term; ``q`` mean value of data actions; ``actor_loss``; ``entropy`` sampled, in nats; ``temperature``
alpha; ``lagrange`` the multiplier, 1 when it is not learned; with ``beer`` also ``beer_loss``, see ``_beer``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _beer, _common, _soft
from jaxrl_reg.policies import gaussian
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, PyTree, Spec, Transition, pytree, setting

PAPER = Paper(
    title="Conservative Q-Learning for Offline Reinforcement Learning",
    authors="Kumar, Zhou, Tucker, Levine",
    year=2020,
    url="https://arxiv.org/abs/2006.04779",
    deviations="CQL(H) with the importance-sampled estimate. No max-backup over several next actions and no initial "
    "phase of cloning. The log-sum-exp is not divided by the number of samples, as in released code. The log standard "
    "deviation comes from the network as it is; the released code scales and shifts it by two learnt numbers, which "
    "begin at 1 and -1. The temperature's loss is -alpha (log pi + target), there with log alpha in front: the same "
    "sign, so about the same steps of Adam. The policy's layers start orthogonal too, there as in PyTorch.",
)
KIND = "offline"
PROTOCOL = Protocol(sparse=(4.0, -2.0), batch_size=256, updates=1_000_000)


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(256, 256, 256), help="widths of the hidden layers")
    n_critics: int = setting(default=2, help="number of critics; targets take their minimum")
    n_samples: int = setting(default=10, help="sampled actions per row and proposal")
    target_entropy: float | None = setting(default=None, help="in nats; None: minus the number of action dimensions")
    target_gap: float | None = setting(
        default=None, help="Lagrange form: the penalty's target; None: a fixed coefficient"
    )
    beer: float = _beer.coefficient()
    measure_features: bool = _beer.measured()


@pytree
class Hyper:
    actor_learning_rate: float = setting(default=3e-5, help="Adam step size of the actor")
    critic_learning_rate: float = setting(
        default=3e-4, help="Adam step size of the critics and of the Lagrange multiplier"
    )
    temperature_learning_rate: float = setting(default=3e-5, help="Adam step size of the log temperature")
    discount: float = setting(default=0.99, help="gamma")
    tau: float = setting(default=0.005, help="step of the target critics towards the online ones")
    cql_coef: float = setting(default=5.0, help="weight of the penalty; later implementations use 10 on locomotion")


class State(NamedTuple):
    actor: _common.Trainable
    critic: _common.Trainable
    log_temperature: _common.Trainable
    log_lagrange: _common.Trainable | None
    target_critic: PyTree


Lift = Callable[[Array, Transition, Any], tuple[Array, Metrics]]


def make(config: Config, spec: Spec, lift: Lift | None = None) -> Agent:
    """Cal-QL gives a ``lift(values [N, K, B], batch, hyper) -> (values, metrics)``: what becomes of the values of the
    policy's actions in the penalty."""
    target_entropy = -spec.action_dim if config.target_entropy is None else config.target_entropy
    start: dict[str, Any] = {"init": "orthogonal", "final_scale": 0.01}
    policy = gaussian.squashed(spec, config.hidden, log_std_range=(-20.0, 2.0), **start)
    q = networks.q_network(spec, config.hidden, config.n_critics, **start)
    n = config.n_samples

    def init(key: Key, hyper: Hyper) -> State:
        actor_key, critic_key = jax.random.split(key)
        critic, critic_optimiser = q.init(critic_key), adam(hyper.critic_learning_rate)
        return State(
            _common.trainable(policy.init(actor_key), adam(hyper.actor_learning_rate)),
            _common.trainable(critic, critic_optimiser),
            _common.trainable(jnp.zeros(()), adam(hyper.temperature_learning_rate)),
            None if config.target_gap is None else _common.trainable(jnp.zeros(()), critic_optimiser),
            _common.copy(critic),
        )

    def bootstrap(
        state: State, batch: Transition, hyper: Hyper, key: Key, draws: int = 1
    ) -> tuple[tuple[Array, Array], Array, _beer.Following]:
        """The policy's ``draws`` actions at s' with their log-densities, and the target made of the first of them."""
        next_actions, next_log_probs = policy.sample(state.actor.params, batch.next_observation, key, (draws,))
        next_q, features = q.apply(state.target_critic, batch.next_observation, next_actions[0], features=True)
        target = losses.clipped_double_q_target(batch.reward, batch.discount, next_q, hyper.discount)
        following = _beer.following(features, next_q, target, batch, hyper.discount)
        return (next_actions, next_log_probs), target, following

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        uniform_key, here_key, next_key, actor_key = jax.random.split(key, 4)
        params, critic_optimiser = state.actor.params, adam(hyper.critic_learning_rate)
        temperature = jnp.exp(state.log_temperature.params)

        def value(action):
            return q.apply(state.critic.params, batch.observation, action).min(axis=0)

        actor_loss = _soft.actor_loss(policy, value, temperature, batch.observation, actor_key)
        actor, (log_prob, actor_metrics) = _common.descend(actor_loss, state.actor, adam(hyper.actor_learning_rate))
        log_temperature = _soft.temperature_step(
            state.log_temperature, log_prob, target_entropy, adam(hyper.temperature_learning_rate)
        )

        # One pass at s' serves the target (the first sample) and the penalty (the others).
        (next_actions, next_log_probs), target, following = bootstrap(state, batch, hyper, next_key, n + 1)

        actions, log_probs = policy.sample(params, batch.observation, here_key, (n,))
        uniform = jax.random.uniform(uniform_key, actions.shape, minval=-1.0, maxval=1.0)
        uniform_log_probs = jnp.full_like(log_probs, -spec.action_dim * math.log(2.0))
        log_probs = jnp.concatenate([uniform_log_probs, next_log_probs[1:], log_probs])
        actions = jnp.concatenate([batch.action[None], uniform, next_actions[1:], actions])
        observations = jnp.broadcast_to(batch.observation, (*actions.shape[:2], spec.observation_dim))
        lagrange, gap, log_lagrange = jnp.ones(()), config.target_gap or 0.0, state.log_lagrange
        if log_lagrange is not None:
            lagrange = losses.cql_lagrange_weight(log_lagrange.params)

        def critic_loss(params):
            # [N, 1 + 3 n, B], the data's action first
            values, features = q.apply(params, observations, actions, features=True)
            of_data, of_samples, own = values[:, 0], values[:, 1:], {}
            if lift is not None:
                of_policy, own = lift(of_samples[:, n:], batch, hyper)
                of_samples = jnp.concatenate([of_samples[:, :n], of_policy], axis=1)
            td_loss = losses.ensemble_td_error(of_data, target).mean()
            penalty = jax.vmap(losses.cql_penalty, (0, None, 0))(of_samples, log_probs, of_data)  # [N, B]
            loss = td_loss + lagrange * hyper.cql_coef * (penalty - gap).mean(axis=-1).sum()
            metrics = {"critic_loss": loss, "td_loss": td_loss, "cql_penalty": penalty.mean(), "q": of_data.mean()}
            metrics |= own
            loss, metrics = _beer.regularise(config.beer, loss, metrics, params, features[:, 0], following)
            return loss, (penalty, metrics)

        critic, (penalty, metrics) = _common.descend(critic_loss, state.critic, critic_optimiser)

        def lagrange_loss(log_weight):
            return losses.cql_lagrange_loss(log_weight, penalty, gap, hyper.cql_coef).mean(), {}

        if log_lagrange is not None:
            log_lagrange, _ = _common.descend(lagrange_loss, log_lagrange, critic_optimiser)

        state = State(
            actor, critic, log_temperature, log_lagrange, polyak(critic.params, state.target_critic, hyper.tau)
        )
        return state, {**actor_metrics, **metrics, "lagrange": lagrange}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        if explore:
            return policy.sample(state.actor.params, observation, key)[0]
        return policy.mode(state.actor.params, observation)

    return Agent(init, update, act, measure=_beer.measure(config.measure_features, q, bootstrap))

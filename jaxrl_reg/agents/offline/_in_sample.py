"""What IQL, XQL, SQL and EQL share: values and critics that only ever see the data's actions, and a weighted clone.

They differ in three functions: how V(s) is fitted to min_j Q'_j(s, a) over the data's actions, how the advantage
min_j Q'_j(s, a) - V(s) becomes the actor's weight, and how the critics' error is measured. The rest is here: critics
fit y = r + gamma d V(s'), the actor maximises the weighted log-density of the data's actions, Q' is the slowly moving
copy of the critics. Order: value, critics, targets, actor.

Metrics: ``value_loss``, ``critic_loss``, ``actor_loss``; ``v`` and ``q`` mean values on the batch; ``advantage`` mean
of Q' - V; ``weight`` mean actor weight; ``active`` fraction of rows with a weight above 0; with ``beer`` also
``beer_loss``, see ``_beer``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _beer, _common
from jaxrl_reg.policies import gaussian
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import Agent, Array, Key, Metrics, Network, PyTree, Spec, Transition, pytree, setting

DEVIATIONS = (
    "The advantage in the actor's weight uses V as it was before this step's update, which saves a forward pass; the "
    "released code uses V after it. PyTorch-style initialisation instead of orthogonal. LayerNorm with epsilon 1e-5, "
    "not 1e-6."
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of all."""

    hidden: tuple[int, ...] = setting(default=(256, 256), help="widths of the hidden layers")
    n_critics: int = setting(default=2, help="number of critics; their minimum is used")
    layer_norm: str = setting(
        default="before", help="LayerNorm in the value, not in the critics: none, every, before or first_tanh"
    )
    actor_dropout: float = setting(default=0.0, help="dropout in the actor; 0.1 for Kitchen and Adroit")
    max_weight: float = setting(default=100.0, help="largest weight of a row in the actor loss")
    decay_steps: int = setting(
        default=1_000_000, help="updates over which the actor's learning rate falls to 0; 0: constant"
    )
    beer: float = _beer.coefficient()
    measure_features: bool = _beer.measured()


@pytree
class Hyper:
    """Settings of all; each algorithm adds its own."""

    actor_learning_rate: float = setting(default=3e-4, help="Adam step size of the actor, before decay")
    critic_learning_rate: float = setting(default=3e-4, help="Adam step size of the critics")
    value_learning_rate: float = setting(default=3e-4, help="Adam step size of the value")
    discount: float = setting(default=0.99, help="gamma")
    tau: float = setting(default=0.005, help="step of the target critics towards the online ones")


class State(NamedTuple):
    """Parameters with their optimisers, and the slow copy of the critics."""

    actor: _common.Trainable
    critic: _common.Trainable
    value: _common.Trainable
    target_critic: PyTree


def following(
    q: Network, target_critic: PyTree, target: Array, batch: Transition, gamma: Array | float
) -> _beer.Following:
    """What BEER compares a row with: the data's own next action, so that the critics are asked about no other."""
    next_action = _common.present(batch.next_action, "beer", "next_action")
    next_q, features = q.apply(target_critic, batch.next_observation, next_action, features=True)
    return _beer.following(features, next_q, target, batch, gamma)


def measure(wanted: bool, q: Network, v: Network) -> Callable[..., Metrics] | None:
    """``_beer.measure`` for critics that bootstrap from ``v``."""

    def bootstrap(state: Any, batch: Transition, hyper: Any, key: Key) -> tuple[_beer.Following]:
        next_value = v.apply(state.value.params, batch.next_observation)
        target = losses.td_target(batch.reward, batch.discount, next_value, hyper.discount)
        return (following(q, state.target_critic, target, batch, hyper.discount),)

    return _beer.measure(wanted, q, bootstrap)


def learn_values(
    models: tuple[_common.Trainable, _common.Trainable, PyTree],
    q: Network,
    v: Network,
    batch: Transition,
    hyper: Any,
    value_loss: Callable[[Array, Array, Any], Array],
    td_error: Callable[[Array, Array, Any], Array] | None = None,
    beer: float = 0.0,
) -> tuple[tuple[_common.Trainable, _common.Trainable, PyTree], Array, Metrics]:
    """One step of ``models = (critic, value, target_critic)`` in the order value, critics, targets; see ``make``.

    Returns them with the advantage ``[B]`` min_j Q'_j(s, a) - V(s) as it was before the step, and the metrics.
    """
    critic, value, target_critic = models
    target_q = q.apply(target_critic, batch.observation, batch.action).min(axis=0)

    def regress(params):
        values = v.apply(params, batch.observation)
        loss, advantage = value_loss(target_q, values, hyper).mean(), target_q - values
        return loss, (advantage, {"value_loss": loss, "v": values.mean(), "advantage": advantage.mean()})

    value, (advantage, value_metrics) = _common.descend(regress, value, adam(hyper.value_learning_rate))
    next_value = v.apply(value.params, batch.next_observation)
    target = losses.td_target(batch.reward, batch.discount, next_value, hyper.discount)

    next_features = following(q, target_critic, target, batch, hyper.discount) if beer else None

    def critic_loss(params):
        values, features = q.apply(params, batch.observation, batch.action, features=True)
        errors = losses.ensemble_td_error(values, target) if td_error is None else td_error(values, target, hyper)
        metrics = {"critic_loss": errors.mean(), "q": values.mean()}
        return _beer.regularise(beer, errors.mean(), metrics, params, features, next_features)

    critic, critic_metrics = _common.descend(critic_loss, critic, adam(hyper.critic_learning_rate))
    target_critic = polyak(critic.params, target_critic, hyper.tau)
    return (critic, value, target_critic), advantage, {**value_metrics, **critic_metrics}


def make(
    config: Config,
    spec: Spec,
    value_loss: Callable[[Array, Array, Any], Array],
    weight: Callable[[Array, Any], Array],
    td_error: Callable[[Array, Array, Any], Array] | None = None,
    critic_layer_norm: str = "none",
) -> Agent:
    """An agent from three functions; their ``hyper`` is the algorithm's own, a ``Hyper`` with more fields.

    ``value_loss(target_q [B], v [B], hyper) -> [B]``; ``weight(advantage [B], hyper) -> [B]``, detached;
    ``td_error(q [N, B], target [B], hyper) -> [B]``, by default the squared error summed over critics.
    """
    policy = gaussian.clipped(spec, config.hidden, dropout=config.actor_dropout)
    q = networks.q_network(spec, config.hidden, config.n_critics, layer_norm=critic_layer_norm)
    v = networks.value_network(spec, config.hidden, layer_norm=config.layer_norm)

    def init(key: Key, hyper: Any) -> State:
        actor_key, critic_key, value_key = jax.random.split(key, 3)
        critic = q.init(critic_key)
        return State(
            _common.trainable(policy.init(actor_key), adam(hyper.actor_learning_rate)),
            _common.trainable(critic, adam(hyper.critic_learning_rate)),
            _common.trainable(v.init(value_key), adam(hyper.value_learning_rate)),
            _common.copy(critic),
        )

    def update(state: State, batch: Transition, hyper: Any, key: Key, step: Array) -> tuple[State, Metrics]:
        models = state.critic, state.value, state.target_critic
        models, advantage, metrics = learn_values(models, q, v, batch, hyper, value_loss, td_error, config.beer)
        weights = weight(advantage, hyper)
        metrics |= {"weight": weights.mean(), "active": (weights > 0).mean()}

        def actor_loss(params):
            dropout = {"key": key} if config.actor_dropout > 0 else {}
            log_prob = policy.log_prob(params, batch.observation, batch.action, **dropout)
            loss = losses.weighted_log_prob_loss(log_prob, weights).mean()
            return loss, {"actor_loss": loss}

        learning_rate = _common.cosine(hyper.actor_learning_rate, step, config.decay_steps)
        actor, actor_metrics = _common.descend(actor_loss, state.actor, adam(learning_rate))
        return State(actor, *models), {**metrics, **actor_metrics}

    def act(state: State, observation: Array, hyper: Any, key: Key, explore: bool) -> Array:
        if not explore:
            return policy.mode(state.actor.params, observation)
        return jnp.clip(policy.sample(state.actor.params, observation, key)[0], -1.0, 1.0)

    return Agent(init, update, act, measure=measure(config.measure_features, q, v))

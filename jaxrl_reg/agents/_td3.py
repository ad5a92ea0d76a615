"""What TD3, TD3+BC, ReBRAC, PRDC and A2PR share: two critics, and a deterministic actor pulled towards some action.

They differ in what pulls (``Pull``), ReBRAC in the critics' target too. Critics: all fit y = r + gamma d min_j Q'_j(s',
a'), with a' the target actor's action plus clipped noise. Actor, every ``policy_freq`` updates: minimise gate mean_dims
(pi(s) - target)^2 - alpha Q_1(s, pi(s)) / mean |Q_1|, the divisor held constant; without a pull, minus Q_1 alone.
Target networks move only with the actor. Order: critics, actor, targets.

Metrics: ``critic_loss`` sum over critics of the mean squared TD error; ``q``, ``target`` means over the batch; of the
latest actor update ``actor_loss``, ``q_policy`` (mean value of the policy's actions) and, with a pull, ``bc_loss``
(mean squared distance per dimension to what pulls); what ``_beer`` and ``_switches`` name, where they are on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _beer, _common, _critics, _plasticity, _resets, _switches
from jaxrl_reg.policies import deterministic
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import Agent, Array, Key, Metrics, Network, PyTree, Spec, Transition, pytree, setting

FIRST_STEP = "The first update, step 0, already moves the actor; the released code starts with the second."


@dataclasses.dataclass(frozen=True)
class Config(_switches.Switches):
    """Settings of all."""

    hidden: tuple[int, ...] = setting(default=(256, 256), help="widths of the hidden layers")
    n_critics: int = setting(default=2, help="number of critics; the target takes their minimum")
    critic_layer_norm: str = setting(default="none", help="LayerNorm in the critics: none, before, every or first_tanh")
    policy_freq: int = setting(default=2, help="critic updates per actor update")
    exploration_noise: float = setting(default=0.1, help="scale of the noise when the policy explores")
    beer: float = _beer.coefficient()
    measure_features: bool = _beer.measured()


@pytree
class Hyper:
    """Settings of all; each algorithm adds its own."""

    actor_learning_rate: float = setting(default=3e-4, help="Adam step size of the actor")
    critic_learning_rate: float = setting(default=3e-4, help="Adam step size of the critics")
    discount: float = setting(default=0.99, help="gamma")
    tau: float = setting(default=0.005, help="step of the target networks towards the online ones")
    target_noise: float = setting(default=0.2, help="scale of the noise on target actions")
    noise_clip: float = setting(default=0.5, help="largest noise on target actions")


class State(NamedTuple):
    """Parameters with their optimisers, and their slow copies."""

    actor: _common.Trainable
    critic: _common.Trainable
    target_actor: PyTree
    target_critic: PyTree
    actor_metrics: Metrics  # of the latest actor update, so that means over a segment are not diluted
    kept: _switches.Kept = _switches.Kept()


class Pull(NamedTuple):
    """One row of the table in ``losses.regularised_actor_loss``: what the actor is held to."""

    target: Array  # [B, A]
    gate: Array | float  # scalar or [B], the weight of the distance to it
    alpha: Array | float  # scalar, the weight of the normalised value
    metrics: Metrics = MappingProxyType({})  # type: ignore[assignment]  # one's own, named in core(..., metrics=)


Puller = Callable[[Transition, Array, Any], Pull]  # (batch, action [B, A] with its gradient, hyper)


class Core(NamedTuple):
    """The steps of an update, for algorithms that do something between them; ``make`` puts them together.

    ``critics`` gives the critics after their step, ``(next_action [B, A], target [B])`` and metrics; ``actor`` is the
    delayed step with a ``Puller`` or None; ``value`` ``[B]`` what the actor maximises.
    """

    init: Callable[[Key, Any], State]
    critics: Callable[[State, Transition, Any, Key], tuple[_common.Trainable, tuple[Array, Array], Metrics]]
    actor: Callable[..., tuple[State, Metrics]]
    value: Callable[[PyTree, Array, Array], Array]
    act: Callable[[State, Array, Any, Key, bool], Array]
    q: Network  # all critics: [N, B]
    measure: Callable[[State, Transition, Any, Key], Metrics] | None


def td_target(batch: Transition, next_q: Array, next_action: Array, hyper: Any) -> Array:
    """``r + gamma d min_j Q'_j``; ``next_q`` ``[N, B]`` at ``next_action`` ``[B, A]``. ReBRAC subtracts a penalty."""
    return losses.clipped_double_q_target(batch.reward, batch.discount, next_q, hyper.discount)


def core(
    config: Config,
    spec: Spec,
    *,
    target: Callable[[Transition, Array, Array, Any], Array] = td_target,
    pessimistic: bool = False,
    actor_layer_norm: str = "none",
    critic_hidden: tuple[int, ...] | None = None,  # where they differ
    metrics: tuple[str, ...] = (),  # names that the actor step reports more
    hold: tuple[_common.Penalty | None, _common.Transform | None] = (None, None),
) -> Core:
    """The steps of an algorithm of this family; the actor maximises the first critic, ``pessimistic``: the smallest.

    ``hold``: ``penalty`` and ``transform`` of ``td3.make``, the former of actions, for an actor without a pull.
    """
    actor_network = deterministic.make(spec, config.hidden, layer_norm=actor_layer_norm)
    q = _critics.critics(config, spec, critic_hidden or config.hidden)
    metrics = (*metrics, "policy_churn") if config.policy_churn else metrics
    penalty, transform = hold

    def init(key: Key, hyper: Any) -> State:
        actor, critic = (one.init(k) for one, k in zip((actor_network, q), jax.random.split(key), strict=True))
        kept = _plasticity.remembered(config, actor, critic)
        return State(
            _common.trainable(actor, _common.held(transform, hyper, adam(hyper.actor_learning_rate))),
            _common.trainable(critic, _plasticity.optimiser(config, hyper.critic_learning_rate, kept.start)),
            _common.copy(actor),
            _common.copy(critic),
            {name: jnp.zeros(()) for name in ("actor_loss", "q_policy", *(["penalty"] if penalty else []), *metrics)},
            kept,
        )

    def bootstrap(state: State, batch: Transition, hyper: Any, key: Key) -> tuple[Array, Array, _beer.Following]:
        next_action = actor_network.apply(state.target_actor, batch.next_observation)
        next_action = deterministic.smoothed(next_action, key, hyper.target_noise, hyper.noise_clip)
        next_q, features = q.apply(state.target_critic, batch.next_observation, next_action, features=True)
        y = target(batch, next_q, next_action, hyper)
        return next_action, y, _beer.following(features, next_q, y, batch, hyper.discount)

    def critics(state: State, batch: Transition, hyper: Any, key: Key):
        bootstrapped = bootstrap(state, batch, hyper, key)
        critic, metrics = _critics.critic_step(config, q, state, hyper.critic_learning_rate, batch, bootstrapped)
        return critic, bootstrapped[:2], {**metrics, "target": bootstrapped[1].mean()}

    def value(critic_params: PyTree, observation: Array, action: Array) -> Array:
        if pessimistic:
            return q.apply(critic_params, observation, action).min(axis=0)
        return q.apply(networks.members(critic_params, 1), observation, action)[0]  # the others are not even computed

    def actor(
        state: State, critic: _common.Trainable, batch: Transition, hyper: Any, step: Array | int, pull: Puller | None
    ) -> tuple[State, Metrics]:
        def actor_loss(params: PyTree) -> tuple[Array, Metrics]:
            action = actor_network.apply(params, batch.observation)
            values = value(critic.params, batch.observation, action)
            if pull is None:
                loss = -_plasticity.seen(config.policy_churn, values).mean()
                found = {"actor_loss": loss, "q_policy": values.mean()}
                held = 0.0 if penalty is None else penalty(action, batch.observation, hyper, step).mean()
                return held + loss, found if penalty is None else {**found, "penalty": held}
            target, gate, alpha, own = pull(batch, action, hyper)
            gate = jnp.broadcast_to(gate, values.shape)
            loss = losses.regularised_actor_loss(values, action, target, gate, alpha)
            loss = _plasticity.seen(config.policy_churn, loss).mean()
            distance = losses.behaviour_cloning_loss(action, target).mean()
            return loss, {"actor_loss": loss, "bc_loss": distance, "q_policy": values.mean(), **own}

        def delayed():
            optimiser = _common.held(transform, hyper, adam(hyper.actor_learning_rate))
            actor, actor_metrics = _common.descend(held, state.actor, optimiser)
            targets = polyak((actor.params, critic.params), (state.target_actor, state.target_critic), hyper.tau)
            return actor, *targets, actor_metrics, _plasticity.moved_on(config, kept, actor=state.actor.params)

        kept, distance = _plasticity.moved_on(config, state.kept, state.critic.params), losses.behaviour_cloning_loss
        held = _plasticity.holding(config, actor_loss, distance, actor_network.apply, batch.observation, state.kept)
        unchanged = state.actor, state.target_actor, state.target_critic, state.actor_metrics, kept
        actor, *others = _common.every(config.policy_freq, step, delayed, unchanged)
        return State(actor, critic, *others), others[2]

    def act(state: State, observation: Array, hyper: Any, key: Key, explore: bool) -> Array:
        action = actor_network.apply(state.actor.params, observation)
        return deterministic.explore(action, key, config.exploration_noise) if explore else action

    return Core(init, critics, actor, value, act, q, _beer.measure(config.measure_features, q, bootstrap))


def make(
    config: Config, spec: Spec, pull: Puller, metrics: tuple[str, ...] = (), sample: Callable | None = None, **options
) -> Agent:
    """An agent from what pulls its actor. ``metrics`` names those in ``Pull.metrics``; ``options`` go to ``core``."""
    steps = core(config, spec, metrics=("bc_loss", *metrics), **options)

    def update(state: State, batch: Transition, hyper: Any, key: Key, step: Array | int) -> tuple[State, Metrics]:
        critic, _, critic_metrics = steps.critics(state, batch, hyper, key)
        state, actor_metrics = steps.actor(state, critic, batch, hyper, step, pull)
        return state, {**critic_metrics, **actor_metrics}

    cycle, least = _common.cycle(update, config.policy_freq), _common.least_value(steps.q)
    agent = Agent(steps.init, update, steps.act, sample, measure=steps.measure, cycle=cycle, q=least)
    return _resets.switched(config, agent, steps.q)

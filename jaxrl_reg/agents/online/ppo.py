"""Proximal Policy Optimisation: several epochs on each trajectory, the policy held near the one that collected it.

In words. On a trajectory ``[T, E]``: values, log-densities and advantages (GAE; a time-out bootstraps from the
observation before the reset) are computed once, from parameters and statistics that acted. Then ``epochs`` passes over
shuffled minibatches, each one Adam step of the actor on the clipped surrogate with standardised advantages, minus
``entropy_coef`` times the entropy, and one of the value on the squared error. Last, the observation statistics take in
the trajectory. Where the world's actions are discrete the policy is categorical and its entropy exact; elsewhere it is
a tanh-normal, whose entropy one sample estimates.

Metrics, means over minibatches: ``actor_loss``, ``value_loss``, ``entropy`` (nats), ``approximate_kl`` of the acting
and the trained policy (nats), ``clipped`` share of rows outside the clip range, ``v`` mean value; what ``_smoothness``
and ``_switches`` name, where on: the value is their critic, an update a minibatch's, or a trajectory's for periods.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _beer, _common, _plasticity, _resets, _switches
from jaxrl_reg.agents.anchoring import divergence
from jaxrl_reg.agents.online import _smoothness, _surrogate
from jaxrl_reg.agents.online._statistics import Statistics, fresh, merge, standardised
from jaxrl_reg.errors import UserError
from jaxrl_reg.policies import categorical, gaussian
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, PyTree, Spec, Transition, pytree, setting

PAPER = Paper(
    title="Proximal Policy Optimization Algorithms",
    authors="Schulman, Wolski, Dhariwal, Radford, Klimov",
    year=2017,
    url="https://arxiv.org/abs/1707.06347",
    deviations="A tanh-squashed normal whose standard deviation depends on the observation; running observation "
    "normalisation and gradient clipping, as is common; no learning-rate decay; actor and value have an optimiser each "
    "instead of one weighted loss, so that the scale of rewards cannot drown the actor.",
)
KIND = "on_policy"
METRICS = ("actor_loss", "entropy", "clipped", "approximate_kl", "value_loss", "v")
PROTOCOL = Protocol(note="Learns in the environment and standardises observations itself.")


@dataclasses.dataclass(frozen=True)
class Config(_switches.Switches):
    hidden: tuple[int, ...] = setting(default=(64, 64), help="widths of the hidden layers of actor and value")
    activation: str = setting(default="tanh", help="nonlinearity of the hidden layers; silu where returns are large")
    layer_norm: str = setting(default="none", help="LayerNorm in actor and value: none, before, every or first_tanh")
    epochs: int = setting(default=10, help="passes over each trajectory")
    minibatches: int = setting(default=16, help="parts of each pass; must divide the rows of a trajectory")
    clip_value: bool = setting(default=False, help="hold the value within `clip` of its old prediction as well")
    normalise: bool = setting(default=True, help="standardise observations with running statistics")
    measure_features: bool = _beer.measured()
    smoothness: float = _smoothness.coefficient()
    smoothness_epsilon: float = _smoothness.epsilon()


@pytree
class Hyper:
    actor_learning_rate: float = setting(default=3e-4, help="Adam step size of the actor")
    value_learning_rate: float = setting(default=1e-3, help="Adam step size of the value")
    discount: float = setting(default=0.99, help="gamma")
    gae_lambda: float = setting(default=0.95, help="0: one-step advantages, 1: Monte Carlo")
    clip: float = setting(default=0.2, help="how far the density ratio may leave 1")
    entropy_coef: float = setting(
        default=0.0, help="weight of the entropy bonus; a run where actions are discrete takes 0.01"
    )
    max_grad_norm: float = setting(default=0.5, help="largest norm of the actor's gradient, and of the value's")


def defaults(spec: Spec) -> dict[str, float]:
    """What suits a world better than ``Hyper``: among few actions, without a bonus, a choice is soon made for good."""
    return {"entropy_coef": 0.01} if spec.discrete else {}


class State(NamedTuple):
    actor: _common.Trainable
    value: _common.Trainable
    statistics: Statistics
    kept: _switches.Kept = _switches.Kept()


def actor_of(config: Config, spec: Spec) -> Any:
    """The policy that ``make`` trains, as a ``policies.Policy``."""
    make_policy = categorical.coded if spec.discrete else gaussian.squashed
    return make_policy(spec, config.hidden, final_scale=0.01, **_options(config))


def _options(config: Config) -> dict[str, Any]:  # those of networks.mlp that actor and value share
    return {"activation": config.activation, "init": "orthogonal", "layer_norm": config.layer_norm}


def make(
    config: Config, spec: Spec, penalty: _common.Penalty | None = None, transform: _common.Transform | None = None
) -> Agent:
    """Proximal policy optimisation; ``penalty(distribution, observation [B, O], hyper, step) -> [B]`` joins the loss.

    ``distribution`` is the actor's ``(mean, log_std)`` before the tanh, or its logits ``[B, A]`` where actions are
    discrete; ``observation`` as it came. Fine-tuning that keeps what a policy knew (VPT) puts a divergence from it
    here: ``hyper.anchor * hyper.decay**step * losses.gaussian_kl(*prior(observation), *distribution)``. ``transform``,
    of optax or ``hyper ->`` one, comes between the actor's clipped gradient and Adam, as ``lambda hyper:
    anchored(hyper.start, hyper.anchor)``. Both take what they need from a ``Hyper`` of one's own.
    """
    policy, standardise = actor_of(config, spec), functools.partial(standardised, config)
    _switches.check(config, "ppo", refused=("dr3",))
    options = _plasticity.body(config, feature_norm=config.critic_feature_norm, final_scale=1.0, **_options(config))
    value = _plasticity.network(config, networks.value_network(spec, config.hidden, **options))
    _smoothness.check(config)
    held = [name for name, there in (("penalty", penalty), ("smoothness", config.smoothness)) if there]
    reported = (*METRICS, *held, *_switches.reported(config))

    def optimisers(hyper: Hyper, start: PyTree) -> list[optax.GradientTransformation]:
        of_actor = adam(hyper.actor_learning_rate, eps=1e-5)
        of_value = _plasticity.optimiser(config, hyper.value_learning_rate, start, eps=1e-5)
        clip = optax.clip_by_global_norm(hyper.max_grad_norm)
        return [optax.chain(clip, one) for one in (_common.held(transform, hyper, of_actor), of_value)]

    def init(key: Key, hyper: Hyper) -> State:
        params = [network.init(key) for network, key in zip((policy, value), jax.random.split(key), strict=True)]
        kept = _plasticity.remembered(config, *params)
        models = map(_common.trainable, params, optimisers(hyper, kept.start))
        return State(*models, fresh(spec.observation_dim), kept)

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        rows, shape = batch.reward.size, batch.reward.shape
        if len(shape) != 2 or batch.last is None or rows % config.minibatches:
            raise UserError(f"ppo needs trajectories [T, E] with minibatches={config.minibatches} parts, got {shape}")
        observation, next_observation = standardise(state.statistics, (batch.observation, batch.next_observation))
        values, next_values = (value.apply(state.value.params, x) for x in (observation, next_observation))
        advantage = losses.generalised_advantage_estimation(
            batch.reward, values, next_values, batch.discount, batch.last, hyper.discount, hyper.gae_lambda
        )
        log_prob = policy.log_prob(state.actor.params, observation, batch.action)
        # One table, so that a minibatch is one gather; what a penalty does not look at is not in it.
        columns = (observation, batch.action, log_prob[..., None], values[..., None], advantage[..., None])
        columns = columns if penalty is None else (*columns, batch.observation)
        ends = np.cumsum([x.shape[-1] for x in columns])
        table = jnp.concatenate(columns, axis=-1).reshape(rows, -1)

        def minibatch(models, xs):
            (index, key), (*trained, kept) = xs, models
            observation, action, *numbers = jnp.split(table[index], ends[:-1], axis=-1)
            old_log_prob, old_value, advantage = (x[:, 0] for x in numbers[:3])
            target = advantage + old_value
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)

            def actor_loss(params):
                rows = observation, action, old_log_prob, advantage
                distribution, loss, metrics = _surrogate.clipped(config, policy, params, rows, hyper, key)
                raw = None if penalty is None else numbers[3]
                loss, metrics = _common.penalised(penalty, (loss, metrics), distribution, raw, hyper, step)
                if config.smoothness:
                    loss, metrics["smoothness"] = _smoothness.held(config, spec, policy, params, observation, key, loss)
                return loss, metrics

            def value_loss(params):
                v, features = value.apply(params, observation, features=True)
                loss = losses.clipped_value_loss(v, old_value, target, hyper.clip if config.clip_value else jnp.inf)
                loss = _plasticity.seen(config.churn, loss).mean()
                found = loss, {"value_loss": loss, "v": v.mean()}
                return _plasticity.regularise(config, value, found, params, (v, features), (observation,), None, kept)

            steady = _plasticity.holding(config, actor_loss, divergence, policy.apply, observation, kept)
            losses_of = zip((steady, value_loss), trained, optimisers(hyper, kept.start), strict=True)
            (actor, metrics), (critic, more) = (_common.descend(*one) for one in losses_of)
            found, before = {**metrics, **more}, (one.params for one in reversed(trained))
            models = actor, _plasticity.stepped(config, critic), _plasticity.moved_on(config, kept, *before)
            return models, jnp.stack([found[name] for name in reported])  # one array is one write

        def epoch(models, key):
            order_key, part_key = jax.random.split(key)
            # One sort where jax.random.permutation makes two; rows that draw the same 32 bits keep their order.
            order = jnp.argsort(jax.random.bits(order_key, (rows,))).reshape(config.minibatches, -1)
            return jax.lax.scan(minibatch, models, (order, jax.random.split(part_key, config.minibatches)))

        models, keys = (state.actor, state.value, state.kept), jax.random.split(key, config.epochs)
        (actor, critic, kept), found = jax.lax.scan(epoch, models, keys)
        seen = merge(state.statistics, batch.observation.reshape(rows, -1))
        return State(actor, critic, seen, kept), dict(zip(reported, found.mean(axis=(0, 1)), strict=True))

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        observation, params = standardise(state.statistics, observation), state.actor.params
        return policy.sample(params, observation, key)[0] if explore else policy.mode(params, observation)

    def distribution(state: State, params: PyTree, observation: Array) -> Any:
        return policy.apply(params, standardise(state.statistics, observation))

    def expected(state: State, observation: Array) -> Array:
        return value.apply(state.value.params, standardise(state.statistics, observation))

    measure = _beer.measure_value(config.measure_features, value, standardise)
    agent = Agent(init, update, act, measure=measure, kind=KIND, distribution=distribution, value=expected)
    return _resets.switched(config, agent, value, lambda s, rows: (standardise(s.statistics, rows.observation),))

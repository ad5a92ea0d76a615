"""Behaviour cloning: supervised learning of the data's actions.

In words: fit pi(s) to a. ``deterministic``: the mean squared error between tanh(f(s)) and a, averaged over action
dimensions. ``gaussian``: minus the log-density of a under a normal with mean tanh(f(s)) and one standard deviation per
dimension for all states.

With ``robust`` and ``groups`` the mean over rows becomes the worst mean over groups of them whose shares are near those
of the data: for demonstrations of several sources, some of them rare. In our experiment the box serves the worst group
better than plain cloning does, at a small price for the mean; weighting all groups alike (``q`` uniform) serves it
better still, at a price ten times as large. Which group a row is of stands in ``extras["group"]``; see ``_robust``.

Metrics: ``actor_loss`` the loss above; ``action_error`` mean squared distance, summed over dimensions, of the mode to
the data's action; with ``robust`` also ``worst_group_loss``, the largest mean loss of a group, and ``largest_weight``,
of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.imitation import _robust
from jaxrl_reg.errors import unknown
from jaxrl_reg.policies import deterministic, gaussian
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, Spec, Transition, pytree, setting

PAPER = Paper(
    title="ALVINN: An Autonomous Land Vehicle in a Neural Network",
    authors="Pomerleau",
    year=1988,
    url="https://proceedings.neurips.cc/paper/1988/hash/812b4ba287f5ee0bc9d43bbf5bbe87fb-Abstract.html",
    deviations="The regression or likelihood form that offline-RL papers use as their baseline, on continuous actions.",
)
KIND = "offline"
PROTOCOL = Protocol(
    batch_size=256,
    updates=1_000_000,
    rewards=False,
    note="As the baseline of TD3+BC, whose paper leaves its observations as they are.",
)
POLICIES = ("deterministic", "gaussian")


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(256, 256), help="widths of the hidden layers")
    policy: str = setting(default="deterministic", help="deterministic or gaussian")
    exploration_noise: float = setting(
        default=0.1, help="scale of the noise of a deterministic policy when it explores"
    )
    robust: str = setting(
        default="none", help="none, box, divergence or group_dro: clone for the worst group of rows near the data's mix"
    )
    groups: int = setting(default=0, help="of robust: how many groups extras['group'] of the data numbers")
    robust_strength: float = setting(
        default=0.5, help="of robust: rho of box (0 to 2), 1 / temperature of divergence, 50 step sizes of group_dro"
    )


@pytree
class Hyper:
    learning_rate: float = setting(default=3e-4, help="Adam step size")


class State(NamedTuple):
    actor: _common.Trainable
    groups: _robust.Following | tuple[()] = ()  # with ``robust``


def make(config: Config, spec: Spec, weight: Callable[[Transition, Any], Array] | None = None) -> Agent:
    """Behaviour cloning; ``weight(batch, hyper) -> [B]`` scales rows, and the loss is divided by the weights' sum.

    Raises ``UserError`` for an unknown ``config.policy`` or ``config.robust``, and for the latter without groups.
    """
    if config.policy not in POLICIES:
        raise unknown("policy", config.policy, POLICIES)
    _robust.check(config.robust, config.groups, config.robust_strength)
    robust = config.robust != "none"
    stochastic = config.policy == "gaussian"
    policy: Any = gaussian.clipped(spec, config.hidden) if stochastic else deterministic.make(spec, config.hidden)

    def init(key: Key, hyper: Hyper) -> State:
        known = _robust.start(config.groups) if robust else ()
        return State(_common.trainable(policy.init(key), adam(hyper.learning_rate)), known)

    def mode(params, observation: Array) -> Array:
        return policy.mode(params, observation) if stochastic else policy.apply(params, observation)

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        weights = jnp.ones_like(batch.reward) if weight is None else weight(batch, hyper)
        # Every weight may be zero; then nothing is learnt, and nothing is divided by zero.
        weights = weights / jnp.maximum(weights.sum(), 1e-8)

        def loss(params):
            if stochastic:
                error = losses.behaviour_cloning_nll(policy.log_prob(params, batch.observation, batch.action))
            else:
                error = losses.behaviour_cloning_loss(policy.apply(params, batch.observation), batch.action)
            known, more, scale = (), {}, 1.0
            if robust:
                known, scale, more = _robust.follow(state.groups, error, batch, config.robust, config.robust_strength)
            value = jnp.sum(scale * weights * error)
            distance = jnp.square(mode(params, batch.observation) - batch.action).sum(axis=-1)
            return value, (known, {"actor_loss": value, "action_error": jnp.sum(weights * distance), **more})

        actor, (known, metrics) = _common.descend(loss, state.actor, adam(hyper.learning_rate))
        return State(actor, known), metrics

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        action = mode(state.actor.params, observation)
        if not explore:
            return action
        if stochastic:
            return jnp.clip(policy.sample(state.actor.params, observation, key)[0], -1.0, 1.0)
        return deterministic.explore(action, key, config.exploration_noise)

    prepare = (lambda data: _robust.checked(data, config.groups)) if robust else None
    return Agent(init, update, act, prepare=prepare)

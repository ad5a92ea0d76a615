"""Occupancy-regularised policy optimisation (ORPO): a proxy reward is trusted only where a reference policy has been.

In words. A logistic discriminator learns to tell rows of the trajectory from as many rows of the reference's data set;
at its optimum its score ``d`` is the log of the ratio of the two occupancies. PPO is then trained on the reward minus
``coefficient`` times the derivative of a divergence by the occupancy: for ``sqrt_chi2`` ``(e^d - 1) / sqrt(X)``, for
``chi2`` ``e^d - 1``, for ``kl`` d, for ``tv`` the sign of d. ``measure`` says what rows are: states and actions, states
alone, or actions given the state, which is the usual regulariser and does not see that a state is a new one: there
``d = log pi(a|s) - log pi_0(a|s)``, with ``pi_0`` cloned from the data before training. ``penalise="loss"`` puts the
divergence over actions into PPO's loss in closed form instead, as the released baselines do; there the advantages are
standardised, and its coefficient means another thing in another world.

The coefficient is in units of the reward's standard deviation over the reference's rows. A bound on the true reward
(``losses.true_gain_bound``) asks for ``sqrt(1 - r^2)``, with ``r`` the correlation of proxy and truth there.

Metrics: those of PPO; ``discriminator_loss`` the sum of both means (nats; 2 log 2 = 1.39 where it sees no difference);
``occupancy_divergence`` the estimate, over actions for that measure; ``occupancy_penalty`` the mean that was taken off
a reward; ``held`` share of rows whose ``d`` exceeds ``log_clip``.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.online import _reference, ppo
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.losses.occupancy import DIVERGENCES
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import (
    Agent,
    Array,
    Dataset,
    Key,
    Metrics,
    Paper,
    Protocol,
    Spec,
    Transition,
    pytree,
    setting,
)

PAPER = Paper(
    title="Correlated Proxies: A New Definition and Improved Mitigation for Reward Hacking",
    authors="Laidlaw, Singhal, Dragan",
    year=2025,
    url="https://arxiv.org/abs/2403.03185",
    deviations="Called ORPO there, as a preference loss is called too. All penalties, also those over actions, go into "
    "the reward by default, in units of the proxy's spread, so that one grid of coefficients serves all; scores are "
    "held before they are exponentiated, not the reward afterwards; rows of the reference come from a data set instead "
    "of half of the workers; PPO is the one here; no Wasserstein distance.",
)
KIND = "on_policy"
HELD_TO = "medium"  # the data set that it is held to where none is named
PROTOCOL = Protocol(note="Learns in the environment, held to a data set of a reference policy.")
MEASURES = ("state_action", "state", "action")
PENALISE = ("reward", "loss")


@dataclasses.dataclass(frozen=True)
class Config(ppo.Config):
    divergence: str = setting(default="sqrt_chi2", help="sqrt_chi2, chi2, kl or tv")
    measure: str = setting(default="state_action", help="over what: state_action, state or action")
    penalise: str = setting(default="reward", help="reward, or loss: over actions, in closed form, as released")
    discriminator_hidden: tuple[int, ...] = setting(default=(256, 256), help="widths of the discriminator")
    discriminator_steps: int = setting(default=16, help="Adam steps of the discriminator per trajectory")
    discriminator_batch: int = setting(default=256, help="rows of each sort in such a step")
    clone_steps: int = setting(default=2_000, help="Adam steps that clone the reference, for the measure action")


@pytree
class Hyper(ppo.Hyper):
    coefficient: float = setting(default=0.5, help="of the divergence, in spreads of the reward under the reference")
    discriminator_learning_rate: float = setting(default=1e-3, help="Adam step size of the discriminator")
    log_clip: float = setting(default=8.0, help="largest log-ratio that is exponentiated")


defaults = ppo.defaults


class State(NamedTuple):
    ppo: ppo.State
    discriminator: _common.Trainable
    reference: _common.Trainable | None  # the cloned policy, for the measure action


def _check(config: Config) -> None:
    for name, known in (("divergence", DIVERGENCES), ("measure", MEASURES), ("penalise", PENALISE)):
        if getattr(config, name) not in known:
            raise unknown(name, getattr(config, name), known)
    if config.penalise == "loss" and (config.measure != "action" or config.divergence == "tv"):
        raise UserError(
            "occupancy_reg: penalise=loss has closed forms of kl, chi2 and sqrt_chi2 over actions only; add --set "
            "measure=action, or leave the penalty in the reward"
        )


def make(config: Config, spec: Spec) -> Agent:
    """PPO on a reward from which leaving a reference is taken off; ``Agent.beside`` takes rows of its data set.

    Raises ``UserError`` for an unknown divergence, measure or way to penalise, and for a loss that is not over actions.
    """
    _check(config)
    actor, over_actions = ppo.actor_of(config, spec), config.measure == "action"
    plain, telling = ppo.make(config, spec), _reference.discriminator(config, spec)

    def init(key: Key, hyper: Hyper) -> State:
        ppo_key, key, clone_key = jax.random.split(key, 3)
        discriminator = _common.trainable(telling.init(key), adam(hyper.discriminator_learning_rate))
        clone = _common.trainable(actor.init(clone_key), adam(_reference.CLONE_RATE)) if over_actions else None
        return State(plain.init(ppo_key, hyper), discriminator, clone)

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        if "reference/observation" not in batch.extras:
            raise UserError("occupancy_reg is held to a data set; give the run one (--reference, or data=)")
        discriminator_key, ppo_key = jax.random.split(key)
        own, found = _reference.rows_of(batch.observation, batch.action), jnp.float32(0.0)
        discriminator = state.discriminator
        if over_actions:
            seen = ppo.standardised(config, state.ppo.statistics, own[0])
            d = actor.log_prob(state.ppo.actor.params, seen, own[1])
            d = d - actor.log_prob(state.reference.params, _reference.seen(own[0], batch.extras), own[1])
        else:
            discriminator, found = telling.learn(discriminator, own, batch, hyper, discriminator_key)
            d = telling.score(discriminator.params, own, batch.extras)
        weight = hyper.coefficient * batch.extras["reference/scale"]
        taken = weight * losses.occupancy_penalty(d, config.divergence, log_clip=hyper.log_clip)
        metrics = {
            "discriminator_loss": found,
            "occupancy_divergence": losses.occupancy_divergence(d, config.divergence, log_clip=hyper.log_clip),
            "occupancy_penalty": taken.mean(),
            "held": (d > hyper.log_clip).mean(),
        }
        learner = plain
        if config.penalise == "loss":
            clone = state.reference.params
            learner = _reference.divergent_loss(config, spec, config.divergence, clone, weight, batch.extras)
        else:
            batch = dataclasses.replace(batch, reward=batch.reward - taken.reshape(batch.reward.shape))
        own_state, own_metrics = learner.update(state.ppo, batch, hyper, ppo_key, step)
        return State(own_state, discriminator, state.reference), {**own_metrics, **metrics}

    def begin(state: State, data: Dataset, segment: Array) -> State:
        """The reference's policy by maximum likelihood, before the first update."""

        def clone() -> _common.Trainable:
            return _reference.cloned(actor, spec, data, state.reference, config.clone_steps)

        return state._replace(reference=jax.lax.cond(segment == 0, clone, lambda: state.reference))

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        return plain.act(state.ppo, observation, hyper, key, explore)

    of_value = plain.measure

    def measure(state: State, batch: Transition, hyper: Hyper, key: Key) -> Metrics:
        assert of_value is not None
        return of_value(state.ppo, batch, hyper, key)

    agent = Agent(init, update, act, kind=KIND, beside=_reference.beside, begin=begin if over_actions else None)
    return agent._replace(measure=None if of_value is None else measure)

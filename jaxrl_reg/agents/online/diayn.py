"""Diversity is All You Need: soft actor-critic over skills that can be told apart by the states they visit.

In words. The last ``skills`` entries of an observation say which skill is on (one-hot, constant over an episode, drawn
by ``envs.with_skills``); the rest is the state. A discriminator q learns to name the skill from the next state. The
reward of a transition is log q(z|s') - log p(z) with p uniform: above 0 where the state gives the skill away better
than chance. SAC, which sees the skill, maximises it together with the policy's entropy. Rewards of the environment are
never looked at. Order: rewards, discriminator, then SAC's own update.

Metrics: SAC's, and ``discriminator_loss``, cross-entropy in nats; ``skill_accuracy``, how often q guesses right.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import networks
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.online import sac
from jaxrl_reg.errors import UserError
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, Spec, Transition, pytree, setting

PAPER = Paper(
    title="Diversity is All You Need: Learning Skills without a Reward Function",
    authors="Eysenbach, Gupta, Ibarz, Levine",
    year=2018,
    url="https://arxiv.org/abs/1802.06070",
    deviations="The temperature is found as in SAC instead of being fixed. Rewards are computed on the batch, by the "
    "discriminator of the moment, and for the state that was reached.",
)
KIND = "off_policy"
PROTOCOL = Protocol(rewards=False, note="Learns in the environment.")


@dataclasses.dataclass(frozen=True)
class Config(sac.Config):
    """SAC's, and the number of skills."""

    skills: int = setting(
        default=2, help="how many entries at the end of the observation are the skill; as in envs.with_skills"
    )


@pytree
class Hyper(sac.Hyper):
    """SAC's, and the discriminator's."""

    discriminator_learning_rate: float = setting(default=3e-4, help="Adam step size of the discriminator")


class State(NamedTuple):
    base: sac.State
    discriminator: _common.Trainable

    @property
    def actor(self) -> _common.Trainable:
        return self.base.actor


def make(config: Config, spec: Spec) -> Agent:
    state_dim = spec.observation_dim - config.skills
    if config.skills < 2 or state_dim < 1:
        raise UserError(
            f"diayn: skills={config.skills} of {spec.observation_dim} observations; there must be at least 2, and a "
            "state beside them: envs.with_skills(env, skills)"
        )
    base = sac.make(config, spec)
    discriminator = networks.mlp((state_dim, *config.hidden, config.skills))

    def init(key: Key, hyper: Hyper) -> State:
        base_key, discriminator_key = jax.random.split(key)
        params = discriminator.init(discriminator_key)
        return State(base.init(base_key, hyper), _common.trainable(params, adam(hyper.discriminator_learning_rate)))

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        reached = batch.next_observation[..., :state_dim]
        skill = batch.observation[..., state_dim:].argmax(axis=-1)

        def discriminator_loss(params):
            log_q = jax.nn.log_softmax(discriminator.apply(params, reached))
            chosen = jnp.take_along_axis(log_q, skill[..., None], axis=-1)[..., 0]
            return -chosen.mean(), (chosen, (log_q.argmax(axis=-1) == skill).mean())

        model, (log_q, accuracy) = _common.descend(
            discriminator_loss, state.discriminator, adam(hyper.discriminator_learning_rate)
        )
        reward = log_q + math.log(config.skills)
        inner, metrics = base.update(state.base, dataclasses.replace(batch, reward=reward), hyper, key, step)
        return State(inner, model), {**metrics, "discriminator_loss": -log_q.mean(), "skill_accuracy": accuracy}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        return base.act(state.base, observation, hyper, key, explore)

    return Agent(init, update, act, kind=KIND)

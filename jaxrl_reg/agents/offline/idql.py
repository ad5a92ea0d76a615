"""IDQL: IQL's critics, a diffusion policy that only clones, and a choice among its samples when acting.

In words. Value and critics: as in IQL, they never ask about an action that is not in the data. Actor: minimise the
denoising error of the data's action; with ``inverse_temperature`` > 0 rows are weighed by exp(inverse_temperature
(min_j Q'_j(s, a) - V(s))), cut at ``max_weight``. The actor that acts is a slow average. Acting: ``candidates``
samples, of which the one of the largest min_j Q'_j is taken; when exploring, one is drawn in proportion to
|expectile - 1[Q' < V]|, the implicit policy of the expectile.

Metrics: ``value_loss``, ``critic_loss``, ``v``, ``q`` and ``advantage`` as in IQL; ``actor_loss`` the weighted
denoising error; ``weight`` mean actor weight; with ``beer`` also ``beer_loss``, see ``_beer``.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import optax

from jaxrl_reg import generative, losses, networks
from jaxrl_reg.agents import _beer, _common
from jaxrl_reg.agents.offline import _in_sample
from jaxrl_reg.networks.denoisers import denoiser_resnet
from jaxrl_reg.policies import diffusion
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import (
    Agent,
    Array,
    Key,
    Metrics,
    Network,
    Paper,
    Protocol,
    PyTree,
    Spec,
    Transition,
    pytree,
    setting,
)

PAPER = Paper(
    title="IDQL: Implicit Q-Learning as an Actor-Critic Method with Diffusion Policies",
    authors="Hansen-Estruch, Kostrikov, Janner, Kuba, Levine",
    year=2023,
    url="https://arxiv.org/abs/2304.10573",
    deviations="The denoising error is a mean over action dimensions, the released code's a sum; Adam hardly minds. "
    "The actor learns after value and critics, with the advantage from before them; in the released code before them. "
    "The network sees the steps as 1 to T, not 0 to T - 1. Their embedding has 128 Fourier features and layers of 256 "
    "and 128, the released one 64 and layers of 128 and 128. LayerNorm with epsilon 1e-5, not 1e-6. PyTorch-style "
    "initialisation.",
)
KIND = "offline"
PROTOCOL = Protocol(
    reward_scale="returns",
    sparse=(1.0, -1.0),
    batch_size=512,
    updates=3_000_000,
    note="Rewards as in IQL; its critics stop earlier than its actor's 3,000,000 updates.",
)


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(256, 256), help="widths of the hidden layers of critics and value")
    n_critics: int = setting(default=2, help="number of critics; their minimum is used")
    actor_hidden: int = setting(default=256, help="width of the actor's residual blocks; a job's --hidden sets it too")
    blocks: int = setting(default=3, help="residual blocks of the actor", small=1)
    time_width: int = setting(default=128, help="width of the noise level's embedding in the actor", small=8)
    actor_dropout: float = setting(default=0.1, help="dropout in the actor")
    steps: int = setting(default=5, help="denoising steps")
    candidates: int = setting(default=64, help="samples among which the critics choose when acting; 16 to 256", small=4)
    max_weight: float = setting(default=100.0, help="largest weight of a row in the actor loss")
    decay_steps: int = setting(
        default=3_000_000, help="updates over which the actor's learning rate falls to 0; 0: constant"
    )
    beer: float = _beer.coefficient()
    measure_features: bool = _beer.measured()


@pytree
class Hyper:
    actor_learning_rate: float = setting(default=3e-4, help="AdamW step size of the actor, before decay")
    critic_learning_rate: float = setting(default=3e-4, help="Adam step size of the critics")
    value_learning_rate: float = setting(default=3e-4, help="Adam step size of the value")
    weight_decay: float = setting(default=1e-4, help="of AdamW, per unit of the learning rate")
    discount: float = setting(default=0.99, help="gamma")
    tau: float = setting(default=0.005, help="step of the target critics towards the online ones")
    actor_average_rate: float = setting(default=0.001, help="step of the acting actor towards the trained one")
    expectile: float = setting(
        default=0.7, help="0.5: mean over the data's actions, towards 1: maximum; 0.9 for AntMaze"
    )
    inverse_temperature: float = setting(
        default=0.0, help="beta of the actor's weights; 0 clones, as in the paper's main results"
    )


class State(NamedTuple):
    actor: _common.Trainable
    critic: _common.Trainable
    value: _common.Trainable
    target_critic: PyTree
    average_actor: PyTree


def make(config: Config, spec: Spec) -> Agent:
    options = {"time_width": config.time_width, "dropout": config.actor_dropout}
    network = denoiser_resnet(spec, config.actor_hidden, config.blocks, time_scale=float(config.steps), **options)
    q = networks.q_network(spec, config.hidden, config.n_critics)
    v = networks.value_network(spec, config.hidden)

    def policy(dropout_key: Key | None = None) -> diffusion.GenerativePolicy:
        apply = network.apply
        if dropout_key is not None and config.actor_dropout > 0:
            apply = lambda *inputs: network.apply(*inputs, key=dropout_key)  # noqa: E731
        betas = generative.vp_betas(config.steps)
        options = {"variance": "large", "clip_denoised": None, "clip_sample": 1.0}
        return diffusion.ddpm(Network(network.init, apply), spec, betas, **options)

    def init(key: Key, hyper: Hyper) -> State:
        actor_key, critic_key, value_key = jax.random.split(key, 3)
        actor, critic = network.init(actor_key), q.init(critic_key)
        return State(
            _common.trainable(actor, optax.adamw(hyper.actor_learning_rate, weight_decay=hyper.weight_decay)),
            _common.trainable(critic, adam(hyper.critic_learning_rate)),
            _common.trainable(v.init(value_key), adam(hyper.value_learning_rate)),
            _common.copy(critic),
            _common.copy(actor),
        )

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        dropout_key, loss_key = jax.random.split(key)

        def value_loss(target_q: Array, values: Array, hyper: Hyper) -> Array:
            return losses.expectile_loss(target_q - values, hyper.expectile)

        models = state.critic, state.value, state.target_critic
        models, advantage, metrics = _in_sample.learn_values(models, q, v, batch, hyper, value_loss, beer=config.beer)
        weight = losses.awr_weight(advantage, hyper.inverse_temperature, config.max_weight)

        def actor_loss(params):
            error, _ = policy(dropout_key).loss(params, batch.observation, batch.action, loss_key)
            loss = losses.weighted_denoising_loss(error, weight).mean()
            return loss, {"actor_loss": loss, "weight": weight.mean()}

        learning_rate = _common.cosine(hyper.actor_learning_rate, step, config.decay_steps)
        optimiser = optax.adamw(learning_rate, weight_decay=hyper.weight_decay)
        actor, actor_metrics = _common.descend(actor_loss, state.actor, optimiser)
        average = polyak(actor.params, state.average_actor, hyper.actor_average_rate)
        return State(actor, *models, average), {**metrics, **actor_metrics}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        def critic(observation: Array, action: Array) -> Array:
            return q.apply(state.target_critic, observation, action).min(axis=0)

        how = {"method": "argmax"}
        if explore:
            baseline = v.apply(state.value.params, observation)
            how = {"method": "expectile", "expectile": hyper.expectile, "baseline": baseline}
        return diffusion.best_of_k(policy(), state.average_actor, observation, key, critic, config.candidates, **how)

    return Agent(init, update, act, measure=_in_sample.measure(config.measure_features, q, v))

"""DM1: MeanFlow clones plans of several actions in one step, while a dispersive loss keeps its features apart.

In words. A plan is the next ``chunk`` actions from a state; past an episode's end its last action is held. Actor: an
average velocity u(z, r, t | s) fitted by the MeanFlow identity, each row's squared error divided by itself (held
constant) to the power ``power``, plus ``dispersive_weight`` times a loss that is low where the network's last hidden
layer differs from row to row. Acting: z - u(z, 0, 1 | s) from fresh noise, by the averaged actor, clipped; ``execute``
actions of a plan are carried out before the next.

Metrics: ``actor_loss`` the sum of both terms; ``flow_error`` the squared error of a plan, summed over its numbers,
before the division; ``dispersive_loss``; ``action_error`` the mean squared error per number of a plan denoised at once.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import optax

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.imitation import _chunks
from jaxrl_reg.data import samplers
from jaxrl_reg.errors import unknown
from jaxrl_reg.networks.denoisers import denoiser_mlp
from jaxrl_reg.policies import flow
from jaxrl_reg.transforms import polyak
from jaxrl_reg.types import (
    Agent,
    Array,
    Key,
    Metrics,
    Paper,
    Policy,
    Protocol,
    PyTree,
    Spec,
    Transition,
    pytree,
    setting,
)

PAPER = Paper(
    title="DM1: MeanFlow with Dispersive Regularization for 1-Step Robotic Manipulation",
    authors="Zou, Wang, Wu, Qian, Wang, Li",
    year=2025,
    url="https://arxiv.org/abs/2510.07865",
    deviations="The dispersive losses are those of Wang and He (2025), of the last hidden layer in the pass that is "
    "trained. The released code's forms hold the diagonal at the largest value there is and are nearly without "
    "gradient; it applies them to embeddings of time and state in a pass of their own. The adaptive weight of MeanFlow "
    "is on (off in the released configuration, whose plain squared error learns one-step sampling far more slowly). A "
    "plain perceptron instead of a residual one, state observations, a constant learning rate, one step by default "
    "(the released agent: 5).",
)
KIND = "offline"
PROTOCOL = Protocol(rewards=False)
DISPERSIONS = ("l2", "cosine", "hinge", "covariance")


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(768, 768, 768), help="widths of the hidden layers")
    chunk: int = setting(default=4, help="actions in a plan")
    execute: int = setting(default=4, help="actions of a plan that are carried out before the next plan")
    steps: int = setting(default=1, help="jumps from noise to plan")
    dispersion: str = setting(default="l2", help="form of the dispersive loss: l2, cosine, hinge or covariance")
    equal_fraction: float = setting(default=0.5, help="share of rows that learn the velocity itself, r = t")


@pytree
class Hyper:
    learning_rate: float = setting(default=1e-4, help="AdamW step size")
    weight_decay: float = setting(default=1e-6, help="of AdamW, per unit of the learning rate", range=(0.0, 1.0))
    power: float = setting(default=1.0, help="of the adaptive weight; 0: plain squared error", range=(0.0, 1.0))
    dispersive_weight: float = setting(default=0.5, help="weight of the dispersive loss; 0: none")
    dispersive_scale: float = setting(
        default=0.5, help="temperature of l2 and cosine, margin of hinge; not used by covariance"
    )
    average_rate: float = setting(
        default=5e-4, help="step of the acting actor towards the trained one, at least", range=(5e-4, 1.0)
    )


class State(NamedTuple):
    actor: _common.Trainable
    average_actor: PyTree


def make(config: Config, spec: Spec) -> Agent:
    if config.dispersion not in DISPERSIONS:
        raise unknown("dispersion", config.dispersion, DISPERSIONS)
    _chunks.check("dm1", config.chunk, config.execute)
    plans = dataclasses.replace(spec, action_dim=config.chunk * spec.action_dim)
    network = denoiser_mlp(plans, config.hidden, times=2, time_scale=10.0)

    def policy(power: Array | float = 1.0) -> flow.GenerativePolicy:
        options = {"equal_fraction": config.equal_fraction, "power": power, "features": True}
        return flow.meanflow(network, plans, config.steps, **options)

    def optimiser(hyper: Hyper) -> optax.GradientTransformation:
        return optax.adamw(hyper.learning_rate, weight_decay=hyper.weight_decay)

    def init(key: Key, hyper: Hyper) -> State:
        params = network.init(key)
        return State(_common.trainable(params, optimiser(hyper)), _common.copy(params))

    def dispersion(features: Array, hyper: Hyper) -> Array:
        if config.dispersion == "covariance":
            return losses.dispersive_covariance_loss(features)
        form = {
            "l2": losses.dispersive_l2_loss,
            "cosine": losses.dispersive_cosine_loss,
            "hinge": losses.dispersive_hinge_loss,
        }[config.dispersion]
        return form(features, hyper.dispersive_scale)

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        plan = batch.action.reshape(batch.action.shape[0], plans.action_dim)

        def actor_loss(params):
            error, aux = policy(hyper.power).loss(params, batch.observation[:, 0], plan, key)
            spread = dispersion(aux["features"], hyper)
            loss = error.mean() + hyper.dispersive_weight * spread
            return loss, {
                "actor_loss": loss,
                "flow_error": aux["squared_error"].mean(),
                "dispersive_loss": spread,
                "action_error": jnp.square(aux["x0"] - plan).mean(),
            }

        actor, metrics = _common.descend(actor_loss, state.actor, optimiser(hyper))
        rate = _common.catching_up(hyper.average_rate, step)
        return State(actor, polyak(actor.params, state.average_actor, rate)), metrics

    def plan_for(state: State, observation: Array, key: Key) -> Array:
        plan = policy().sample(state.average_actor, observation, key)
        return plan.reshape(*observation.shape[:-1], config.chunk, spec.action_dim)

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        return plan_for(state, observation, key)[..., 0, :]

    def acting(state: State, hyper: Hyper, explore: bool) -> Policy:
        def plan(context: _chunks.Context, key: Key) -> Array:
            return plan_for(state, context.observation[..., -1, :], key)

        return _chunks.follow(plan, spec.observation_dim, spec.action_dim, config.chunk, config.execute, 1)

    return Agent(init, update, act, samplers.chunks(config.chunk), acting)

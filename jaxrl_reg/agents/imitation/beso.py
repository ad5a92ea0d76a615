"""BESO: a diffusion model clones plans towards a goal, and without one; a few denoising steps make a plan.

In words. Rows get a goal: a state of their own future beyond the plan, each as likely; with probability ``drop_rate``
the whole goal is left out. Actor: the EDM denoising error of the next ``chunk`` actions, all at one noise level, given
the last ``history`` states; the actions between those are noised too, at levels of their own, so that the network knows
what to make of clean ones. Acting: ``steps`` steps of the solver from noise of size ``sigma_max`` by the averaged
actor, past actions held where they were, then clipped; ``execute`` actions of a plan are carried out before the next.
Towards a goal, each denoised plan is D(none) + guidance (D(goal) - D(none)); without a task, D(none). A reward given
after training becomes a goal: the labelled state that brings most.

Metrics: ``actor_loss`` the denoising error; ``action_error`` mean squared error of actions denoised at once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import generative
from jaxrl_reg.agents import _common
from jaxrl_reg.agents.imitation import _chunks
from jaxrl_reg.data import samplers
from jaxrl_reg.errors import unknown
from jaxrl_reg.networks import plans
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
    ZeroShot,
    pytree,
    setting,
)

PAPER = Paper(
    title="Goal-Conditioned Imitation Learning using Score-based Diffusion Policies",
    authors="Reuss, Li, Jia, Lioutikov",
    year=2023,
    url="https://arxiv.org/abs/2304.02532",
    deviations="Whole goals are dropped, with a mask that says so; the released code drops each number of a goal on "
    "its own and so never shows the network the empty goal that guidance asks for. Past actions are held clean while "
    "sampling and have noise levels of their own in training. sigma_max is 5; from the released 1, actions lose 45% of "
    "their mean. A goal is one state. Plans of several actions, and a perceptron by default; network=gpt with chunk=1 "
    "and history=5 is the paper's. The learning rate falls as a half-cosine, if at all.",
)
KIND = "offline"
PROTOCOL = Protocol(True, 1e-6, batch_size=1024, updates=40_000, rewards=False, note="Block pushing: 60,000 updates.")
NETWORKS = ("mlp", "gpt")


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(256, 256, 256), help="widths of the hidden layers of mlp")
    network: str = setting(default="mlp", help="denoiser: mlp, or gpt over tokens of states and actions")
    gpt_hidden: int = setting(default=240, help="width of gpt; a multiple of its heads")
    gpt_layers: int = setting(default=4, help="blocks of gpt", small=1)
    gpt_heads: int = setting(default=4, help="attention heads of gpt")
    gpt_dropout: float = setting(default=0.05, help="attention dropout of gpt")
    history: int = setting(default=1, help="states that a plan is made from, the present one included")
    chunk: int = setting(default=10, help="actions in a plan")
    execute: int = setting(default=10, help="actions of a plan that are carried out before the next plan")
    steps: int = setting(default=3, help="denoising steps")
    sampler: str = setting(default="ddim", help="solver, a name in generative.SAMPLERS")
    sigma_data: float = setting(default=0.5, help="standard deviation of the data's actions")
    sigma_min: float = setting(default=0.02, help="smallest noise level")
    sigma_max: float = setting(default=5.0, help="largest noise level, well above sigma_data")
    guidance: float = setting(
        default=1.5, help="weight of the goal when acting; 0: none, 1: as trained, above 1: sharpened"
    )
    decay_steps: int = setting(default=0, help="updates over which the learning rate falls to 0; 0: constant")


@pytree
class Hyper:
    learning_rate: float = setting(default=1e-4, help="AdamW step size, before decay")
    weight_decay: float = setting(default=0.0, help="of AdamW, per unit of the learning rate")
    drop_rate: float = setting(default=0.1, help="probability that a row learns without its goal")
    average_rate: float = setting(
        default=1e-3, help="step of the acting actor towards the trained one, at least", range=(1e-3, 1.0)
    )


class State(NamedTuple):
    actor: _common.Trainable
    average_actor: PyTree


def make(config: Config, spec: Spec) -> Agent:
    for name, value, known in (
        ("network", config.network, NETWORKS),
        ("sampler", config.sampler, tuple(generative.SAMPLERS)),
    ):
        if value not in known:
            raise unknown(name, value, known)
    _chunks.check("beso", config.chunk, config.execute, config.history)
    past, length = config.history - 1, config.history - 1 + config.chunk
    if config.network == "mlp":
        network = plans.plan_mlp(spec, config.chunk, config.history, config.hidden)
    else:
        size = (config.gpt_hidden, config.gpt_layers, config.gpt_heads, config.gpt_dropout)
        network = plans.plan_transformer(spec, config.chunk, config.history, *size)
    gather = functools.partial(samplers.take_chunks, length=config.chunk, history=config.history)
    sample = samplers.hindsight(geometric=0.0, uniform=1.0, ahead=config.chunk - 1, gather=gather)

    def init(key: Key, hyper: Hyper) -> State:
        params = network.init(key)
        optimiser = optax.adamw(hyper.learning_rate, weight_decay=hyper.weight_decay)
        return State(_common.trainable(params, optimiser), _common.copy(params))

    def levels(key: Key, shape: tuple[int, ...]) -> Array:
        """One level for each past action, and one for the actions to come together."""
        limits = {"sigma_min": config.sigma_min, "sigma_max": config.sigma_max}
        drawn = generative.log_logistic(key, (shape[0], config.history), config.sigma_data, **limits)
        return drawn[:, jnp.minimum(jnp.arange(shape[1]), past)]

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        drop_key, loss_key, dropout_key = jax.random.split(key, 3)
        context = _chunks.context_of(batch, config.history)
        goal = batch.extras["goal"], jnp.ones(batch.action.shape[0])
        goal, _ = generative.drop_condition(drop_key, goal, jax.tree.map(jnp.zeros_like, goal), hyper.drop_rate)
        counts = jnp.concatenate([context.mask[:, :past], jnp.ones((batch.action.shape[0], config.chunk))], axis=1)
        dropout = {"key": dropout_key} if config.network == "gpt" and config.gpt_dropout > 0 else {}

        def actor_loss(params):
            def raw(x: Array, noise: Array) -> Array:
                return network.apply(params, x, noise, context.observation, context.mask, *goal, **dropout)

            options = {"density": levels, "sigma_data": config.sigma_data, "level_axes": 2, "mask": counts}
            error, aux = generative.edm_loss(loss_key, raw, batch.action, **options)
            distance = jnp.square(aux["x0"] - batch.action)[:, past:].mean()
            return error.mean(), {"actor_loss": error.mean(), "action_error": distance}

        rate = _common.cosine(hyper.learning_rate, step, config.decay_steps)
        actor, metrics = _common.descend(actor_loss, state.actor, optax.adamw(rate, weight_decay=hyper.weight_decay))
        average = polyak(actor.params, state.average_actor, _common.catching_up(hyper.average_rate, step))
        return State(actor, average), metrics

    def plan(state: State, context: _chunks.Context, goal: Array | None, key: Key) -> Array:
        """Actions ``[..., chunk, A]`` for a context ``[..., W, ...]`` and a goal ``[O]``, or none."""
        lead = context.mask.shape[:-1]
        rows = math.prod(lead)
        context = jax.tree.map(lambda leaf: leaf.reshape(rows, *leaf.shape[len(lead) :]), context)
        fixed = (jnp.arange(length) < past)[:, None]

        def denoise(x: Array, sigma: Array, condition: tuple) -> Array:
            def raw(x: Array, noise: Array) -> Array:
                (observation, _, mask), goal, given = condition
                return network.apply(state.average_actor, x, noise, observation, mask, goal, given)

            noise_levels = jnp.where(fixed[:, 0], config.sigma_min, sigma[:, None])
            return generative.edm_denoiser(raw, config.sigma_data)(x, noise_levels)

        nothing = context, jnp.zeros((rows, spec.observation_dim)), jnp.zeros(rows)
        if goal is None:
            field = lambda x, sigma: denoise(x, sigma, nothing)  # noqa: E731
        else:
            wanted = context, jnp.broadcast_to(goal, (rows, spec.observation_dim)), jnp.ones(rows)
            field = generative.classifier_free(denoise, wanted, nothing, config.guidance)
        noise_key, solver_key = jax.random.split(key)
        sigmas = generative.exponential(config.steps, config.sigma_min, config.sigma_max)
        held = jnp.pad(context.action, ((0, 0), (0, config.chunk), (0, 0)))
        x = sigmas[0] * jax.random.normal(noise_key, (rows, length, spec.action_dim))
        x = generative.sample(solver_key, generative.inpaint(field, held, fixed), x, sigmas, method=config.sampler)
        return jnp.clip(x[:, past:], -1.0, 1.0).reshape(*lead, config.chunk, spec.action_dim)

    def first(state: State, observation: Array, goal: Array | None, key: Key) -> Array:
        context = _chunks.nothing_before(observation, spec.action_dim, config.history)
        return plan(state, context, goal, key)[..., 0, :]

    def following(state: State, goal: Array | None) -> Policy:
        sizes = spec.observation_dim, spec.action_dim, config.chunk, config.execute, config.history
        return _chunks.follow(lambda context, key: plan(state, context, goal, key), *sizes)

    zero_shot = ZeroShot(
        infer_z=lambda state, observation, reward: observation[reward.argmax()],
        goal_z=lambda state, goal: goal,
        act=first,
        policy=following,
    )
    act = lambda state, observation, hyper, key, explore: first(state, observation, None, key)  # noqa: E731
    return Agent(init, update, act, sample, lambda state, hyper, explore: following(state, None), zero_shot)

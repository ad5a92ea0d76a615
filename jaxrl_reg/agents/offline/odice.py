"""ODICE: weighs the data by how often an optimal policy would visit them, learnt with orthogonal gradients.

In words. Values: minimise (1 - lam) V(s) + lam f*(y) with the residual y = r + gamma d V(s') - V(s), on the data's
states alone. The gradient through V(s) (forward) and ``eta`` times the one through V(s') (backward) pull against each
other; of the backward one only the part orthogonal to the forward one is added, over all parameters of all value
networks together. Each sees the other side's value through target networks, the smallest of them. Actor: maximise the
log-density of the data's actions, weighted by the density ratio f*'(y), or as published by max(y, 0), which drops every
row that is worse than expected. The residuals are those before the values' step. Order: values, targets, actor.

``gradient`` has the two rivals: ``semi`` (forward alone) and ``true`` (both whole, each network against itself without
targets). ``imitation`` takes every reward for 0, so that data of an expert are imitated with their dynamics; use it
with ``layer_norm="none"``, lam 0.4 and learning rates of 1e-4.

Metrics: ``value_loss`` linear plus forward part, mean over networks; ``v`` mean value; ``residual`` mean y; ``cosine``
between forward and backward gradient, below 0 where they conflict; ``actor_loss``; ``weight`` mean weight of a row;
``active`` fraction of weights above 0 (at 0 the actor learns nothing: lower lam or scale the rewards up).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _common
from jaxrl_reg.errors import unknown
from jaxrl_reg.policies import gaussian
from jaxrl_reg.transforms import adam, orthogonal_combine, polyak
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, PyTree, Spec, Transition, pytree, setting

PAPER = Paper(
    title="ODICE: Revealing the Mystery of Distribution Correction Estimation via Orthogonal-gradient Update",
    authors="Mao, Xu, Zhang, Zhan",
    year=2024,
    url="https://arxiv.org/abs/2402.00348",
    deviations="The actor is as wide as the values unless actor_hidden says otherwise; the original: 1024, 1024. "
    "LayerNorm follows the activation instead of preceding it. The conjugate of the reverse KL divergence goes on as a "
    "straight line where its slope reaches max_weight. Rewards are scaled by the data pipeline (locomotion times 1000 "
    "over the range of returns; AntMaze -3 before the goal and 0 at it).",
)
KIND = "offline"
PROTOCOL = Protocol(reward_scale="returns", sparse=(3.0, -3.0), batch_size=256, updates=1_000_000)
RATIOS = {"pearson": losses.pearson_weight, "reverse_kl": losses.reverse_kl_weight}
WEIGHTS = {"published": {**RATIOS, "pearson": losses.sparse_weight}, "ratio": RATIOS}
GRADIENTS = ("orthogonal", "semi", "true")


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(256, 256), help="widths of the values' hidden layers")
    actor_hidden: tuple[int, ...] = setting(default=(), help="widths of the actor's hidden layers; none: as hidden")
    n_values: int = setting(default=2, help="number of value networks; targets take their minimum")
    layer_norm: str = setting(default="every", help="LayerNorm in the values: none, every or first_tanh")
    divergence: str = setting(default="pearson", help="what the visitations are compared with: pearson or reverse_kl")
    gradient: str = setting(
        default="orthogonal", help="orthogonal, semi (forward only) or true (no targets, no projection)"
    )
    weight: str = setting(
        default="published", help="actor weight: ratio, the slope f*'(y), or published: max(y, 0) with pearson"
    )
    max_weight: float = setting(
        default=100.0, help="largest weight of a row in the actor loss, and slope of reverse_kl's f*"
    )
    imitation: bool = setting(
        default=False, help="ignore rewards and imitate the data; the actor's mean is squashed by tanh"
    )


@pytree
class Hyper:
    actor_learning_rate: float = setting(default=2e-4, help="Adam step size of the actor")
    value_learning_rate: float = setting(default=2e-4, help="Adam step size of the values")
    actor_weight_decay: float = setting(
        default=1e-4, help="L2 penalty in the actor's gradient; imitation: 1e-5 to 1e-3"
    )
    discount: float = setting(default=0.99, help="gamma")
    tau: float = setting(default=0.005, help="step of the target values towards the online ones")
    lam: float = setting(default=0.6, help="lambda: 1 - lam lowers all values, lam raises those with large residuals")
    eta: float = setting(default=1.0, help="weight of the backward gradient; the true gradient has 1")


class State(NamedTuple):
    actor: _common.Trainable
    value: _common.Trainable
    target_value: PyTree


def make(config: Config, spec: Spec) -> Agent:
    """Raises ``UserError`` for an unknown divergence, gradient or weight."""
    for kind, known in (("divergence", RATIOS), ("gradient", GRADIENTS), ("weight", WEIGHTS)):
        if getattr(config, kind) not in known:
            raise unknown(kind, getattr(config, kind), known)
    weight_of = WEIGHTS[config.weight][config.divergence]
    conjugate = losses.pearson_conjugate
    if config.divergence == "reverse_kl":
        conjugate = functools.partial(losses.reverse_kl_conjugate, max_weight=config.max_weight)
    policy = gaussian.clipped(spec, config.actor_hidden or config.hidden, tanh_mean=config.imitation)
    v = networks.ensemble(networks.value_network(spec, config.hidden, layer_norm=config.layer_norm), config.n_values)

    def actor_optimiser(hyper: Hyper) -> optax.GradientTransformation:
        # The penalty goes through Adam's moments, as in the original; AdamW would decay apart from them.
        return optax.chain(optax.add_decayed_weights(hyper.actor_weight_decay), adam(hyper.actor_learning_rate))

    def init(key: Key, hyper: Hyper) -> State:
        actor_key, value_key = jax.random.split(key)
        value = v.init(value_key)
        return State(
            _common.trainable(policy.init(actor_key), actor_optimiser(hyper)),
            _common.trainable(value, adam(hyper.value_learning_rate)),
            _common.copy(value),
        )

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        reward = jnp.zeros_like(batch.reward) if config.imitation else batch.reward

        def both(params):
            return v.apply(params, batch.observation), v.apply(params, batch.next_observation)

        targets = [jnp.broadcast_to(x.min(axis=0), x.shape) for x in both(state.target_value)]  # [N, B]

        def parts(params):
            """Means of the linear, forward and backward loss: ``[3]``, to be differentiated one by one."""
            values, next_values = both(params)
            target, next_target = (values, next_values) if config.gradient == "true" else targets
            rewards, discounts = (jnp.broadcast_to(row, values.shape) for row in (reward, batch.discount))
            dynamics = rewards, discounts, hyper.discount
            eta = 1.0 if config.gradient == "true" else hyper.eta
            means = losses.v_dice_losses(
                values, next_values, target, next_target, *dynamics, hyper.lam, eta, conjugate=conjugate
            )
            residual = losses.td_target(rewards, discounts, next_target, hyper.discount) - values
            return jnp.stack([mean.mean() for mean in means]), (values, residual)

        means, pull, (values, residual) = jax.vjp(parts, state.value.params, has_aux=True)
        linear, forward, backward = (pull(row)[0] for row in jnp.eye(3))
        projection = orthogonal_combine(forward, backward)
        added = {
            "orthogonal": projection.gradient,
            "semi": forward,
            "true": jax.tree.map(jnp.add, forward, backward),
        }[config.gradient]
        gradient = jax.tree.map(jnp.add, linear, added)
        value = _common.step_along(gradient, state.value, adam(hyper.value_learning_rate))

        weights = weight_of(residual, config.max_weight)  # [N, B]

        def actor_loss(params):
            log_prob = policy.log_prob(params, batch.observation, batch.action)
            loss = losses.weighted_log_prob_loss(log_prob, weights.mean(axis=0)).mean()
            return loss, {"actor_loss": loss}

        actor, metrics = _common.descend(actor_loss, state.actor, actor_optimiser(hyper))
        metrics |= {"value_loss": means[0] + means[1], "v": values.mean(), "residual": residual.mean()}
        metrics |= {"cosine": projection.cosine, "weight": weights.mean(), "active": (weights > 0).mean()}
        return State(actor, value, polyak(value.params, state.target_value, hyper.tau)), metrics

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        if not explore:
            return policy.mode(state.actor.params, observation)
        return jnp.clip(policy.sample(state.actor.params, observation, key)[0], -1.0, 1.0)

    return Agent(init, update, act)

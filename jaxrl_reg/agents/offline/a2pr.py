"""A2PR: TD3+BC pulled towards the better of the data's action and a generated one, where either beats the value.

In words. Critics as in TD3. Value: V(s) fits the smaller of two targets, the critics' own and r + gamma d min_j
Q_j(s', a') of the critics after their step. Autoencoder: reconstructs the data's actions given their states, counting
only rows with Q_1(s, a) > V(s). Actor, every ``policy_freq`` updates: maximise lambda Q_1(s, pi(s)), lambda =
alpha / mean |Q_1| held constant, minus ``mask`` times the mean squared distance of pi(s) to the generated or the data's
action, whichever has the larger Q_1, on the rows where one of the two is better than V. The generated action is the
policy's own, encoded and decoded: what good data nearby look like. V is that of before its step throughout. Order:
critics, value, autoencoder, actor, targets; critics and actor are written out in ``_td3``.

Metrics: those of TD3+BC; ``value_loss``, ``v``; ``vae_loss``, ``better`` (share of rows that the autoencoder learns
from); and of the latest actor update ``generated`` (share pulled to the generated action) and ``held`` (share pulled).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _common, _resets, _td3
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, Spec, Transition, pytree, setting

PAPER = Paper(
    title="Adaptive Advantage-Guided Policy Regularization for Offline Reinforcement Learning",
    authors="Liu, Li, Lan, Gao, Pan, Xu",
    year=2024,
    url="https://arxiv.org/abs/2405.19909",
    deviations="No gradient flows from the actor's loss through the autoencoder unless detach_generated is off; the "
    "released code lets it. The autoencoder is three times as wide as the actor (768 for 256; the paper: 750) unless "
    f"vae_hidden says otherwise. {_td3.FIRST_STEP}",
)
KIND = "offline"
PROTOCOL = Protocol(normalise=True, batch_size=256, updates=1_000_000)


@dataclasses.dataclass(frozen=True)
class Config(_td3.Config):
    hidden: tuple[int, ...] = setting(default=(256, 256, 256), help="widths of the actor's hidden layers")
    critic_hidden: tuple[int, ...] = setting(
        default=(), help="of critics and value; none: one layer more than the actor"
    )
    vae_hidden: tuple[int, ...] = setting(
        default=(), help="of the autoencoder; none: two layers three times the actor's first"
    )
    advantage_filter: bool = setting(
        default=True, help="the autoencoder learns only from actions better than the value"
    )
    detach_generated: bool = setting(default=True, help="no gradient through the autoencoder into the actor")


@pytree
class Hyper(_td3.Hyper):
    value_learning_rate: float = setting(default=3e-4, help="Adam step size of the value")
    vae_learning_rate: float = setting(default=1e-3, help="Adam step size of the autoencoder")
    alpha: float = setting(default=2.5, help="weight of the normalised value against the pull; 40 for HalfCheetah")
    mask: float = setting(default=0.5, help="weight of the pull where it counts; 0.4 to 1 in the paper")
    vae_weight: float = setting(default=1.0, help="weight of the reconstruction; 1.5 for Walker2d")
    kl_coef: float = setting(default=0.5, help="weight of the autoencoder's divergence from the standard normal")


class State(NamedTuple):
    td3: _td3.State
    value: _common.Trainable
    vae: _common.Trainable


def make(config: Config, spec: Spec) -> Agent:
    wide = config.critic_hidden or (*config.hidden, config.hidden[-1])
    core = _td3.core(config, spec, critic_hidden=wide, metrics=("bc_loss", "generated", "held"))
    v = networks.value_network(spec, wide)
    vae = networks.action_vae(spec, config.vae_hidden or (3 * config.hidden[0],) * 2)

    def init(key: Key, hyper: Hyper) -> State:
        td3_key, value_key, vae_key = jax.random.split(key, 3)
        return State(
            core.init(td3_key, hyper),
            _common.trainable(v.init(value_key), adam(hyper.value_learning_rate)),
            _common.trainable(vae.init(vae_key), adam(hyper.vae_learning_rate)),
        )

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array | int) -> tuple[State, Metrics]:
        smoothing_key, encode_key, generate_key = jax.random.split(key, 3)
        critic, (next_action, target), metrics = core.critics(state.td3, batch, hyper, smoothing_key)
        next_q = core.q.apply(critic.params, batch.next_observation, next_action)
        online = losses.clipped_double_q_target(batch.reward, batch.discount, next_q, hyper.discount)
        target = jnp.minimum(online, target)

        def value_loss(params):
            values = v.apply(params, batch.observation)
            loss = losses.squared_td_error(values, target).mean()
            return loss, (values, {"value_loss": loss, "v": values.mean()})

        value, (before, value_metrics) = _common.descend(value_loss, state.value, adam(hyper.value_learning_rate))
        data_q = core.value(critic.params, batch.observation, batch.action)
        better = data_q > before

        def vae_loss(params):
            reconstruction, mean, log_std = vae.apply(params, batch.observation, batch.action, encode_key)
            weight = hyper.vae_weight * (better if config.advantage_filter else jnp.ones_like(data_q))
            errors, divergence = losses.vae_losses(reconstruction, batch.action, mean, log_std, weight)
            loss = errors.mean() + hyper.kl_coef * divergence.mean()
            return loss, {"vae_loss": loss, "better": better.mean()}

        model, vae_metrics = _common.descend(vae_loss, state.vae, adam(hyper.vae_learning_rate))

        def pull(batch: Transition, action: Array, hyper: Hyper) -> _td3.Pull:
            generated = vae.apply(model.params, batch.observation, action, generate_key)[0]
            if config.detach_generated:
                generated = jax.lax.stop_gradient(generated)
            generated_q = core.value(critic.params, batch.observation, generated)
            towards, gate = losses.advantage_select(generated, batch.action, generated_q, data_q, before, hyper.mask)
            shares = {"generated": (generated_q >= data_q).mean(), "held": (gate > 0).mean()}
            return _td3.Pull(towards, gate, hyper.alpha, shares)

        td3, actor_metrics = core.actor(state.td3, critic, batch, hyper, step, pull)
        return State(td3, value, model), {**metrics, **value_metrics, **vae_metrics, **actor_metrics}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        return core.act(state.td3, observation, hyper, key, explore)

    cycle, of_critics = _common.cycle(update, config.policy_freq), core.measure
    if of_critics is None:
        return _resets.switched(config, Agent(init, update, act, cycle=cycle), core.q, within="td3")

    def measure(state: State, batch: Transition, hyper: Hyper, key: Key) -> Metrics:
        return of_critics(state.td3, batch, hyper, key)

    return _resets.switched(config, Agent(init, update, act, measure=measure, cycle=cycle), core.q, within="td3")

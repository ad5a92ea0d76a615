"""Robust SARSA: what an adversary gets from the actions of a trained policy, learnt from episodes of that policy.

Attacks on a critic need one, and the victim's own is only as smooth as its training left it, or is of another policy.
This one is of the victim as it acts, ``Q(s, a) = r + gamma Q(s', mu(s'))``, and held to change little within a box of
actions around those that it has seen, so that its slope by the action says more than the noise of the fit does.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.data import buffers
from jaxrl_reg.envs import vectorize
from jaxrl_reg.envs.attacked import Reward
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.attacks import Mean
from jaxrl_reg.loops.learnt import Learnt, network, seen
from jaxrl_reg.loops.rollout import transition
from jaxrl_reg.transforms import adam, polyak, projected_ascent
from jaxrl_reg.types import Array, Env, EnvState, Key, Metrics, PyTree, as_float32


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes; all static. One iteration is ``unroll`` steps of ``num_envs`` environments, then the updates."""

    steps: int = 50_000  # environment steps, rounded down to whole iterations
    num_envs: int = 16
    unroll: int = 64
    hidden: tuple[int, ...] = (64, 64)
    updates: int = 64  # per iteration
    batch_size: int = 256
    noise: float = 0.2  # standard deviation of what is added to the victim's actions, so that others are seen too
    radius: float = 0.2  # of the box of actions within which the value shall change little
    ascent: int = 3  # steps to the action in it where it changes most

    def __post_init__(self) -> None:
        for name in ("steps", "num_envs", "unroll", "updates", "batch_size", "ascent"):
            if getattr(self, name) < 1:
                raise UserError(f"the budget of sarsa: {name}={getattr(self, name)} must be at least 1")

    @property
    def iterations(self) -> int:
        return max(1, self.steps // (self.num_envs * self.unroll))


class Rates(NamedTuple):
    """Adam's step size, the discount, the weight of the smoothness and the step of the target network."""

    critic: float = 1e-3
    discount: float = 0.99
    smoothness: float = 1.0
    tau: float = 0.01


RATES = Rates()


class State(NamedTuple):
    """What an iteration starts from; ``unit`` is the size of the pay, from the first trajectory."""

    critic: _common.Trainable
    target: PyTree
    unit: Array
    env: EnvState
    replay: Any


def sarsa(
    victim: Mean,
    env: Env,
    key: Key,
    reward: Reward | None = None,
    scale: tuple[Array, Array] | None = None,
    config: Config = Config(),
    rates: Rates = RATES,
) -> tuple[Learnt, Metrics]:
    """The value of one victim's actions to an adversary; ``learnt.attack_of`` makes the attack of it.

    Args:
      victim: ``mean(observation [..., O]) -> action [..., A]``.
      env: one environment.
      key: of its training.
      reward: what the adversary is paid, ``(before, action, after) -> scalar``; None: what the victim loses.
      scale: mean and standard deviation ``[O]`` of the observations, for the network.
      config: sizes.
      rates: step sizes; may be traced.
    Returns:
      What is kept, and metrics ``[iterations]``: ``td_loss`` and ``smoothness``, in units of the pay over
      ``1 - discount``.
    Source: Zhang et al., 2020, Robust Deep Reinforcement Learning against Adversarial Perturbations on State
    Observations (the robust SARSA attack). Deviations: the next action is the victim's own, not the noisy one that was
    taken, so rows stay true and are replayed; the bound within the box is by ascent, not by convex relaxation.
    """
    size = env.spec.observation_dim
    center, spread = (jnp.zeros(size), jnp.ones(size)) if scale is None else scale
    own, rates, vector = network("sarsa", env.spec, config.hidden), as_float32(rates), vectorize(env, config.num_envs)
    optimiser, harm = adam(rates.critic), lambda before, action, after: -after.reward
    paid = jax.vmap(harm if reward is None else reward)

    def value(params: PyTree, observation: Array, action: Array) -> Array:
        return own.apply(params, jnp.concatenate([seen(observation, center, spread), action], axis=-1))[..., 0]

    def act_once(before: EnvState, key: Key) -> Any:
        action = victim(before.observation)
        action = jnp.clip(action + config.noise * jax.random.normal(key, action.shape), -1.0, 1.0)
        after = vector.step(before, action)
        row = dataclasses.replace(transition(before, action, after), last=None, extras={})
        return after, dataclasses.replace(row, reward=as_float32(paid(before, action, after)))

    def update(models: tuple[_common.Trainable, PyTree], key: Key, state: State) -> Any:
        (critic, target), (sample_key, box_key) = models, jax.random.split(key)
        rows = buffers.sample(state.replay, sample_key, config.batch_size)
        after = value(target, rows.next_observation, victim(rows.next_observation))
        pay = rows.reward / state.unit * (1.0 - rates.discount)
        wanted = losses.td_target(pay, rows.discount, after, rates.discount)

        def loss(params: PyTree) -> tuple[Array, Metrics]:
            found = value(params, rows.observation, rows.action)

            def change(action: Array) -> Array:
                return jnp.square(value(params, rows.observation, action) - found)

            shift = projected_ascent(change, rows.action, box_key, config.radius, config.ascent)
            far = jnp.clip(rows.action + jax.lax.stop_gradient(shift), -1.0, 1.0)
            td, smooth = jnp.square(found - wanted).mean(), change(far).mean()
            return td + rates.smoothness * smooth, {"td_loss": td, "smoothness": smooth}

        critic, told = _common.descend(loss, critic, optimiser)
        return (critic, polyak(critic.params, target, rates.tau)), told

    def iteration(state: State, index: Array) -> tuple[State, Metrics]:
        act_key, learn_key = jax.random.split(jax.random.fold_in(key, index + 1))
        env_state, rows = jax.lax.scan(act_once, state.env, jax.random.split(act_key, config.unroll))
        unit = jnp.where(index == 0, jnp.sqrt(jnp.square(rows.reward).mean()) + 1e-6, state.unit)
        state = state._replace(env=env_state, unit=unit, replay=buffers.add(state.replay, rows))
        keys = jax.random.split(learn_key, config.updates)
        models, told = jax.lax.scan(lambda m, k: update(m, k, state), (state.critic, state.target), keys)
        return state._replace(critic=models[0], target=models[1]), jax.tree.map(jnp.mean, told)

    env_key, init_key = jax.random.split(jax.random.fold_in(key, 0))
    first, params = vector.reset(env_key), own.init(init_key)
    row = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), jax.eval_shape(act_once, first, key)[1])
    replay = buffers.init(config.iterations * config.num_envs * config.unroll, row)
    state = State(_common.trainable(params, optimiser), params, jnp.float32(1.0), first, replay)
    state, metrics = jax.lax.scan(iteration, state, jnp.arange(config.iterations))
    return Learnt(state.critic.params, center, spread), metrics

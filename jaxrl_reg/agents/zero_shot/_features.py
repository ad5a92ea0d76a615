"""What the agents on successor features share: phi(s) learns what tasks may be about, psi what will come of it.

In words. A task is a vector z: its reward is phi(s')^T z. Two successor features psi_j(s, a, z) fit phi(s') + gamma d
psi'(s', a', z), with a' the actor's noisy action and psi' that of the slow copies whose psi'^T z is smaller, as a whole
vector. The actor maximises min_j psi_j(s, a, z)^T z. While training, z is drawn from the sphere of radius sqrt(D), or,
with probability ``mix_ratio``, as the task whose best state is one of the batch. Afterwards z is the least-squares fit
of a task's reward by phi, on the same sphere. How phi is learnt is each agent's own. Order: phi, psi, actor, targets.

Metrics: ``successor_loss`` summed over the two; ``q`` mean of psi^T z on the batch's actions; ``actor_loss``; and those
of phi.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _common
from jaxrl_reg.losses.successor import solve
from jaxrl_reg.policies import deterministic
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition, ZeroShot, pytree, setting

DEVIATIONS = (
    "Each network is one MLP on all its inputs, without separate preprocessors, first layer LayerNorm and tanh. True "
    "ends cut the sum of features. Covariances are inverted with a ridge. The features step first, not last. Gradients "
    "are not clamped, unlike in the code that compares with FB. Without a task, act follows one fixed z."
)
RIDGE, BATCH_RIDGE = 1e-4, 1e-2  # in units of the mean eigenvalue; a batch may be smaller than D


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of all."""

    hidden: tuple[int, ...] = setting(default=(512, 512), help="widths of the hidden layers")
    features: int = setting(default=50, help="D, the dimension of phi, psi and z", small=8)
    q_loss: bool = setting(default=False, help="fit psi^T z only, instead of every feature")


@pytree
class Hyper:
    """Settings of all."""

    actor_learning_rate: float = setting(default=1e-4, help="Adam step size of the actor")
    successor_learning_rate: float = setting(default=1e-4, help="Adam step size of psi")
    feature_learning_rate: float = setting(default=5e-4, help="Adam step size of phi")
    discount: float = setting(default=0.98, help="gamma")
    tau: float = setting(default=0.01, help="step of the target networks towards the online ones")
    mix_ratio: float = setting(default=0.5, help="fraction of training tasks that are made from states of the batch")
    policy_noise: float = setting(default=0.2, help="scale of the noise on the actor's actions in the losses")
    noise_clip: float = setting(default=0.3, help="largest noise on the actor's actions")


class Features(NamedTuple):
    """How phi is learnt: ``init(key, hyper) -> state``; ``update(state, batch, hyper) -> (state, metrics)``;
    ``phi(state, observation [..., O]) -> [..., D]``; ``goal(state, observation [O]) -> [D]``, the task of reaching a
    state, of any length; None: its phi."""

    init: Callable[[Key, Any], PyTree]
    update: Callable[[PyTree, Transition, Any], tuple[PyTree, Metrics]]
    phi: Callable[[PyTree, Array], Array]
    goal: Callable[[PyTree, Array], Array] | None = None


class State(NamedTuple):
    actor: _common.Trainable
    successor: _common.Trainable
    target_successor: PyTree
    features: PyTree


def fit(phi: Array, reward: Array) -> Array:
    """``z [D]`` that explains ``reward [N]`` by ``phi [N, D]`` best, in the least-squares sense, on the sphere."""
    with jax.default_matmul_precision("highest"):
        return losses.project_sphere(best_explained(second_moment(phi), reward @ phi / reward.shape[0], RIDGE))


def second_moment(phi: Array) -> Array:
    """``mean phi phi^T [D, D]`` of ``phi [N, D]``."""
    return phi.T @ phi / phi.shape[0]


def best_explained(second: Array, told: Array, ridge: float) -> Array:
    """``second^-1 told [..., D]``: the tasks of rewards of which ``told`` is ``E r phi``; of a state alone, its phi."""
    size = second.shape[0]
    lifted = second + ridge * (jnp.trace(second) / size + 1e-6) * jnp.eye(size)
    return solve(lifted, told.reshape(-1, size).T).T.reshape(told.shape)


def make(config: Config, spec: Spec, features: Features, sample: Any = None) -> Agent:
    """An agent on these features; ``sample`` as in ``Agent``."""
    conditioned = dataclasses.replace(spec, observation_dim=spec.observation_dim + config.features)
    actor_network = deterministic.make(conditioned, config.hidden, layer_norm="first_tanh")
    inputs = spec.observation_dim + spec.action_dim + config.features
    psi_network = networks.ensemble(networks.mlp((inputs, *config.hidden, config.features), layer_norm="first_tanh"), 2)

    def psi(params: PyTree, observation: Array, action: Array, z: Array) -> Array:
        return psi_network.apply(params, jnp.concatenate([observation, action, z], axis=-1))  # [2, ..., D]

    def pi(params: PyTree, observation: Array, z: Array) -> Array:
        z = jnp.broadcast_to(z, (*observation.shape[:-1], config.features))
        return actor_network.apply(params, jnp.concatenate([observation, z], axis=-1))

    def init(key: Key, hyper: Any) -> State:
        actor_key, successor_key, feature_key = jax.random.split(key, 3)
        successor = psi_network.init(successor_key)
        return State(
            _common.trainable(actor_network.init(actor_key), adam(hyper.actor_learning_rate)),
            _common.trainable(successor, adam(hyper.successor_learning_rate)),
            _common.copy(successor),
            features.init(feature_key, hyper),
        )

    def draw_tasks(phi: Array, hyper: Any, key: Key) -> Array:
        """``z [B, D]``; ``phi [B, D]`` of the states that the batch led to."""
        normal_key, row_key, mix_key = jax.random.split(key, 3)
        size = phi.shape[0]
        z = losses.project_sphere(jax.random.normal(normal_key, phi.shape))
        with jax.default_matmul_precision("highest"):
            best_here = best_explained(second_moment(phi), jax.random.permutation(row_key, phi), BATCH_RIDGE)
        mixed = jax.random.uniform(mix_key, (size, 1)) < hyper.mix_ratio
        return jnp.where(mixed, losses.project_sphere(best_here), z)

    def update(state: State, batch: Transition, hyper: Any, key: Key, step: Array) -> tuple[State, Metrics]:
        task_key, next_key, actor_key = jax.random.split(key, 3)
        learnt, feature_metrics = features.update(state.features, batch, hyper)
        phi = jax.lax.stop_gradient(features.phi(learnt, batch.next_observation))
        z = draw_tasks(phi, hyper, task_key)

        next_action = pi(state.actor.params, batch.next_observation, z)
        next_action = deterministic.smoothed(next_action, next_key, hyper.policy_noise, hyper.noise_clip)
        following = psi(state.target_successor, batch.next_observation, next_action, z)
        smaller = jnp.sum(following * z, axis=-1).argmin(axis=0)
        following = jnp.take_along_axis(following, smaller[None, :, None], axis=0)[0]
        target = phi + hyper.discount * batch.discount[:, None] * following

        def successor_loss(params):
            found = psi(params, batch.observation, batch.action, z)
            error = found - target
            if config.q_loss:
                loss = jnp.square(jnp.sum(error * z, axis=-1)).mean(axis=1).sum()
            else:
                loss = jnp.square(error).mean(axis=(1, 2)).sum()
            return loss, {"successor_loss": loss, "q": jnp.sum(found * z, axis=-1).mean()}

        successor, metrics = _common.descend(successor_loss, state.successor, adam(hyper.successor_learning_rate))

        def actor_loss(params):
            action = pi(params, batch.observation, z)
            action = deterministic.smoothed(action, actor_key, hyper.policy_noise, hyper.noise_clip)
            q = jnp.sum(psi(successor.params, batch.observation, action, z) * z, axis=-1).min(axis=0)
            return -q.mean(), {"actor_loss": -q.mean()}

        actor, actor_metrics = _common.descend(actor_loss, state.actor, adam(hyper.actor_learning_rate))
        target_successor = polyak(successor.params, state.target_successor, hyper.tau)
        return State(actor, successor, target_successor, learnt), {**feature_metrics, **metrics, **actor_metrics}

    def serve(state: State, observation: Array, z: Array, key: Key) -> Array:
        return pi(state.actor.params, observation, z)

    def act(state: State, observation: Array, hyper: Any, key: Key, explore: bool) -> Array:
        action = pi(state.actor.params, observation, jnp.ones(config.features))
        return deterministic.smoothed(action, key, hyper.policy_noise, hyper.noise_clip) if explore else action

    def infer_z(state: State, observation: Array, reward: Array) -> Array:
        return fit(features.phi(state.features, observation), reward)

    def goal_z(state: State, goal: Array) -> Array:
        return losses.project_sphere((features.goal or features.phi)(state.features, goal))

    return Agent(init, update, act, sample, zero_shot=ZeroShot(infer_z, goal_z, serve))

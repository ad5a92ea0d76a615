"""Diffusion-QL: a diffusion policy that clones by denoising and is pulled towards large values through its whole chain.

In words. Critics: both fit y = r + gamma d min_j Q'_j(s', a'), with a' sampled from the averaged actor; with
``backup_candidates`` > 1, each critic's largest value over that many samples. Actor: minimise the denoising error of
the data's action minus ``eta`` Q_i(s, a0) / mean |Q_j(s, a0)|, held constant below the line, where a0 is sampled from
the actor and differentiated through every step, and the pair (i, j) is drawn anew each update. ``estimate="one_step"``
is EDP: a0 is instead what the noised data action denoises to in one step, at the price of one network call.
Order: critics, actor, averaged actor, target critics. Acting: ``candidates`` samples, the one of the largest min_j Q'_j
is taken; when exploring, one in proportion to exp(min_j Q'_j / ``temperature``).

Metrics: ``critic_loss`` sum over critics of the mean squared TD error; ``q`` mean value of data actions; ``target``
mean TD target; ``actor_loss``; ``bc_loss`` the denoising error; ``q_policy`` mean Q_i of a0;
with ``beer`` also ``beer_loss``, see ``_beer``.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import generative, losses, networks
from jaxrl_reg.agents import _beer, _common
from jaxrl_reg.errors import unknown
from jaxrl_reg.networks.denoisers import denoiser_mlp
from jaxrl_reg.policies import diffusion
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, PyTree, Spec, Transition, pytree, setting

PAPER = Paper(
    title="Diffusion Policies as an Expressive Policy Class for Offline Reinforcement Learning",
    authors="Wang, Hunt, Zhou",
    year=2023,
    url="https://arxiv.org/abs/2208.06193",
    deviations="Evaluation takes the best candidate of the averaged actor; the released code draws by softmax from the "
    "current one, which is what we do when exploring. The actor's average starts at once, not after 1000 updates. The "
    "network sees the time as (t + 1) / T. Option estimate=one_step is the action of EDP (Kang et al., 2023, "
    "arXiv 2305.20081), without its solver.",
)
KIND = "offline"
PROTOCOL = Protocol(
    sparse=(4.0, -2.0), batch_size=256, updates=2_000_000, note="AntMaze and the other tasks: 1,000,000 updates."
)
ESTIMATES = ("chain", "one_step")


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(256, 256, 256), help="widths of the hidden layers, of actor and critics")
    n_critics: int = setting(default=2, help="number of critics, at least 2; the target takes their minimum")
    steps: int = setting(default=5, help="denoising steps")
    estimate: str = setting(default="chain", help="the action in the actor's value term: chain, or one_step (EDP)")
    candidates: int = setting(default=50, help="samples among which the critics choose when acting", small=4)
    backup_candidates: int = setting(
        default=1, help="samples over which the target takes the largest value; 10 for AntMaze"
    )
    average_every: int = setting(default=5, help="updates per step of the actor's average")
    beer: float = _beer.coefficient()
    measure_features: bool = _beer.measured()


@pytree
class Hyper:
    actor_learning_rate: float = setting(default=3e-4, help="Adam step size of the actor")
    critic_learning_rate: float = setting(default=3e-4, help="Adam step size of the critics")
    discount: float = setting(default=0.99, help="gamma")
    tau: float = setting(
        default=0.005, help="step of the target critics, and of the averaged actor, towards the online ones"
    )
    eta: float = setting(
        default=1.0, help="weight of the value against denoising; 0 clones; 0.005 Kitchen, 0.5 to 4.5 AntMaze"
    )
    gradient_clip: float = setting(default=10.0, help="largest gradient norm, of actor and critics; 1 to 10 by task")
    temperature: float = setting(default=1.0, help="of the choice among candidates when exploring")


class State(NamedTuple):
    actor: _common.Trainable
    critic: _common.Trainable
    target_actor: PyTree
    target_critic: PyTree


def make(config: Config, spec: Spec) -> Agent:
    if config.estimate not in ESTIMATES:
        raise unknown("estimate", config.estimate, ESTIMATES)
    policy = diffusion.ddpm(denoiser_mlp(spec, config.hidden), spec, generative.vp_betas(config.steps))
    q = networks.q_network(spec, config.hidden, config.n_critics, activation="mish")

    def optimiser(learning_rate: Array | float, hyper: Hyper) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(hyper.gradient_clip), adam(learning_rate))

    def init(key: Key, hyper: Hyper) -> State:
        actor_key, critic_key = jax.random.split(key)
        actor, critic = policy.init(actor_key), q.init(critic_key)
        return State(
            _common.trainable(actor, optimiser(hyper.actor_learning_rate, hyper)),
            _common.trainable(critic, optimiser(hyper.critic_learning_rate, hyper)),
            _common.copy(actor),
            _common.copy(critic),
        )

    def bootstrap(state: State, batch: Transition, hyper: Hyper, key: Key) -> tuple[Array, _beer.Following]:
        shape = (config.backup_candidates,)
        next_action = policy.sample(state.target_actor, batch.next_observation, key, shape)
        next_observation = jnp.broadcast_to(batch.next_observation, (*shape, *batch.next_observation.shape))
        every_q, features = q.apply(state.target_critic, next_observation, next_action, features=True)  # [N, C, B, ...]
        next_q = every_q.max(axis=1)  # of each critic on its own
        target = losses.clipped_double_q_target(batch.reward, batch.discount, next_q, hyper.discount)
        best = every_q.argmax(axis=1)[:, None, :, None]
        features = jnp.take_along_axis(features, best, axis=1)[:, 0]
        return target, _beer.following(features, next_q, target, batch, hyper.discount)

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        next_key, loss_key, chain_key, pair_key = jax.random.split(key, 4)
        target, following = bootstrap(state, batch, hyper, next_key)

        def critic_loss(params):
            values, features = q.apply(params, batch.observation, batch.action, features=True)
            loss = losses.ensemble_td_error(values, target).mean()
            metrics = {"critic_loss": loss, "q": values.mean(), "target": target.mean()}
            return _beer.regularise(config.beer, loss, metrics, params, features, following)

        critic, metrics = _common.descend(critic_loss, state.critic, optimiser(hyper.critic_learning_rate, hyper))
        pair = jax.random.permutation(pair_key, config.n_critics)[:2]

        def actor_loss(params):
            error, aux = policy.loss(params, batch.observation, batch.action, loss_key)
            if config.estimate == "chain":
                action = policy.sample(params, batch.observation, chain_key)
            else:
                action = jnp.clip(aux["x0"], -1.0, 1.0)
            values = q.apply(critic.params, batch.observation, action)[pair]
            loss = losses.diffusion_ql_loss(error, values[0], values[1], hyper.eta).mean()
            return loss, {"actor_loss": loss, "bc_loss": error.mean(), "q_policy": values[0].mean()}

        actor, actor_metrics = _common.descend(actor_loss, state.actor, optimiser(hyper.actor_learning_rate, hyper))
        # A step of size 0 in between, not a condition, for which a GPU would wait for the host.
        rate = jnp.where(step % config.average_every == 0, hyper.tau, 0.0)
        target_actor = polyak(actor.params, state.target_actor, rate)
        target_critic = polyak(critic.params, state.target_critic, hyper.tau)
        return State(actor, critic, target_actor, target_critic), {**metrics, **actor_metrics}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        def critic(observation: Array, action: Array) -> Array:
            return q.apply(state.target_critic, observation, action).min(axis=0)

        how = {"method": "softmax", "temperature": hyper.temperature} if explore else {"method": "argmax"}
        return diffusion.best_of_k(policy, state.target_actor, observation, key, critic, config.candidates, **how)

    return Agent(init, update, act, measure=_beer.measure(config.measure_features, q, bootstrap))

"""Adversaries that learn by reinforcement what to show to a trained policy: SA-RL and PA-AD.

Both are PPO on ``envs.attacked``, in functions that can be mapped over victims: a victim is ``mean(observation
[..., O]) -> action [..., A]``, with the parameters of one member inside.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxrl_reg.agents.online import ppo
from jaxrl_reg.envs.attacked import Reward, attacked
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.attacks import Attack, Mean
from jaxrl_reg.loops.learnt import Learnt, attack_of
from jaxrl_reg.loops.online import online
from jaxrl_reg.transforms import directed
from jaxrl_reg.types import Agent, Array, Env, Key, Metrics, as_float32


class Budget(NamedTuple):
    """How long and with what an adversary learns; all static. ``steps`` are environment steps, rounded down to whole
    iterations of ``num_envs * unroll`` of them, one at least."""

    steps: int = 50_000
    num_envs: int = 16
    unroll: int = 64
    hidden: tuple[int, ...] = (64, 64)
    epochs: int = 4
    minibatches: int = 4

    @property
    def iterations(self) -> int:
        for name, value in (("steps", self.steps), ("num_envs", self.num_envs), ("unroll", self.unroll)):
            if value < 1:
                raise UserError(f"the budget of an adversary: {name}={value} must be at least 1")
        return max(1, self.steps // (self.num_envs * self.unroll))


BUDGET = Budget()
HYPER = ppo.Hyper(actor_learning_rate=1e-3, value_learning_rate=1e-3)


def sa_rl(
    victim: Mean,
    env: Env,
    epsilon: Array,
    key: Key,
    reward: Reward | None = None,
    budget: Budget = BUDGET,
    hyper: ppo.Hyper = HYPER,
) -> tuple[Attack, Metrics]:
    """An adversary whose action is the perturbation, in units of ``epsilon``.

    Args:
      victim: whom it attacks.
      env: one environment.
      epsilon: ``[O]``, the largest perturbation of each coordinate; may be traced.
      key: of its training.
      reward: what it is paid, as ``envs.attacked`` takes it; None: what the victim loses.
      budget: see ``Budget``.
      hyper: PPO's.
    Returns:
      The attack, and the metrics of training.
    Source: Zhang et al., 2021, Robust Reinforcement Learning on State Observations with Learned Optimal Adversary.
    """
    found, metrics = learn("sa_rl", victim, env, epsilon, key, reward, budget, hyper)
    return attack_of("sa_rl", found, victim, epsilon, env.spec, budget.hidden), metrics


def pa_ad(
    victim: Mean,
    env: Env,
    epsilon: Array,
    key: Key,
    reward: Reward | None = None,
    budget: Budget = BUDGET,
    hyper: ppo.Hyper = HYPER,
) -> tuple[Attack, Metrics]:
    """An adversary that says in which direction the victim's action shall move; a gradient step finds how.

    As ``sa_rl``; its actions have as many numbers as the victim's, which is what makes it learn faster where there are
    many observations.
    Source: Sun et al., 2022, Who Is the Strongest Enemy? Towards Optimal and Efficient Evasion Attacks in Deep RL.
    """
    found, metrics = learn("pa_ad", victim, env, epsilon, key, reward, budget, hyper)
    return attack_of("pa_ad", found, victim, epsilon, env.spec, budget.hidden), metrics


def world_of(kind: str, victim: Mean, env: Env, epsilon: Array, reward: Reward | None = None) -> Env:
    """Where an adversary of this kind (``sa_rl``, ``pa_ad``) learns."""

    def perturb(observation: Array, action: Array, key: Key) -> Array:
        return epsilon * action if kind == "sa_rl" else directed(victim, observation, action, key, epsilon)

    size = env.spec.observation_dim if kind == "sa_rl" else env.spec.action_dim
    return attacked(env, lambda observation, key: victim(observation), perturb, size, reward)


def agent_of(budget: Budget, world: Env) -> Agent:
    """The adversary as an agent in its world."""
    return ppo.make(ppo.Config(hidden=budget.hidden, epochs=budget.epochs, minibatches=budget.minibatches), world.spec)


def learn(
    kind: str,
    victim: Mean,
    env: Env,
    epsilon: Array,
    key: Key,
    reward: Reward | None = None,
    budget: Budget = BUDGET,
    hyper: ppo.Hyper = HYPER,
) -> tuple[Learnt, Metrics]:
    """What ``sa_rl`` and ``pa_ad`` are made of (``kind``), without the rest of the learner."""
    world, hyper = world_of(kind, victim, env, epsilon, reward), as_float32(hyper)
    agent, sizes = agent_of(budget, world), {"num_envs": budget.num_envs, "unroll": budget.unroll}
    run = online(agent, world, steps=budget.iterations * budget.num_envs * budget.unroll, **sizes)
    state, metrics = run(key, hyper)
    return kept(state.agent), metrics


def kept(state: ppo.State) -> Learnt:
    """What is kept of an adversary that is PPO's."""
    seen = state.statistics
    return Learnt(state.actor.params, seen.mean, jnp.sqrt(seen.variance + 1e-8))

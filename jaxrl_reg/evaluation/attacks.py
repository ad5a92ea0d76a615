"""Attacks on what a trained policy sees: each gives, for an observation, the perturbation that is added to it.

The policy acts on ``observation + perturbation``; the world moves by its true state. ``Attack``: ``(observation
[..., O], key) -> perturbation [..., O]``, every coordinate within ``epsilon``, which is a scalar or ``[O]``: where
coordinates differ in size, so many of their standard deviations (``moments``). A victim is ``mean(observation
[..., O]) -> action [..., A]``, deterministic and differentiable: the attacks know it (white box).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reg.evaluation.returns import Act
from jaxrl_reg.losses import action_deviation
from jaxrl_reg.transforms import directed, projected_ascent
from jaxrl_reg.types import Agent, Array, Env, EnvState, Key, Policy, PyTree, Spec, as_float32, memoryless

Attack = Callable[[Array, Key], Array]
Mean = Callable[[Array], Array]  # observation [..., O] -> action [..., A]
STEPS = 10  # gradient steps of an attack that is computed at every decision


def perturbed(act: Act, attack: Attack) -> Policy:
    """``act`` seeing what the attack makes of its observations; the policy's random numbers stay those it would have
    drawn without one."""
    policy = memoryless(act)

    def step(carry: Any, observation: Array, reward: Array, key: Key) -> tuple[Array, Any]:
        shift = attack(observation, jax.random.fold_in(key, 2**31 - 1))
        return policy.step(carry, observation + shift, reward, key)

    return policy._replace(step=step)


def none(observation: Array, key: Key) -> Array:
    """No attack, as one."""
    return jnp.zeros_like(observation)


def random_attack(epsilon: Array | float) -> Attack:
    """A uniform draw from the box: what noise of this size does."""

    def attack(observation: Array, key: Key) -> Array:
        return jnp.asarray(epsilon) * jax.random.uniform(key, observation.shape, minval=-1.0, maxval=1.0)

    return attack


def mad(mean: Mean, epsilon: Array | float, steps: int = STEPS) -> Attack:
    """Projected gradient ascent on how far the action moves, whereto does not matter (``pgd``).

    Source: Zhang et al., 2020, Robust Deep Reinforcement Learning against Adversarial Perturbations on State
    Observations, the maximal action difference.
    """

    def attack(observation: Array, key: Key) -> Array:
        plain = mean(observation)
        return projected_ascent(
            lambda x: action_deviation(plain, mean(x)), observation, key, epsilon, steps, start="sign"
        )

    return attack


def critic(mean: Mean, q: Callable[[Array, Array], Array], epsilon: Array | float, steps: int = STEPS) -> Attack:
    """Projected gradient descent on ``Q(s, mu(s~))``, the true state held: the value at a false one does not count.

    ``q(observation, action) -> [...]`` is the victim's own critic; of a targeted attack, minus that of the target.
    Source: Pattanaik et al., 2018, Robust Deep Reinforcement Learning with Adversarial Attacks, with its state held.
    """

    def attack(observation: Array, key: Key) -> Array:
        return projected_ascent(lambda x: -q(observation, mean(x)), observation, key, epsilon, steps)

    return attack


def towards(mean: Mean, intention: Mean, epsilon: Array | float, steps: int = STEPS) -> Attack:
    """Projected gradient ascent towards the action of another policy, at every decision."""

    def attack(observation: Array, key: Key) -> Array:
        wanted = intention(observation)
        return projected_ascent(lambda x: -action_deviation(wanted, mean(x)), observation, key, epsilon, steps)

    return attack


def learned(network: Mean, epsilon: Array | float) -> Attack:
    """A policy that gives perturbations, ``network(observation) -> [..., O]`` clipped to [-1, 1] (sa_rl, rat)."""
    return lambda observation, key: jnp.asarray(epsilon) * jnp.clip(network(observation), -1.0, 1.0)


def director(network: Mean, mean: Mean, epsilon: Array | float) -> Attack:
    """A policy that gives directions ``[..., A]`` in the space of the victim's actions; one gradient step finds the
    perturbation that moves the victim along (``pa_ad``)."""
    return lambda observation, key: directed(mean, observation, network(observation), key, epsilon)


def judged(env: Env, target: Callable[[EnvState, Array, EnvState], Array]) -> Env:
    """``env`` with what ``target(before, action, after)`` pays as the metric ``reward/target``, so that
    ``episode_returns`` tells its sum."""

    def reset(key: Key) -> EnvState:
        state = env.reset(key)
        return dataclasses.replace(state, metrics={**state.metrics, "reward/target": jnp.zeros(())})

    def step(state: EnvState, action: Array) -> EnvState:
        before = dataclasses.replace(state, metrics={k: v for k, v in state.metrics.items() if k != "reward/target"})
        after = env.step(before, action)
        paid = as_float32(target(before, jnp.clip(action, -1.0, 1.0), after))
        return dataclasses.replace(after, metrics={**after.metrics, "reward/target": paid})

    return env._replace(reset=reset, step=step)


def mean_of(agent: Agent, spec: Spec, state: PyTree, hyper: PyTree) -> Mean | None:
    """A trained agent as a victim; None for one whose action has no gradient by what it sees.

    Where actions are choices, these are twice the probabilities minus 1, of agents that tell them
    (``Agent.distribution``). An agent with a memory, or one that serves tasks, is none that these attacks know.
    """
    if agent.policy is not None or agent.zero_shot is not None:
        return None
    if not spec.discrete:
        return lambda observation: agent.act(state, observation, hyper, jax.random.key(0), False)
    spoken, actor = agent.distribution, getattr(state, "actor", None)
    if spoken is None or actor is None:
        return None

    def mean(observation: Array) -> Array:
        found = spoken(state, actor.params, observation)
        return jnp.tanh(found[0]) if isinstance(found, tuple) else 2.0 * jax.nn.softmax(found) - 1.0

    return mean


def moments(env: Env, episodes: int, steps: int) -> Callable[[Act, Key], tuple[Array, Array, Array]]:
    """How the observations that a policy sees are spread: ``(act, key) -> (count, mean [O], variance [O])``.

    Over the first ``steps`` steps of ``episodes`` episodes without an attack, each frozen once it has ended.
    """

    def run(act: Act, key: Key) -> tuple[Array, Array, Array]:
        policy = memoryless(act)
        first = jax.vmap(env.reset)(jax.random.split(jax.random.fold_in(key, 0), episodes))

        def body(carry: Any, t: Array) -> tuple[Any, tuple[Array, Array]]:
            state, alive, memory, reward = carry
            action, memory = policy.step(memory, state.observation, reward, jax.random.fold_in(key, t + 1))
            after = jax.vmap(env.step)(state, action)
            going = alive & (after.terminated + after.truncated == 0)
            return (after, going, memory, after.reward), (state.observation, alive.astype(jnp.float32))

        start = first, jnp.ones(episodes, bool), policy.start((episodes,)), jnp.zeros(episodes)
        _, (seen, alive) = jax.lax.scan(body, start, jnp.arange(steps))
        weight, count = alive[..., None], alive.sum()
        # Past its end a simulation may say anything, so select.
        mean = jnp.where(weight > 0, seen, 0.0).sum((0, 1)) / count
        return count, mean, jnp.where(weight > 0, jnp.square(seen - mean), 0.0).sum((0, 1)) / count

    return run

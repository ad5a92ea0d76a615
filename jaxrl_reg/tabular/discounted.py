"""Finite Markov decision processes with discounted rewards, given as arrays, and their exact solutions.

Shapes: ``S`` states, ``A`` actions. ``transition [S, A, S]`` holds the probabilities of the next state, ``reward
[S, A]`` the expected reward, ``policy [S, A]`` the action probabilities, ``terminal [S]`` is 1 where an episode ends on
entering. All solvers are pure, take traced arrays and can be mapped; each costs one dense solve, so S up to a few
hundred. Equations: Puterman, Markov Decision Processes (1994), chapter 6. ``envs.tabular`` makes an environment of such
a process; for processes with a fixed number of steps see ``tabular.finite_horizon``.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxrl_reg.losses import kl_regularised_value
from jaxrl_reg.types import Array

_einsum = functools.partial(jnp.einsum, precision="highest")


def random(states: int, actions: int, seed: int = 0) -> tuple[Array, Array]:
    """``transition [S, A, S]`` with Dirichlet(1) rows and ``reward [S, A]`` uniform in [0, 1]."""
    row, gain = jax.random.split(jax.random.key(seed))
    weights = jax.random.exponential(row, (states, actions, states))  # normalised, this is Dirichlet(1)
    return weights / weights.sum(-1, keepdims=True), jax.random.uniform(gain, (states, actions))


def state_transition(transition: Array, policy: Array) -> Array:
    """``[S, S]``, the probabilities of the next state under ``policy``."""
    return _einsum("sa,sat->st", policy, transition)


def policy_evaluation(
    transition: Array, reward: Array, policy: Array, discount: Array | float, terminal: Array | None = None
) -> tuple[Array, Array]:
    """``(V [S], Q [S, A])`` of ``policy``: V = (I - discount P)^-1 r, nothing being earned after a terminal state."""
    alive = _continuing(transition, terminal)
    mean_reward = _einsum("sa,sa->s", policy, reward)
    value = jnp.linalg.solve(jnp.eye(len(reward)) - discount * state_transition(alive, policy), mean_reward)
    return value, reward + discount * _einsum("sat,t->sa", alive, value)


def optimal_values(
    transition: Array, reward: Array, discount: Array | float, terminal: Array | None = None, iterations: int = 100
) -> tuple[Array, Array]:
    """``(V* [S], Q* [S, A])`` by policy iteration; ends when the greedy policy stays, at most after ``iterations``."""

    def greedy(q):
        return jax.nn.one_hot(jnp.argmax(q, axis=-1), q.shape[-1])

    def improve(carry):
        index, policy, _ = carry
        _, q = policy_evaluation(transition, reward, policy, discount, terminal)
        return index + 1, greedy(q), jnp.all(greedy(q) == policy)

    start = (0, greedy(jnp.asarray(reward, jnp.float32)), jnp.asarray(False))
    _, policy, _ = jax.lax.while_loop(lambda carry: (carry[0] < iterations) & ~carry[2], improve, start)
    return policy_evaluation(transition, reward, policy, discount, terminal)


def soft_optimal_values(
    transition: Array,
    reward: Array,
    discount: Array | float,
    temperature: Array | float,
    terminal: Array | None = None,
    iterations: int = 50,
) -> tuple[Array, Array, Array]:
    """``(V [S], Q [S, A], log-policy [S, A])`` of the best return plus ``temperature`` > 0 times the policy's entropy
    along the way: V = temperature log sum_a exp(Q / temperature), policy exp((Q - V) / temperature).

    Policy iteration, which here is Newton's method: a handful of solves; ends when only rounding changes, at most after
    ``iterations``. First derivatives are those of the solution, since its policy's own share in them vanishes; second
    ones are not. Maximum causal entropy: Ziebart, 2010.
    """
    alive = _continuing(transition, terminal)
    log_actions = jnp.log(float(reward.shape[-1]))
    uniform = jnp.full(reward.shape, -log_actions)

    def regularised(value):
        q = reward + discount * _einsum("sat,t->sa", alive, value)
        value, log_policy = kl_regularised_value(q, uniform, temperature)
        return value + temperature * log_actions, q, log_policy

    def evaluated(log_policy):
        policy = jnp.exp(log_policy)
        return policy_evaluation(alive, reward - temperature * log_policy, policy, discount)[0]

    def unfinished(carry):
        index, value, change = carry
        return (index < iterations) & (change > 4 * jnp.finfo(value.dtype).eps * jnp.abs(value).max())

    def improve(carry):
        index, value, _ = carry
        following = evaluated(regularised(value)[2])
        return index + 1, following, jnp.abs(following - value).max()

    nothing = jnp.zeros(len(reward), jnp.result_type(reward, transition, float))
    _, value, _ = jax.lax.while_loop(unfinished, improve, (0, nothing, jnp.asarray(jnp.inf, nothing.dtype)))
    fixed = jax.lax.stop_gradient(regularised(jax.lax.stop_gradient(value))[2])
    return regularised(evaluated(fixed))


def successor_measure(transition: Array, policy: Array, discount: Array | float) -> Array:
    """``M [S, A, S]``: M[s, a, x] = sum over k >= 0 of discount^k Pr(s_{k+1} = x | s_0 = s, a_0 = a, policy).

    Counts from the state that the first action leads to, as forward-backward representations do (Touati and Ollivier
    2021): M = P + discount P Pi M. For a reward r(next state), Q = M r.
    """
    chain = state_transition(transition, policy)
    return _einsum("sat,tx->sax", transition, jnp.linalg.inv(jnp.eye(len(chain)) - discount * chain))


def occupancy(transition: Array, policy: Array, discount: Array | float, initial: Array) -> Array:
    """``d [S, A]``, the discounted visitation (1 - discount) sum_k discount^k Pr(s_k = s, a_k = a); sums to 1."""
    chain = state_transition(transition, policy)
    states = jnp.linalg.solve(jnp.eye(len(chain)) - discount * chain.T, (1 - discount) * initial)
    return states[:, None] * policy


def _continuing(transition: Array, terminal: Array | None) -> Array:
    return transition if terminal is None else transition * (1 - jnp.asarray(terminal, jnp.float32))

"""Finite Markov decision processes given as arrays, and their exact solutions.

Shapes: ``S`` states, ``A`` actions. ``transition [S, A, S]`` holds the probabilities of the next state, ``reward
[S, A]`` the expected reward, ``policy [S, A]`` the action probabilities, ``terminal [S]`` is 1 where an episode ends on
entering. All solvers are pure, take traced arrays and can be mapped; each costs one dense solve, so S up to a few
hundred. Equations: Puterman, Markov Decision Processes (1994), chapter 6.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import core
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Env, Spec

_einsum = functools.partial(jnp.einsum, precision="highest")


def make(
    transition: Array | None = None,
    reward: Array | None = None,
    initial: Array | None = None,
    terminal: Array | None = None,
    observations: Array | None = None,
    episode_length: int = 100,
    states: int = 5,
    actions: int = 2,
    seed: int = 0,
    name: str = "tabular",
) -> Env:
    """The process as an environment; without arrays, a random one of ``states`` and ``actions`` drawn from ``seed``.

    An agent's action has one component in [-1, 1] for each of the ``A`` actions, and the largest one is taken (the
    first of equals), so agents for continuous actions work as they are; ``spec.discrete`` says so. Observations are
    one-hot unless ``observations [S, O]`` gives other features. ``initial [S]`` are the probabilities of the first
    state, uniform by default. ``inner`` is the state's number, int32.

    Raises ``UserError`` where shapes do not fit or probabilities are negative or do not sum to 1.
    """
    if (transition is None) != (reward is None):
        raise UserError("tabular: give both transition [S, A, S] and reward [S, A], or neither for a random process")
    if transition is None or reward is None:
        transition, reward = random(states, actions, seed)
    size, choices = np.shape(transition)[:2] if np.ndim(transition) == 3 else (0, 0)
    initial = jnp.full(size, 1 / max(size, 1)) if initial is None else initial
    terminal = jnp.zeros(size) if terminal is None else terminal
    observations = jnp.eye(size) if observations is None else observations
    for label, array, shape in (
        ("transition", transition, (size, choices, size)),
        ("reward", reward, (size, choices)),
        ("initial", initial, (size,)),
        ("terminal", terminal, (size,)),
        ("observations", observations, (size, np.shape(observations)[-1] if np.ndim(observations) else 0)),
    ):
        if np.shape(array) != shape or 0 in shape:
            raise UserError(f"tabular: {label} has shape {np.shape(array)}, expected {shape} (transition is [S, A, S])")
    for label, array in (("transition", transition), ("initial", initial)):
        array = np.asarray(array, np.float64)
        if (array < 0).any() or np.abs(array.sum(-1) - 1).max() > 1e-4:
            raise UserError(
                f"tabular: {label} must hold probabilities, not negative and summing to 1 over the last axis"
            )

    log_transition, log_initial = (jnp.log(jnp.asarray(array, jnp.float32)) for array in (transition, initial))
    reward, terminal, observations = (jnp.asarray(array, jnp.float32) for array in (reward, terminal, observations))

    def reset(key):
        state = jax.random.categorical(key, log_initial)
        return core.Outcome(state, observations[state])

    def step(state, action, key):
        choice = jnp.argmax(action)
        following = jax.random.categorical(key, log_transition[state, choice])
        return core.Outcome(following, observations[following], reward[state, choice], terminal[following])

    spec = Spec(observations.shape[-1], choices, discrete=True)
    return core.time_limit(core.environment(reset, step, spec, name), episode_length)


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

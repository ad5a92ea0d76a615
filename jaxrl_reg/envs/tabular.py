"""Finite Markov decision processes given as arrays, as environments; shapes and solvers as in ``tabular.discounted``,
whose functions can be had from here too."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.envs import core
from jaxrl_reg.errors import UserError
from jaxrl_reg.tabular.discounted import occupancy as occupancy
from jaxrl_reg.tabular.discounted import optimal_values as optimal_values
from jaxrl_reg.tabular.discounted import policy_evaluation as policy_evaluation
from jaxrl_reg.tabular.discounted import random as random
from jaxrl_reg.tabular.discounted import soft_optimal_values as soft_optimal_values
from jaxrl_reg.tabular.discounted import state_transition as state_transition
from jaxrl_reg.tabular.discounted import successor_measure as successor_measure
from jaxrl_reg.types import Array, Env, Spec


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

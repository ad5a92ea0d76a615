"""How able to learn a network still is: what its hidden layers, its weights and its next steps tell.

All are diagnostics, not goals: a network with a low rank and sleeping units may control best. Everything here is pure
and can be compiled, as in ``jax.jit(functools.partial(report, network))(params, observation, action)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import transforms
from jaxrl_reg.losses.representation import measured
from jaxrl_reg.types import Array, Key, Network, PyTree


def report(network: Network, params: PyTree, *inputs: Array, threshold: Array | float = 0.1) -> dict[str, Array]:
    """What is read off a network on a batch: a perceptron, residual blocks, or an ensemble of ``N`` of these.

    Args:
      network: its ``apply`` takes ``features="all"``, as those of ``mlp``, ``residual_mlp``, ``value_network`` and
        ``q_network`` do.
      params: parameters; of an agent ``state.critic.params`` and the like.
      inputs: ``[B, ...]`` each, what ``apply`` takes.
      threshold: share of a layer's mean activity up to which a unit is dormant.
    Returns:
      ``effective_rank``, ``srank``, ``feature_norm`` of the last hidden layer, ``kernel_norm`` of all weights, each
      ``[]`` or ``[N]``, and ``dormant`` ``[L]`` or ``[N, L]``, of every hidden layer.
    Raises:
      ValueError: a network without a hidden layer.
    """
    hidden = network.apply(params, *inputs, features="all")[1]
    if not hidden:
        raise ValueError("report: the network has no hidden layer to read anything off")
    each, norm = (lambda layers: measured(layers, threshold)), transforms.kernel_norm
    if hidden[-1].ndim == 3:
        each, norm = jax.vmap(each), jax.vmap(norm)
    return {**each(hidden), "kernel_norm": norm(params)}


def trainability(
    network: Network,
    params: PyTree,
    *inputs: Array,
    key: Key,
    steps: int = 100,
    learning_rate: Array | float = 1e-3,
) -> Array:
    """Mean squared error after ``steps`` of Adam towards random targets: less is abler to learn, 1 is nothing learnt.

    Targets are standard normal numbers around what the network says now, one for each of its outputs.

    Args:
      inputs: ``[B, ...]`` each, what ``apply`` takes; all rows are in every step.
      steps: static, at least 0.
    Returns:
      scalar, about 1 for 0 steps.
    Source: Lyle, Rowland and Dabney, 2022, Understanding and Preventing Capacity Loss in Reinforcement Learning,
      definition 1 (there targets of random networks).
    """
    now = network.apply(params, *inputs)
    targets = jax.lax.stop_gradient(now) + jax.random.normal(key, now.shape)
    optimiser = optax.adam(learning_rate)

    def error(params: PyTree) -> Array:
        return jnp.square(network.apply(params, *inputs) - targets).mean()

    def step(_: int, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        params, opt_state = carry
        changes, opt_state = optimiser.update(jax.grad(error)(params), opt_state, params)
        return optax.apply_updates(params, changes), opt_state

    return error(jax.lax.fori_loop(0, steps, step, (params, optimiser.init(params)))[0])


def churn(outputs: Array, previous: Array) -> Array:
    """Mean square of how far an update moved outputs ``[...]`` on rows that it did not see, a scalar."""
    return jnp.square(outputs - previous).mean()


def greedy_churn(values: Array, previous: Array) -> Array:
    """Share of rows whose best action is another one after an update; ``[..., A]`` each, values of all actions."""
    return (values.argmax(axis=-1) != previous.argmax(axis=-1)).mean()

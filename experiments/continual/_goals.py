"""A grid whose goals are tasks, with exact values and gradients, so that nothing but the objective differs.

State ``7 x + y`` of a 7 x 7 grid, moves +x, -x, +y, -y, clipped at the border. Values, entries into hazards and their
gradients come from unrolled dynamic programming (14 sweeps, discount 0.9) through shifts of the grid, so an update has
no noise. A policy is a softmax over the moves of a tanh MLP that sees where it is and the name of its goal: with the
goal's place as its name tasks generalise to each other, with a random name they do not.

Every objective that trains a policy holds some of its entropy: a deterministic policy has neither policy gradients nor
Fisher information, and what looks like lost plasticity is saturation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import arms
from jaxrl_reg import transforms

SIDE, STATES, ACTIONS = 7, 49, 4
DISCOUNT, SWEEPS, RATE = 0.9, 14, 3e-3
HIDDEN = (48, 48)
HAZARDS = np.zeros(STATES, np.float32)
HAZARDS[[7 * x + 3 for x in range(1, 6)]] = 1.0  # the middle row, but for its ends
PLACES = 6

Params = Any


def place(state: jax.Array | np.ndarray) -> jax.Array:
    """What is seen of states ``[...]``: ``(x, y)`` in [-1, 1], sine and cosine of 0.75 pi times both, ``[..., 6]``."""
    at = jnp.stack([state // SIDE, state % SIDE], axis=-1) / 3.0 - 1.0
    return jnp.concatenate([at, jnp.sin(0.75 * jnp.pi * at), jnp.cos(0.75 * jnp.pi * at)], axis=-1)


def random_names(key: jax.Array, count: int) -> jax.Array:
    """``[count, 6]`` random directions of length 1.5: names from which nothing generalises."""
    drawn = jax.random.normal(key, (count, PLACES))
    return 1.5 * drawn / jnp.linalg.norm(drawn, axis=-1, keepdims=True)


def observations(names: jax.Array, *more: jax.Array) -> jax.Array:
    """``[G, 49, 12]``: every state with each of the names ``[G, 6]``; ``more`` are further columns ``[G, n]``."""
    here = jnp.broadcast_to(place(jnp.arange(STATES)), (len(names), STATES, PLACES))
    given = [jnp.broadcast_to(one[:, None], (len(names), STATES, one.shape[-1])) for one in (names, *more)]
    return jnp.concatenate([here, *given], axis=-1)


def draw_goals(key: jax.Array, count: int) -> jax.Array:
    """``[count]`` different states."""
    return jax.random.permutation(key, STATES)[:count]


def initial(key: jax.Array, inputs: int = 2 * PLACES, hidden: tuple[int, ...] = HIDDEN) -> Params:
    """Weights of the MLP: kernels N(0, 1/in), the last a tenth of that; biases 0."""
    sizes = (inputs, *hidden, ACTIONS)
    keys = jax.random.split(key, len(sizes) - 1)
    params = {}
    for number, (one, rows, columns) in enumerate(zip(keys, sizes[:-1], sizes[1:], strict=True)):
        scale = (0.1 if number == len(hidden) else 1.0) / np.sqrt(rows)
        kernel = scale * jax.random.normal(one, (rows, columns))
        params[f"layer_{number}"] = {"kernel": kernel, "bias": jnp.zeros(columns)}
    return params


def outputs(params: Params, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits ``[..., 4]`` and the last hidden layer ``[..., 48]``."""
    hidden, (*layers, last) = observation, [params[name] for name in sorted(params)]
    for layer in layers:
        hidden = jnp.tanh(hidden @ layer["kernel"] + layer["bias"])
    return hidden @ last["kernel"] + last["bias"], hidden


def logits(params: Params, observation: jax.Array) -> jax.Array:
    """``[..., 4]``."""
    return outputs(params, observation)[0]


def following(values: jax.Array) -> jax.Array:
    """``[49, 4]``: of ``values [49]`` those of the states that the moves lead to. Shifts: gradients need no scatter."""
    grid = values.reshape(SIDE, SIDE)
    moved = (
        jnp.concatenate([grid[1:], grid[-1:]]),
        jnp.concatenate([grid[:1], grid[:-1]]),
        jnp.concatenate([grid[:, 1:], grid[:, -1:]], axis=1),
        jnp.concatenate([grid[:, :1], grid[:, :-1]], axis=1),
    )
    return jnp.stack([one.reshape(STATES) for one in moved], axis=-1)


def _swept(policy: jax.Array, paid: jax.Array, going_on: jax.Array) -> jax.Array:
    """``V(s) = sum_a pi (paid(s') + going_on(s') V(s'))`` after 14 sweeps from 0, ``[49]``."""
    reward, still = following(paid), following(going_on)
    value = jnp.zeros(STATES)
    for _ in range(SWEEPS):
        value = (policy * (reward + still * following(value))).sum(axis=-1)
    return value


def values(policy: jax.Array, goal: jax.Array) -> jax.Array:
    """Discounted value ``[49]`` of reaching ``goal`` with ``policy [49, 4]``: ``0.9^(T - 1)`` after ``T`` steps."""
    hit = jax.nn.one_hot(goal, STATES)
    return _swept(policy, hit, DISCOUNT * (1.0 - hit))


def entries(policy: jax.Array, goal: jax.Array) -> jax.Array:
    """Expected entries into hazards ``[49]`` within 14 steps, until the goal, undiscounted."""
    return _swept(policy, jnp.asarray(HAZARDS), 1.0 - jax.nn.one_hot(goal, STATES))


def over_starts(values: jax.Array, goal: jax.Array, starts: jax.Array | None = None) -> jax.Array:
    """Mean of ``values [49]`` over ``starts [49]`` (1 where one begins; None: everywhere), the goal left out."""
    weight = (1.0 if starts is None else starts) * (1.0 - jax.nn.one_hot(goal, STATES))
    return (weight * values).sum() / weight.sum()


def best(goal: jax.Array) -> jax.Array:
    """Value ``[49]`` of the shortest ways."""
    state = jnp.arange(STATES)
    distance = abs(state // SIDE - goal // SIDE) + abs(state % SIDE - goal % SIDE)
    return DISCOUNT ** (distance - 1.0)


def score(policy: jax.Array, goal: jax.Array) -> jax.Array:
    """Mean value over starts, as a share of the best possible."""
    return over_starts(values(policy, goal), goal) / over_starts(best(goal), goal)


def entropy(log_policy: jax.Array) -> jax.Array:
    """Mean entropy of ``[..., 4]`` log-probabilities, nats."""
    return -(jnp.exp(log_policy) * log_policy).sum(axis=-1).mean()


def scores(params: Params, seen: jax.Array, goals: jax.Array) -> jax.Array:
    """``[G]``, of a policy on goals ``[G]`` whose observations are ``[G, 49, O]``."""
    return jax.vmap(score)(jax.nn.softmax(logits(params, seen)), goals)


def fisher(params: Params, seen: jax.Array) -> Params:
    """Diagonal of the Fisher information over all rows of ``seen [..., O]``, its expectation over moves exact."""
    rows = seen.reshape(-1, seen.shape[-1])
    return transforms.fisher_diagonal(logits, transforms.categorical_metric, params, rows, chunk=STATES)


def ascend(
    objective: Callable[..., jax.Array], params: Params, updates: int, rate: float = RATE, xs: Any = None
) -> Params:
    """``params`` after so many Adam steps up ``objective(params)``, the optimiser's state new.

    With ``xs``, arrays ``[updates, ...]``, it is ``objective(params, x)``, one ``x`` for each step.
    """
    optimiser = optax.chain(optax.scale(-1.0), transforms.adam(rate))

    def step(carry, x):
        params, state = carry
        gradients = jax.grad(objective)(params, *(() if xs is None else (x,)))
        steps, state = optimiser.update(gradients, state, params)
        return (optax.apply_updates(params, steps), state), None

    return jax.lax.scan(step, (params, optimiser.init(params)), xs, length=updates)[0][0]


def pretrain(key: jax.Array, seen: jax.Array, goals: jax.Array, updates: int = 400, bonus: float = 0.02) -> Params:
    """A policy that has learnt all of ``goals`` together: mean score plus ``bonus`` times the mean entropy."""

    def objective(params):
        log_policy = jax.nn.log_softmax(logits(params, seen))
        return jax.vmap(score)(jnp.exp(log_policy), goals).mean() + bonus * entropy(log_policy)

    return ascend(objective, initial(key, seen.shape[-1]), updates)


def crossed(function: Callable[..., Any], starts: Any, settings: Sequence[Any]) -> Any:
    """``function(*start, setting)`` of every start with every setting, leaves ``[settings, starts, ...]``; ``starts``
    are arrays ``[starts, ...]``. They are members of one population, one after the other on each device."""
    stacked, count = jax.tree.map(lambda *leaves: jnp.stack(leaves), *settings), len(jax.tree.leaves(starts)[0])
    setting, start = np.divmod(np.arange(len(settings) * count), count)
    members = jax.tree.map(lambda leaf: leaf[start], starts), jax.tree.map(lambda leaf: leaf[setting], stacked)
    found = arms.over_devices(lambda member: function(*member[0], member[1]), members)
    return jax.tree.map(lambda leaf: leaf.reshape(len(settings), count, *leaf.shape[1:]), found)

"""Weights that cannot grow: the largest weight of a value network that is trained with its kernels companded.

Offline Q-learning in four rooms of 9 x 9 cells from 600 uniform transitions: a perceptron of two layers of 64 on eight
numbers of the cell's place, Adam, a target copied every 200 of 3,000 updates. With ``transforms.companded`` each kernel
is ``scale arctan(v / knee)`` of what is trained, both 2 initial standard deviations, so no weight used passes pi of
them. Metric: the largest weight in initial standard deviations of its kernel. The error to the exact values and the
share of cells from which the greedy path reaches the goal are said beside it; no claim is made on them.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import optax

from experiments.harness import Claim
from experiments.representation._pretrained import of_arms
from jaxrl_reg import networks
from jaxrl_reg.transforms import companded
from jaxrl_reg.transforms.companding import compand

CLAIM = Claim(
    statement="Companded kernels hold the largest weight of an offline critic below pi initial standard deviations, at "
    "least one below that of plain training. The function is a reconstruction; nothing is claimed on error or success",
    paper="https://arxiv.org/abs/2306.16993",
    method="companded",
    baselines=("plain",),
    ablation=None,
    metric="largest weight in initial standard deviations",
    systems=(73,),
    higher_is_better=False,
    margin=1.0,
    seeds=5,
    chosen="5 recorded seeds: below plain by 7.2, sd 1.2; power 1.00",
)
SIDE, ROWS, STEPS, BATCH, COPY, GAMMA, BOUND = 9, 600, 3000, 64, 200, 0.95, 2.0
DOORS, GOAL = ((4, 2), (4, 6), (2, 4), (6, 4)), (8, 8)
MOVES = jnp.array([[1, 0], [-1, 0], [0, 1], [0, -1]])


def rooms():
    """By cell: whether it is free ``[81]``, where each move leads ``[81, 4]``, 8 numbers of its place ``[81, 8]``."""
    x, y = jnp.divmod(jnp.arange(SIDE * SIDE), SIDE)
    free = (x != 4) & (y != 4)
    for door in DOORS:
        free |= (x == door[0]) & (y == door[1])
    at = jnp.stack([x, y], -1)
    to = jnp.clip(at[:, None] + MOVES, 0, SIDE - 1)
    to = to[..., 0] * SIDE + to[..., 1]
    to = jnp.where(free[to], to, jnp.arange(SIDE * SIDE)[:, None])
    place = at / 4.0 - 1.0
    return free, to, jnp.concatenate([place, jnp.sin(3.0 * place), jnp.cos(3.0 * place), jnp.square(place)], -1)


def exact(to, goal):
    """``Q*`` ``[81, 4]``: reward 1 on entering the goal, which ends the episode."""

    def back(_, q):
        return jnp.where(to == goal, 1.0, GAMMA * q.max(-1)[to])

    return jax.lax.fori_loop(0, 100, back, jnp.zeros(to.shape))


def largest(params, bounded):
    """Largest absolute kernel weight that is used, in standard deviations of its first values."""
    sizes = []
    for layer in params.values():
        weight = jnp.abs(layer["kernel"]) * math.sqrt(3.0 * layer["kernel"].shape[0])
        sizes.append((compand(weight, BOUND, BOUND) if bounded else weight).max())
    return jnp.stack(sizes).max()


def trained(key, bounded):
    """Largest weight, root mean squared error to ``Q*``, and share of cells whose greedy path reaches the goal."""
    free, to, place = rooms()
    goal = GOAL[0] * SIDE + GOAL[1]
    start_key, act_key, init_key, key = jax.random.split(key, 4)
    usable = free & (jnp.arange(SIDE * SIDE) != goal)
    cell = jax.random.choice(start_key, SIDE * SIDE, (ROWS,), p=usable / usable.sum())
    action = jax.random.randint(act_key, (ROWS,), 0, 4)
    after = to[cell, action]
    network = networks.mlp((8, 64, 64, 4))
    network = companded(network, BOUND, BOUND) if bounded else network
    params, optimiser = network.init(init_key), optax.adam(1e-3)

    def loss(params, slow, rows):
        target = jnp.where(after[rows] == goal, 1.0, GAMMA * network.apply(slow, place[after[rows]]).max(-1))
        value = network.apply(params, place[cell[rows]])[jnp.arange(BATCH), action[rows]]
        return jnp.square(value - target).mean()

    def body(carry, inputs):
        (params, slow, moments), (key, i) = carry, inputs
        slow = jax.tree.map(lambda new, old: jnp.where(i % COPY == 0, new, old), params, slow)
        rows = jax.random.randint(key, (BATCH,), 0, ROWS)
        changes, moments = optimiser.update(jax.grad(loss)(params, slow, rows), moments)
        return (optax.apply_updates(params, changes), slow, moments), None

    carry = params, params, optimiser.init(params)
    (params, _, _), _ = jax.lax.scan(body, carry, (jax.random.split(key, STEPS), jnp.arange(STEPS)))
    q = network.apply(params, place)
    error = jnp.sqrt((jnp.square(q - exact(to, goal)).mean(-1) * usable).sum() / usable.sum())
    path = jax.lax.fori_loop(
        0, 40, lambda _, at: jnp.where(at == goal, at, to[at, q.argmax(-1)[at]]), jnp.arange(SIDE * SIDE)
    )
    return largest(params, bounded), error, ((path == goal) * usable).sum() / usable.sum()


def run(seeds, scale, say):
    values, line = {}, "{}: largest weight {:.2f}; error to the exact values {:.3f}; {:.2f} of cells reach the goal"
    for arm in ("companded", "plain"):
        found = of_arms(lambda key, _, arm=arm: trained(key, arm == "companded"), seeds, jnp.zeros(1))
        means = [part.mean() for part in found]
        say(line.format(arm, *means))
        values[arm] = found[0][:, 0].tolist()
    return values

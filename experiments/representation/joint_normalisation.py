"""Q-learning without a target network, which batch normalisation keeps from diverging: CrossQ's ablation on a grid.

The offline grid of ``_rooms`` and a DQN 6-64-64-4 as in ``plasticity``: 8,000 Adam steps of 64 rows, here with a first
decay of 0.5 as in CrossQ, and inputs and hidden layers batch-normalised. In one pass over rows and their successors
both are standardised by the moments of the mixture; in two, each by its own, so that values and targets come from two
networks. Judged by the error to Q* through running moments, as a logarithm that ends at 1 (an error of ten); the share
of cells whose greedy path reaches the goal is printed.

That one pass is what matters, as the paper has it, does not come out here. On seeds 0 to 5 means of error and success
were: one pass 0.26, 0.07; two passes 0.22, 0.13; no normalisation 1.66, 0.00; a target network without normalisation
1.12, 0.09.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import Claim
from experiments.representation import _rooms
from jaxrl_reg import losses, networks
from jaxrl_reg.networks.normalisation import renormalised_mlp
from jaxrl_reg.transforms import adam

CLAIM = Claim(
    statement="Without a target network, Q-learning on sparse data with a critic that is batch-normalised in one pass "
    "over rows and their successors ends nearer to Q* than without normalisation: an error smaller by a factor of 1.6 "
    "at least. Not claimed, because it is not so here: that one pass does better than two, or that it controls well",
    paper="https://openreview.net/forum?id=PczQtTsTIX",
    method="one pass",
    baselines=("no normalisation",),
    ablation=None,
    metric="log10 of the root mean squared error to Q*, at most 1",
    higher_is_better=False,
    margin=0.2,
    seeds=32,
    chosen="16 recorded seeds: lower by 0.70, sd 0.69; some seeds diverge with every arm, hence the logarithm and "
    "the bound",
    revision=2,  # the first, the error itself, was decided by that seed
)
SIZES = (_rooms.INPUTS, 64, 64, _rooms.MOVES)
BATCH, COPY, RATE = 64, 200, 1e-3
UPDATES = {"small": 8_000, "full": 40_000}
ARMS = ("one pass", "two passes", "no normalisation", "target network")


def trained(arm: str, updates: int, place: _rooms.World) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """``key -> metrics`` of one DQN."""
    normalised, perceptron = renormalised_mlp(SIZES), networks.mlp(SIZES)
    plain, following = arm in ("no normalisation", "target network"), place.following

    def apply(params: Any, moments: Any, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:
        return (perceptron.apply(params, x), moments) if plain else normalised.apply(params, moments, x, train)

    def both(params: Any, moments: Any, target: Any, now: jax.Array, after: jax.Array) -> tuple[jax.Array, ...]:
        """Values ``[B, 4]`` of rows and of their successors, and the moments afterwards."""
        if arm == "one pass":
            values, moments = apply(params, moments, jnp.concatenate([now, after]), True)
            return values[:BATCH], values[BATCH:], moments
        values, moments = apply(params, moments, now, True)
        next_values, moments = apply(target if arm == "target network" else params, moments, after, True)
        return values, next_values, moments

    def run(key: jax.Array) -> dict[str, jax.Array]:
        key, data_key, first_key = jax.random.split(key, 3)
        cells, moves = _rooms.drawn(data_key, place)
        first = _rooms.widened((perceptron if plain else normalised).init(first_key))
        optimiser = adam(RATE, b1=0.5)

        def loss(params: Any, moments: Any, target: Any, cells: jax.Array, moves: jax.Array) -> tuple[jax.Array, Any]:
            after = following[cells, moves]
            values, ahead, moments = both(params, moments, target, place.seen[cells], place.seen[after])
            aim = place.reward[cells, moves] + _rooms.GAMMA * (1.0 - place.goal[after]) * ahead.max(-1)
            chosen = jnp.take_along_axis(values, moves[:, None], 1)[:, 0]
            return losses.squared_td_error(chosen, jax.lax.stop_gradient(aim)).mean(), moments

        def step(carry: tuple, i: jax.Array) -> tuple[tuple, None]:
            params, opt_state, moments, target = carry
            target = jax.tree.map(lambda new, old: jnp.where(i % COPY == 0, new, old), params, target)
            rows = jax.random.randint(jax.random.fold_in(key, i), (BATCH,), 0, _rooms.ROWS)
            gradients, moments = jax.grad(loss, has_aux=True)(params, moments, target, cells[rows], moves[rows])
            changes, opt_state = optimiser.update(gradients, opt_state, params)
            return (optax.apply_updates(params, changes), opt_state, moments, target), None

        carry = (first, optimiser.init(first), () if plain else normalised.start(), first)
        params, _, moments, _ = jax.lax.scan(step, carry, jnp.arange(updates))[0]
        return _rooms.judged(place, apply(params, moments, place.seen, False)[0])

    return run


def run(seeds, scale, say):
    place = _rooms.world()
    error = _rooms.of_arms({arm: trained(arm, UPDATES[scale], place) for arm in ARMS}, seeds, say, "rmse")
    return {arm: np.minimum(np.log10(values), 1.0).tolist() for arm, values in error.items()}

"""A reward learnt from answers: which of two pieces of episodes someone prefers, asked where an ensemble disagrees.

An ensemble of three, fitted by Bradley-Terry on sums over the pieces. Of many candidates those are asked about on
which the members' probabilities differ most; in the first round, any.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _common
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Array, Key, PyTree

MEMBERS = 3
CANDIDATES = 10  # pairs looked at for each that is asked about


class Pairs(NamedTuple):
    """Segments ``[L, S, D]`` that were asked about, which of the two was preferred ``[L]``, how many there are, and
    where the next goes."""

    first: Array
    second: Array
    preference: Array
    count: Array
    place: Array


class Preferred(NamedTuple):
    """The ensemble, the standard deviation of its mean reward over the labelled steps, and the answers."""

    model: _common.Trainable
    spread: Array
    pairs: Pairs


class Preferences(NamedTuple):
    """Pure functions over ``Preferred``.

    ``init(key)``; ``ask(state, features [T, E, D], paid [T, E], key, first)``, a round of questions about segments of a
    trajectory of which the judge's pay per step is ``paid``, and a fit to all answers; ``pay(state, features [..., D])
    -> [...]``, the reward in units of ``spread``; ``agreement(state)``, the share of the pairs that it orders as the
    judge.
    """

    init: Callable[[Key], Preferred]
    ask: Callable[[Preferred, Array, Array, Key, Array], Preferred]
    pay: Callable[[Preferred, Array], Array]
    agreement: Callable[[Preferred], Array]


def _doubtful(
    rewards: Callable[[Array], Array],
    features: Array,
    paid: Array,
    keys: tuple[Key, Key],
    count: int,
    segment: int,
    first: Array,
) -> tuple[Array, Array]:
    """Pairs of segments ``[count, 2, S, D]`` that the members disagree about, and by how much the judge is paid more
    for the first of each, ``[count]``; anything where ``first``."""
    (length, lanes), (start_key, lane_key), shape = paid.shape, keys, (CANDIDATES * count, 2)
    start = jax.random.randint(start_key, shape, 0, length - segment + 1)
    lane = jax.random.randint(lane_key, shape, 0, lanes)
    times = start[..., None] + jnp.arange(segment)
    segments = features[times, lane[..., None]]  # [N, 2, S, D]
    returns = rewards(segments).sum(-1)  # [3, N, 2]
    doubt = jax.nn.sigmoid(returns[..., 0] - returns[..., 1]).std(axis=0)
    doubt = jnp.where(first, jnp.arange(len(doubt), dtype=jnp.float32), doubt)
    chosen = jax.lax.top_k(doubt, count)[1]
    worth = paid[times, lane[..., None]].sum(-1)[chosen]
    return segments[chosen], worth[:, 0] - worth[:, 1]


def preferences(
    inputs: int,
    hidden: tuple[int, ...],
    *,
    labels: int,
    rounds: int,
    segment: int,
    steps: int,
    beta: float,
    learning_rate: Array | float,
) -> Preferences:
    """The functions for features of ``inputs`` numbers.

    Args:
      inputs: ``D``.
      hidden: widths of each member.
      labels: answers that are kept, ``L``; new ones take the place of the oldest.
      rounds: among which they are divided.
      segment: steps of a segment, ``S``.
      steps: of Adam after each round.
      beta: how sure the judge is, per unit of the sum of its pay; 0: always right, and ties are halves.
      learning_rate: of Adam; may be traced.
    """
    network = networks.ensemble(networks.mlp((inputs, *hidden, 1), activation="relu"), MEMBERS)
    optimiser = adam(learning_rate)

    def init(key: Key) -> Preferred:
        empty = jnp.zeros((labels, segment, inputs))
        pairs = Pairs(empty, empty, jnp.zeros(labels), jnp.int32(0), jnp.int32(0))
        return Preferred(_common.trainable(network.init(key), optimiser), jnp.float32(1.0), pairs)

    def rewards(params: PyTree, features: Array) -> Array:
        return network.apply(params, features)[..., 0]  # [3, ...]

    def known(pairs: Pairs) -> Array:
        return jnp.arange(labels) < pairs.count

    def answered(state: Preferred, features: Array, paid: Array, key: Key, first: Array) -> Pairs:
        """The answers with those of a round among them."""
        *choose_keys, label_key = jax.random.split(key, 3)
        count, pairs = labels // rounds, state.pairs
        of_all = functools.partial(rewards, state.model.params)
        segments, gap = _doubtful(of_all, features, paid, tuple(choose_keys), count, segment, first)
        preference = jnp.where(gap == 0, 0.5, (gap > 0).astype(jnp.float32))
        if beta > 0:
            preference = jax.random.bernoulli(label_key, jax.nn.sigmoid(beta * gap)).astype(jnp.float32)
        place = (pairs.place + jnp.arange(count)) % labels  # over the oldest
        return Pairs(
            pairs.first.at[place].set(segments[:, 0]),
            pairs.second.at[place].set(segments[:, 1]),
            pairs.preference.at[place].set(preference),
            jnp.minimum(pairs.count + count, labels),
            place[-1] + 1,
        )

    def sums(params: PyTree, pairs: Pairs) -> tuple[Array, Array]:
        """Returns of the segments under each member, ``[3, L]`` each."""
        first, second = (rewards(params, x).sum(-1) for x in (pairs.first, pairs.second))
        return first, second

    def ask(state: Preferred, features: Array, paid: Array, key: Key, first: Array) -> Preferred:
        pairs = answered(state, features, paid, key, first)

        def loss(params: PyTree) -> tuple[Array, None]:
            left, right = sums(params, pairs)
            rows = losses.bradley_terry_loss(left, right, jnp.broadcast_to(pairs.preference, left.shape))
            return jnp.where(known(pairs), rows, 0.0).sum() / pairs.count, None

        def step(model: _common.Trainable, _: None) -> tuple[_common.Trainable, None]:
            return _common.descend(loss, model, optimiser)[0], None

        model, _ = jax.lax.scan(step, state.model, None, length=steps)
        paid_now = rewards(model.params, pairs.first).mean(0)  # [L, S]
        weight = known(pairs)[:, None] / (pairs.count * segment)
        mean = (weight * paid_now).sum()
        spread = jnp.sqrt((weight * jnp.square(paid_now - mean)).sum())
        return Preferred(model, jnp.maximum(spread, 1e-3), pairs)

    def pay(state: Preferred, features: Array) -> Array:
        return rewards(state.model.params, features).mean(0) / state.spread

    def agreement(state: Preferred) -> Array:
        first, second = (x.mean(0) for x in sums(state.model.params, state.pairs))
        right = (first > second) == (state.pairs.preference > 0.5)
        return (known(state.pairs) & right).sum() / jnp.maximum(known(state.pairs).sum(), 1)

    return Preferences(init, ask, pay, agreement)

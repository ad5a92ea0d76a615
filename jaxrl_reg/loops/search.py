"""Runs that look for policies without gradients: novelty search and what has been made of it, as one search.

=========  =============================  ==========  ========
method     who goes on                    emitters    outcome
=========  =============================  ==========  ========
stax       the newest or most surprising  yes         learnt
serene     the newest                     yes         the place
taxons     the newest or most surprising  no          learnt
novelty    the newest                     no          the place
fitness    the fittest                    no          the place
=========  =============================  ==========  ========

These runs act in the world and learn, but are no agents: what they do between two segments needs the environment.

Sources: Paolo, Coninx, Laflaquiere, Doncieux, 2024, Discovering and Exploiting Sparse Rewards in a Learned Behavior
Space (STAX); Paolo et al., 2020 (TAXONS) and 2021 (SERENE); Lehman, Stanley, 2011 (novelty search). Deviations: a round
is a fixed number of generations, then emitters side by side for fixed numbers of steps, then the encoder's updates;
emitters' solutions enter only the archive of rewarding ones, which keeps the best when it is full; the encoder is
trained every round, without a validation set.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.loops._search import (
    EMITTING,
    METHODS,
    SIDE,
    Found,
    Hyper,
    Search,
    SearchState,
    Sizes,
    evaluation,
    first_key,
    genes_of,
)
from jaxrl_reg.loops.offline import TRAIN, per_segment
from jaxrl_reg.types import Array, Env, EnvState, Key, Network, PyTree, Run

__all__ = [
    "METHODS",
    "SIDE",
    "Found",
    "Hyper",
    "SearchState",
    "Sizes",
    "diversify",
    "evaluation",
    "first_key",
    "genes_of",
    "within",
]

SMALLER = (  # for few evaluations, largest first
    Sizes(),
    Sizes(16, archived=3, neighbours=10, rewarding=256, emitters=8, candidates=1, chosen=1, steps=5),
    Sizes(8, generations=3, archived=2, neighbours=5, rewarding=64, emitters=4, candidates=1, chosen=1, steps=3),
)
ENOUGH_ROUNDS = 5


def within(evaluations: int) -> tuple[Sizes, int]:
    """Sizes of a search with emitters, and the number of rounds, for at most so many evaluations: the largest that has
    ``ENOUGH_ROUNDS``. Raises ``UserError`` where they are too few for a single round of the smallest."""
    for sizes in SMALLER:
        if sizes.rounds(evaluations) >= ENOUGH_ROUNDS:
            return sizes, sizes.rounds(evaluations)
    least = SMALLER[-1]
    if least.rounds(evaluations) < 1:
        needed = least.population + least.evaluations(True)
        raise UserError(f"a search needs at least {needed} episodes, and there is room for {evaluations}")
    return least, least.rounds(evaluations)


def diversify(
    env: Env,
    policy: Network,
    *,
    method: str = "stax",
    rounds: int,
    segments: int = 1,
    sizes: Sizes | None = None,
    view: Callable[[EnvState], Array] | None = None,
    encoder: Network | None = None,
    code: int = 10,
    keep: bool = False,
) -> Run:
    """A search for policies that end up everywhere, and for those among them that are rewarded.

    A solution is the weights of ``policy``, played for one episode; its fitness is the episode's return, and it is
    rewarding if that is above 0. Every episode begins with the same key, so that a solution has one outcome.

    Args:
      env: a single environment.
      policy: ``observation [..., O] -> action [..., A]``, such as ``search.outcomes.policy(env.spec)``.
      method: one of ``METHODS``, see the module.
      rounds: parts of equal cost, ``Sizes.evaluations`` each. By default methods without emitters have more
        generations instead, so that a round costs every method the same.
      segments: number of equal parts; metrics are those at their ends.
      sizes: how much a round does.
      view: ``EnvState -> [V]``, what the encoder sees of an episode's end; the last observation by default.
      encoder: ``[..., V] -> [..., D]``, by default a small one with ``code`` features.
      code: features of the default encoder.
      keep: whether every solution is kept, in ``state.found.tried``.

    Returns:
      A ``Run`` without data whose hyperparameters are ``Hyper``; the state is a ``SearchState``. Metrics: ``coverage``
      and ``qd_score`` of a grid over the world's map (worlds with tasks), ``max_fitness``, ``rewarding`` and ``novel``
      (rows of the archives), ``emitters`` at work, ``evaluations`` so far, ``reconstruction`` error of the encoder.

    Raises:
      UserError: for an unknown method, one that needs places in a world without tasks, or rounds that do not divide.
    """
    if method not in METHODS:
        raise unknown("method of search", method, METHODS)
    if env.tasks is None and method in ("serene", "novelty"):
        raise UserError(f"{method} compares places, and {env.name} has no tasks that say what a place is; take stax")
    length = per_segment(rounds, segments)
    if sizes is None:
        sizes = Sizes() if method in EMITTING else Sizes().without_emitters()
    search = Search(env, policy, method, sizes, view or (lambda state: state.final_observation), encoder, code, keep)

    def init(key: Key, hyper: Hyper) -> SearchState:
        return search.begin(key, hyper, rounds)

    def train(state: SearchState, index: Array, key: Key, hyper: Hyper, data: PyTree = None):
        stream = jax.random.fold_in(key, TRAIN)

        def body(state: SearchState, i: Array) -> tuple[SearchState, None]:
            return search.round(state, jax.random.fold_in(stream, index * length + i), key, hyper), None

        state, _ = jax.lax.scan(body, state, jnp.arange(length))
        return state, search.metrics(state)

    return Run(init, train, None, segments, length)

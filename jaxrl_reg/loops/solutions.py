"""Data sets from what a search has found: the episodes of solutions, played again as they were."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import data
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops.rollout import transition
from jaxrl_reg.loops.search import first_key, genes_of
from jaxrl_reg.types import Array, Dataset, Env, Key, Network, Transition

AT_ONCE = 64  # episodes side by side


def episodes(env: Env, policy: Network, key: Key, genome: Array, *, name: str) -> Dataset:
    """Every step of one episode of each ``genome [N, G]``, episode after episode.

    They begin as those of the search whose member's ``key`` this is, so that returns are the fitness found there;
    ``extras["physics"]`` holds the world's state for one with tasks. Raises ``UserError`` where there is no genome, or
    one of another network than ``policy``.
    """
    size, unravel = genes_of(policy)
    genome = np.asarray(genome, np.float32)
    if len(genome) == 0:
        raise UserError(f"{name}: there are no solutions to play")
    if genome.shape[1] != size:
        raise UserError(f"{name}: solutions have {genome.shape[1]} weights, the policy {size}")
    tasks = env.tasks
    extras = None if tasks is None else (lambda state: {"physics": tasks.physics(state)})

    def episode(weights: Array) -> tuple[Transition, Array]:
        params = unravel(weights)

        def body(carry, _):
            state, alive = carry
            action = policy.apply(params, state.observation)
            following = env.step(state, action)
            row = transition(state, action, following, extras)
            return (following, alive & (row.last == 0)), (row, alive)

        start = (env.reset(first_key(key)), jnp.bool_(True))
        return jax.lax.scan(body, start, None, length=env.spec.max_episode_steps)[1]

    play, kept = jax.jit(jax.vmap(episode)), []
    for begin in range(0, len(genome), AT_ONCE):
        some = genome[begin : begin + AT_ONCE]
        padded = np.concatenate([some, np.zeros((AT_ONCE - len(some), size), np.float32)])
        rows, alive = jax.device_get(play(padded))
        alive = alive & (np.arange(AT_ONCE) < len(some))[:, None]  # not those that fill up
        kept.append(jax.tree.map(lambda leaf, alive=alive: leaf[alive], rows))
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:, None], *kept)  # one environment after the other
    return data.from_transitions(whole, name=name)

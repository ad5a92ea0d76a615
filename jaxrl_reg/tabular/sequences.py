"""Short sequences of few tokens, exactly: all of them enumerated, or as a process whose state is the last token.

A policy that remembers its whole prefix is scored on all ``N = V^T`` sequences: probabilities then sum to 1, KL
divergences are ``losses.categorical_kl`` of two rows ``[N]``, the best policy for ``E r - beta KL`` is
``losses.kl_regularised_value(r [N], log_ref [N], beta)``, and win rates are ``preference_game.win_rate``. A policy that
looks at the position and the previous token only is a table ``log_policy [T, V + 1, V]`` (row ``V``: nothing yet), and
``tabular.finite_horizon`` has its values, optima and divergences at the cost of ``T (V + 1) V`` instead of ``V^T``.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.losses.tokens import completion_mask
from jaxrl_reg.tabular.finite_horizon import Process
from jaxrl_reg.types import Array

MOST = 262_144  # sequences that are enumerated: 8 tokens, 6 positions


def everything(vocabulary: int, length: int, end: int | None = None) -> tuple[Array, Array]:
    """All sequences in lexicographic order: ``tokens [N, T]`` int32 and their mask ``[N, T]`` float32.

    With ``end`` a sequence stops at that token, which counts; what follows it is padding, written as ``end`` under a
    mask of 0, and every sequence stands once. Runs on the host.

    Raises:
      UserError: more than 262,144 sequences, or an end token outside the vocabulary.
    """
    if vocabulary < 1 or length < 1 or vocabulary**length > MOST:
        raise UserError(f"{vocabulary} tokens in {length} places are not from 1 to {MOST:,} sequences; take fewer")
    if end is not None and not 0 <= end < vocabulary:
        raise UserError(f"end={end} is no token of a vocabulary of {vocabulary}")
    tokens = np.array(list(itertools.product(range(vocabulary), repeat=length)), np.int32)
    if end is None:
        return jnp.asarray(tokens), jnp.ones(tokens.shape, jnp.float32)
    mask = np.asarray(completion_mask(jnp.asarray(tokens), end))
    once = ((mask > 0) | (tokens == end)).all(-1)  # of those alike up to their end, the one padded with it
    return jnp.asarray(tokens[once]), jnp.asarray(mask[once])


def token_process(reward: Array) -> Process:
    """The process of ``T`` tokens with ``reward [T, V + 1, V]`` of each given the position and the token before it.

    States are the previous token, ``V`` before the first; actions are tokens; every transition is certain.
    """
    length, states, vocabulary = reward.shape
    following = jnp.broadcast_to(jnp.eye(vocabulary, states), (length, states, vocabulary, states))
    return Process(following, reward, jax.nn.one_hot(vocabulary, states))


def chain_logprobs(log_policy: Array, tokens: Array) -> Array:
    """``log pi(y_t | t, y_{t-1})`` of every token, ``[..., T]``, for a table ``log_policy [T, V + 1, V]``."""
    length, states, _ = log_policy.shape
    return log_policy[jnp.arange(length), previous(tokens, states - 1), tokens]


def previous(tokens: Array, start: int) -> Array:
    """The token before each, ``[..., T]``; ``start`` before the first."""
    return jnp.concatenate([jnp.full_like(tokens[..., :1], start), tokens[..., :-1]], axis=-1)

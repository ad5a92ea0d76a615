"""A memory of fixed size by hashing: attention over a long history whose cost does not grow with the history.

A signature is ``W`` bits: on which sides of ``W`` random planes a vector lies. Values are summed up in a table by their
keys' signatures, of which there are ``G``; a read looks up the query's and takes the mean over signatures. Two vectors
at the angle ``theta`` share a signature with probability ``(1 - theta / pi)^W``, so a read is an attention whose
weights depend on the angle only: ``collision_weights`` is its expectation. Train keys and queries through that, since
signatures have no gradient, and act by the table.

What does not matter must be rare: of ``n`` distinct keys, ``n 2^-W`` fall into the query's bucket by chance, which
should be at most about 1/2. A key and its negation never meet: keys should be centred, or learnt.

Pure functions without parameters; ``rotations`` ``[G, W, D]`` are standard normal, drawn once and kept. Source: Cao et
al., 2022, Sampling Is All You Need on Modeling Long-Term User Behaviors (SDIM); signatures by Charikar, 2002.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_reg.types import Array, Key

SMALLEST = 1e-6  # length below which a sum counts as being this long
EDGE = 1.0 - 1e-6  # cosines are held inside, where the angle has a slope


def rotations(key: Key, signatures: int, width: int, size: int) -> Array:
    """``[signatures, width, size]``: the planes of ``signatures`` hashes of ``width`` bits for vectors ``[size]``."""
    return jax.random.normal(key, (signatures, width, size))


def simhash(x: Array, planes: Array) -> Array:
    """Signatures of ``x [..., D]``: int32 ``[..., G]``, 0 to ``2^W - 1``. Zero vectors have 0 in every one."""
    bits = jnp.einsum("...d,gwd->...gw", x, planes) > 0
    return (bits * 2 ** jnp.arange(planes.shape[1])).sum(axis=-1).astype(jnp.int32)


def collision_weights(query: Array, keys: Array, width: int) -> Array:
    """Chance that query and key share a signature of ``width`` bits: ``[..., D]``, ``[..., L, D]`` to ``[..., L]``.

    Differentiable in both. The cosine is clipped just inside -1 and 1; a vector shorter than 1e-6 counts as that long.
    """
    cosine = (_unit(keys) * _unit(query)[..., None, :]).sum(axis=-1)
    return (1.0 - jnp.arccos(jnp.clip(cosine, -EDGE, EDGE)) / jnp.pi) ** width


def expected_read(query: Array, keys: Array, values: Array, mask: Array, width: int, normalise: bool = True) -> Array:
    """What ``read`` comes to over all rotations (up to the order of mean and ``normalise``): ``[..., E]``.

    Args:
      query: ``[..., D]``.
      keys: ``[..., L, D]``.
      values: ``[..., L, E]``.
      mask: ``[..., L]``, 0 for what does not count.
      width: ``W``, bits of a signature.
      normalise: divide the sum by its length.
    """
    weight = mask * collision_weights(query, keys, width)
    total = (weight[..., None] * values).sum(axis=-2)
    return _unit(total) if normalise else total


def hashed_read(query: Array, keys: Array, values: Array, mask: Array, planes: Array, normalise: bool = True) -> Array:
    """The same by signatures, without a table: ``query [..., D]``, ``keys [L, D]``, ``values [L, E]``, ``mask [L]``.

    With ``normalise`` every signature votes by the direction of its bucket's sum, so that full buckets do not outvote
    others. An empty bucket gives 0.
    """
    same = simhash(query, planes)[..., None, :] == simhash(keys, planes)  # [..., L, G]
    sums = jnp.einsum("...lg,le->...ge", same * mask[:, None], values)
    return (_unit(sums) if normalise else sums).mean(axis=-2)


def empty(signatures: int, width: int, size: int) -> Array:
    """A table without anything in it: ``[G, 2^W, E]``."""
    return jnp.zeros((signatures, 2**width, size))


def encode(keys: Array, values: Array, mask: Array, planes: Array) -> Array:
    """The table of a history, ``keys [L, D]``, ``values [L, E]``, ``mask [L]``: ``[G, 2^W, E]``."""
    signatures, width, _ = planes.shape
    groups = jnp.arange(signatures)
    rows = (values * mask[:, None])[:, None]  # [L, 1, E]
    return empty(signatures, width, values.shape[-1]).at[groups, simhash(keys, planes)].add(rows)


def write(table: Array, key: Array, value: Array, planes: Array, decay: float | Array = 1.0) -> Array:
    """``table [..., G, 2^W, E]`` with one more item, ``key [..., D]`` and ``value [..., E]``; what was there is
    multiplied by ``decay`` first."""

    def one(table: Array, key: Array, value: Array) -> Array:
        return (decay * table).at[jnp.arange(planes.shape[0]), simhash(key, planes)].add(value)

    for _ in range(key.ndim - 1):
        one = jax.vmap(one)
    return one(table, key, value)


def read(table: Array, query: Array, planes: Array, normalise: bool = True) -> Array:
    """What ``table [..., G, 2^W, E]`` holds near ``query [..., D]``, one query per table: ``[..., E]``.

    For many queries to one table, ``vmap`` over them.
    """
    at = simhash(query, planes)[..., None, None]
    sums = jnp.take_along_axis(table, at, axis=-2)[..., 0, :]
    return (_unit(sums) if normalise else sums).mean(axis=-2)


class Recall(NamedTuple):
    """A hashed memory beside a model: keys are ``observation @ keys``, values the actions and a 1.

    The 1 makes what is read tell the mean action from its length: a read has the length 1.
    """

    planes: Array  # [G, W, D]
    size: int  # of a value, A + 1

    @staticmethod
    def value(action: Array) -> Array:
        return jnp.concatenate([action, jnp.ones((*action.shape[:-1], 1))], axis=-1)

    def expected(self, keys: Array, observation: Array, action: Array, past: tuple[Array, Array, Array]) -> Array:
        """What each step of windows ``[..., K]`` would find: in the ``past`` rows, and in the steps before it."""
        seen, done, real = past
        length = observation.shape[-2]
        earlier = jnp.arange(length)[:, None] > jnp.arange(length)  # [K, K]
        earlier = jnp.broadcast_to(earlier.astype(jnp.float32), (*observation.shape[:-2], length, length))
        before = jnp.broadcast_to(real[..., None, :], (*real.shape[:-1], length, real.shape[-1]))
        held = jnp.concatenate([seen, observation], axis=-2) @ keys
        values = self.value(jnp.concatenate([done, action], axis=-2))
        mask = jnp.concatenate([before, earlier], axis=-1)
        query = observation @ keys
        return expected_read(query, held[..., None, :, :], values[..., None, :, :], mask, self.planes.shape[1])


def recall(signatures: int, width: int, key_size: int, action_dim: int) -> Recall:
    """A memory of actions; its rotations are the same in every program."""
    return Recall(rotations(jax.random.key(0), signatures, width, key_size), action_dim + 1)


def _unit(x: Array) -> Array:
    """``x / max(|x|, 1e-6)`` along the last axis, with a finite gradient at 0."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), SMALLEST**2))

"""Which entries of a row are shown and which are to be told: masks of static shape, drawn by ranks."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxrl_reg.types import Array, Key


def context_and_targets(
    key: Key, batch: int, count: int, context: tuple[float, float], target: tuple[float, float], targets: int
) -> tuple[Array, Array]:
    """A context and several sets of targets for each row, a target never in the context.

    Sizes are uniform within the bounds and the same for all rows of a batch, as in the source; sets of targets overlap
    one another, not the context. If both do not fit, the target is cut.

    Args:
      key: a typed key.
      batch, count: rows and entries of a row.
      context, target: least and largest share of the entries, in (0, 1].
      targets: number of target sets.
    Returns:
      bool ``[batch, count]`` and ``[targets, batch, count]``; at least one entry in each.
    Source: Thimonier et al., 2025, T-JEPA, section 3.2. Its released code shifts targets by the register tokens and
      makes all target sets of a row the same; neither is done here.
    """
    size_key, context_key, target_key = jax.random.split(key, 3)
    first, second = (
        jnp.clip(jnp.round(count * jax.random.uniform(k, minval=low, maxval=high)), 1, count - 1).astype(jnp.int32)
        for k, (low, high) in zip(jax.random.split(size_key), (context, target), strict=True)
    )
    second = jnp.minimum(second, count - first)
    shown = _ranks(jax.random.uniform(context_key, (batch, count))) < first
    # Entries of the context come last, so that they are never among the first ranks.
    draws = jax.random.uniform(target_key, (targets, batch, count)) + shown
    return shown, _ranks(draws) < second


def dirichlet_mask(key: Key, batch: int, sizes: Sequence[int], keep: Array | int, concentration: float = 1.0) -> Array:
    """Visible entries of rows made of groups: shares of the groups from a Dirichlet, entries of a group at random.

    Every row has exactly ``keep``; where a group has fewer entries than its share, the others fill up at random. There
    is no rejection loop.

    Args:
      key: a typed key.
      batch: rows.
      sizes: entries of each group, side by side in a row.
      keep: visible entries of a row, int or ``[batch]``; draw it anew for every batch, or a model knows but one.
      concentration: of the Dirichlet; large ones show all groups alike, small ones a single group.
    Returns:
      bool ``[batch, sum(sizes)]``.
    Source: Robinet et al., 2025, Multimodal Masked Autoencoder Pre-training with Missing Modalities (BM-MAE), section 2
      (after Bachmann et al., 2022, MultiMAE).
    """
    share_key, rank_key, rest_key = jax.random.split(key, 3)
    keep = jnp.broadcast_to(jnp.asarray(keep), (batch,))
    shares = jax.random.dirichlet(share_key, jnp.full(len(sizes), concentration), (batch,))
    wanted = jnp.round(shares * keep[:, None])
    draws = jax.random.uniform(rank_key, (batch, sum(sizes)))
    chosen, start = [], 0
    for i, size in enumerate(sizes):
        chosen.append(_ranks(draws[:, start : start + size]) < wanted[:, i, None])
        start += size
    # Those of the groups' shares come first, in random order among themselves, then the others: exactly `keep` of them.
    order = jnp.where(jnp.concatenate(chosen, axis=1), 0.0, 1.0) + jax.random.uniform(rest_key, draws.shape)
    return _ranks(order) < keep[:, None]


def _ranks(values: Array) -> Array:
    return jnp.argsort(jnp.argsort(values, axis=-1), axis=-1)

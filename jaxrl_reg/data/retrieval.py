"""Nearest rows of a data set, searched on the device: exactly in blocks, or approximately through an inverted file.

The distance is ``sum_c weight_c (query_c - row_c)^2`` over columns ``c``. A table is a tuple of arrays that share their
rows, such as ``(data.observation, data.action)``; its columns are those of the arrays side by side. Nothing of the size
of the table is ever copied or computed: blocks of rows are cut out one after the other. Weights belong to the query's
side of the product, so that ``vmap`` over queries and weights (a population with a setting each) keeps one table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Array, Key

Table = Sequence[Array]
HIGHEST = jax.lax.Precision.HIGHEST
GROUP = 64  # scores whose minimum stands for them in the search for the lowest


def column_scales(table: Table, eps: float = 1e-3) -> Array:
    """``1 / (std + eps)`` of every column over all rows, ``[K]``; its square as a weight standardises the distance."""
    return jnp.concatenate([1.0 / (jnp.std(part, axis=0) + eps) for part in table])


def nearest(
    query: Array, table: Table, weight: Array | None = None, k: int = 1, *, chunk: int = 8192, candidates: int = 4
) -> tuple[Array, Array]:
    """The ``k`` nearest rows of all, nearest first.

    Each block costs one matrix product, ``|row|^2 - 2 query . row``, at full float32 precision, about a point amid the
    table, because far from the origin that difference loses its digits. What rounding may still swap is put right at
    the end: the best ``k - 1 + candidates`` rows are measured again, by their differences.

    Args:
      query: ``[B, K]``. No gradient goes through.
      table: arrays ``[N, K_j]``, the ``K_j`` summing to ``K``.
      weight: ``[K]``, >= 0; all 1 if None.
      k: how many.
      chunk: rows of a block; it holds ``B x chunk`` distances, for every member of a population side by side.
      candidates: rows measured again for each of the ``k``; more for tables full of near ties.
    Returns:
      ``(distance [B, k], row int32 [B, k])``, squared distances; of equally near rows the first.
    Raises:
      UserError: shapes that do not fit, or more neighbours than rows.
    """
    size = checked(query, table, weight, k)
    weight = jnp.ones(query.shape[-1]) if weight is None else weight
    query, weight = jax.lax.stop_gradient((query, weight))
    chunk, kept = min(chunk, size), min(k - 1 + candidates, size)
    centre = jnp.concatenate([part[:: max(1, size // 1024)].mean(axis=0) for part in table])
    towards = 2.0 * weight * (query - centre)

    def search(best: tuple[Array, Array], block: Array) -> tuple[tuple[Array, Array], None]:
        first = block * chunk
        start = jnp.minimum(first, size - chunk)  # the last block overlaps the one before it
        rows = columns_of([jax.lax.dynamic_slice_in_dim(part, start, chunk) for part in table]) - centre
        product = jnp.matmul(towards, rows.T, precision=HIGHEST)
        score = jnp.matmul(jnp.square(rows), weight, precision=HIGHEST) - product
        index = start + jnp.arange(chunk, dtype=jnp.int32)
        score = jnp.where(index >= first, score, jnp.inf)
        lowest, at = _lowest(score, min(kept, chunk))
        return _merge(best, (lowest, index[at]), kept), None

    # Made from the queries, so that both are batched alike under vmap and shard_map.
    start = jnp.full_like(query[:, :1], jnp.inf) + jnp.zeros(kept), jnp.zeros((query.shape[0], kept), jnp.int32)
    (_, rows), _ = jax.lax.scan(search, start, jnp.arange(-(-size // chunk)))
    distance, rows = jax.lax.sort((_distances(query, table, weight, rows), rows), dimension=1, num_keys=2)
    return distance[:, :k], rows[:, :k]


class Cells(NamedTuple):
    """An inverted file: rows grouped around centres; made by ``cells``, an argument of compiled functions.

    ``centre`` ``[C, K]``; ``rows`` int32 ``[C, capacity]``, filled up with -1.
    """

    centre: Array
    rows: Array


def cells(
    table: Table,
    weight: Array | None = None,
    count: int | None = None,
    *,
    key: Key,
    iterations: int = 10,
    sample: int = 65_536,
) -> Cells:
    """Group the rows by k-means under the same distance; once, before training, on concrete arrays.

    Args:
      table, weight: as in ``nearest``. Cells made for one weight serve others too, with lower recall.
      count: number of centres, the root of the number of rows if None. A cell with more than twice the mean number of
        rows is cut up along its widest column, so that no search pays for the most crowded one.
      key: draws the first centres and the rows that k-means looks at.
      iterations: passes of Lloyd's algorithm.
      sample: at most so many rows are looked at by k-means; all are grouped.
    Raises:
      UserError: as ``nearest``.
    """
    size = table[0].shape[0]
    width = sum(part.shape[-1] for part in table)
    weight = jnp.ones(width) if weight is None else weight
    count = min(max(1, round(size**0.5)) if count is None else count, size)
    checked(jnp.zeros((1, width)), table, weight, 1)
    seen = jax.random.permutation(key, size)[: max(count, min(sample, size))]
    centre = _lloyd(tuple(part[seen] for part in table), weight, count, iterations)
    owner = np.asarray(_assign(table, centre, weight))
    order = np.argsort(owner, kind="stable")
    groups = np.split(order, np.searchsorted(owner[order], np.arange(1, count)))
    columns = np.concatenate([np.asarray(part) for part in table], axis=-1)
    scale, limit = np.sqrt(np.asarray(weight)), -(-2 * size // count)
    pieces: list[np.ndarray] = []
    for group in groups:
        if len(group) > limit:
            widest = int((columns[group].std(axis=0) * scale).argmax())
            group = group[np.argsort(columns[group, widest], kind="stable")]
        pieces += [piece for piece in np.array_split(group, -(-len(group) // limit) or 1) if len(piece)]
    capacity = -(-max(map(len, pieces)) // GROUP) * GROUP
    rows = np.full((len(pieces), capacity), -1, np.int32)
    for i, piece in enumerate(pieces):
        rows[i, : len(piece)] = piece
    return Cells(jnp.asarray(np.stack([columns[piece].mean(axis=0) for piece in pieces])), jnp.asarray(rows))


def nearest_in_cells(
    query: Array, table: Table, index: Cells, weight: Array | None = None, k: int = 1, *, probes: int = 8
) -> tuple[Array, Array]:
    """As ``nearest``, but looking only into the ``probes`` cells whose centres are nearest; see ``recall``.

    ``probes`` equal to the number of cells finds what ``nearest`` finds.
    """
    checked(query, table, weight, k)
    weight = jnp.ones(query.shape[-1]) if weight is None else weight
    query, weight = jax.lax.stop_gradient((query, weight))
    probes = min(probes, index.centre.shape[0])
    if k > probes * index.rows.shape[1]:
        raise UserError(f"k={k} is more than {probes} cells of {index.rows.shape[1]} rows hold; take more probes")
    near = nearest(query, (index.centre,), weight, probes)[1]  # [B, P]
    kept = min(k, index.rows.shape[1])

    def probe(best: tuple[Array, Array], cell: Array) -> tuple[tuple[Array, Array], None]:
        rows = index.rows[cell]  # [B, capacity]
        distance = jnp.where(rows >= 0, _distances(query, table, weight, rows), jnp.inf)
        distance, at = _lowest(distance, kept)
        return _merge(best, (distance, jnp.take_along_axis(rows, at, axis=-1)), k), None

    start = jnp.full_like(query[:, :1], jnp.inf) + jnp.zeros(k), jnp.zeros((query.shape[0], k), jnp.int32)
    return jax.lax.scan(probe, start, near.T)[0]


def recall(found: Array, true: Array) -> Array:
    """Share of the true nearest rows ``[B, k]`` that are among those found ``[B, k']``, scalar in [0, 1]."""
    return (found[:, None, :] == true[:, :, None]).any(-1).mean()


def recall_curve(
    query: Array, table: Table, index: Cells, weight: Array | None = None, k: int = 1, *, probes: Sequence[int]
) -> Array:
    """The share of the ``k`` nearest rows that ``nearest_in_cells`` finds with each number of ``probes``, ``[P]``.

    What speed costs on these queries; it rises to 1 with all cells. Raises ``UserError`` as ``nearest_in_cells``.
    """
    true = nearest(query, table, weight, k)[1]
    found = [nearest_in_cells(query, table, index, weight, k, probes=number)[1] for number in probes]
    return jnp.stack([recall(rows, true) for rows in found])


def checked(query: Array, table: Table, weight: Array | None, k: int) -> int:
    """The number of rows of a table that fits queries ``[B, K]``, weights and ``k``; else ``UserError``."""
    sizes, width = {part.shape[0] for part in table}, sum(part.shape[-1] for part in table)
    if query.ndim != 2 or len(sizes) != 1 or any(part.ndim != 2 for part in table) or query.shape[1] != width:
        shapes = ", ".join(str(list(part.shape)) for part in table)
        raise UserError(f"queries {list(query.shape)} do not fit a table of {shapes}; both are [rows, columns]")
    if weight is not None and weight.shape != (width,):
        raise UserError(f"weight has shape {list(weight.shape)}; expected one per column, [{width}]")
    size = sizes.pop()
    if not 1 <= k <= size:
        raise UserError(f"k={k} neighbours of {size} rows; k must lie between 1 and the number of rows")
    return size


def columns_of(parts: Table) -> Array:
    """The table's arrays side by side, ``[..., K]``."""
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def _merge(best: tuple[Array, Array], new: tuple[Array, Array], kept: int) -> tuple[Array, Array]:
    """The ``kept`` lowest of two lists ``(score [B, .], row [B, .])``; among equals those of ``best``."""
    score, rows = (jnp.concatenate(pair, axis=-1) for pair in zip(best, new, strict=True))
    lowest, at = jax.lax.top_k(-score, kept)
    return -lowest, jnp.take_along_axis(rows, at, axis=-1)


def _distances(query: Array, table: Table, weight: Array, rows: Array) -> Array:
    """Squared distances ``[B, m]`` to the given ``rows`` ``[B, m]``, by differences."""
    found = columns_of([part.at[rows].get(mode="clip") for part in table])  # [B, m, K]
    return (weight * jnp.square(query[:, None] - found)).sum(-1)


def _lowest(score: Array, k: int) -> tuple[Array, Array]:
    """The ``k`` lowest of ``[B, n]`` and where they are. They lie in the ``k`` groups with the lowest minima."""
    groups = score.shape[-1] // GROUP
    if score.shape[-1] % GROUP or groups <= k:
        lowest, at = jax.lax.top_k(-score, k)
        return -lowest, at
    grouped = score.reshape(*score.shape[:-1], groups, GROUP)
    best = jax.lax.top_k(-grouped.min(-1), k)[1]  # [B, k]: looks at a sixty-fourth of the scores
    within = jnp.take_along_axis(grouped, best[..., None], axis=-2).reshape(*score.shape[:-1], k * GROUP)
    lowest, at = jax.lax.top_k(-within, k)
    return -lowest, jnp.take_along_axis(best, at // GROUP, axis=-1) * GROUP + at % GROUP


@jax.jit
def _assign(table: Table, centre: Array, weight: Array) -> Array:
    """The nearest centre of every row, int32 ``[N]``, block after block."""
    return in_blocks(table, lambda *parts: nearest(columns_of(parts), (centre,), weight, candidates=1)[1][:, 0])


def in_blocks(table: Table, function: Callable[..., Array], length: int = 4096) -> Array:
    """``function(*parts [length, K_j]) -> [length, ...]`` of all rows of the table, ``[N, ...]``, block after block."""
    size = table[0].shape[0]
    length = min(length, size)
    blocks = jnp.minimum(jnp.arange(-(-size // length) * length), size - 1).reshape(-1, length)
    found = jax.lax.map(lambda block: function(*(part[block] for part in table)), blocks)
    return found.reshape(-1, *found.shape[2:])[:size]


def _lloyd(parts: Table, weight: Array, count: int, iterations: int) -> Array:
    points = columns_of(parts)

    @jax.jit
    def step(points: Array, centre: Array) -> Array:
        owner = _assign((points,), centre, weight)
        total = jax.ops.segment_sum(points, owner, count)
        number = jax.ops.segment_sum(jnp.ones(points.shape[0]), owner, count)[:, None]
        return jnp.where(number > 0, total / jnp.maximum(number, 1.0), centre)  # an empty cell stays where it is

    centre = points[:count]
    for _ in range(iterations):
        centre = step(points, centre)
    return centre

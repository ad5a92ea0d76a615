"""How long a search for nearest rows takes and what the inverted file finds: ``python -m benchmarks.retrieval``.

Rows lie near a curved surface of four dimensions in fourteen columns, like states and actions of a running robot;
queries are rows with noise. Writes a Markdown table to ``--to``.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.data import retrieval


def rows(count: int, seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """A table of 11 and 3 columns, and 256 queries."""
    rng = np.random.default_rng(seed)
    surface = rng.normal(size=(count, 4))
    states = np.tanh(surface @ rng.normal(size=(4, 11))) + 0.05 * rng.normal(size=(count, 11))
    actions = np.tanh(surface @ rng.normal(size=(4, 3)) + 0.3 * rng.normal(size=(count, 3)))
    columns = np.concatenate([states, actions], -1)[rng.integers(0, count, 256)]
    queries = columns + 0.1 * rng.normal(size=columns.shape)
    return (states.astype(np.float32), actions.astype(np.float32)), queries.astype(np.float32)


def seconds(function, *arguments, repeats: int = 5) -> float:
    """Median time of a call, compiled before."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def lines(sizes: list[int]) -> list[str]:
    found = [
        f"256 queries, 14 columns, one neighbour; {jax.devices()[0].device_kind} ({os.cpu_count()} cores), "
        f"jax {jax.__version__}. Times are medians of five.",
        "",
        "| rows | search | milliseconds | recall |",
        "|---|---|---|---|",
    ]
    for size in sizes:
        table, queries = rows(size)
        table, queries = jax.tree.map(jnp.asarray, (table, queries))
        exact = jax.jit(retrieval.nearest)
        truth = exact(queries, table)[1]
        found.append(f"| {size:,} | exact | {1e3 * seconds(exact, queries, table):.1f} | 1 |")
        begun = time.perf_counter()
        index = jax.block_until_ready(retrieval.cells(table, key=jax.random.key(0)))
        made = time.perf_counter() - begun
        for probes in (1, 4, 8, 16):
            search = jax.jit(functools.partial(retrieval.nearest_in_cells, probes=probes))
            share = float(retrieval.recall(search(queries, table, index)[1], truth))
            took = 1e3 * seconds(search, queries, table, index)
            name = f"{probes} of {index.rows.shape[0]:,} cells"
            found.append(f"| {size:,} | {name} | {took:.1f} | {share:.3f} |")
        found.append(f"| {size:,} | making the cells, once | {1e3 * made:,.0f} | |")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--to", type=pathlib.Path, default=pathlib.Path("docs/retrieval.md"))
    options = parser.parse_args()
    text = "\n".join(["# Searching the nearest rows", "", *lines(options.rows), ""])
    print(text)
    options.to.write_text(f"{text}\nWritten by `python -m benchmarks.retrieval`.\n")


if __name__ == "__main__":
    main()

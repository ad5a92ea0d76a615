"""Pieces of data sets, and several as one: episodes are cut and numbered anew, and stay true.

As in ``dataset``, everything runs on the host in NumPy, once, before training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxrl_reg.data.dataset import assemble
from jaxrl_reg.data.episodes import episode_returns
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Dataset


def concatenate(datasets: Sequence[Dataset], name: str | None = None) -> Dataset:
    """One data set after the other; return ranks are taken over all of them.

    Reference scores survive where all data sets agree and become NaN (unknown) elsewhere. ``name`` defaults to the
    distinct names joined by ``+``. Raises UserError if there is none, or if dimensions, extras or what is known of
    the rewards differ.
    """
    if not datasets:
        raise UserError("concatenate needs at least one data set")
    first = datasets[0]
    for other in datasets[1:]:
        if other.spec != first.spec:
            raise UserError(f"{other.name} has {other.spec}, but {first.name} has {first.spec}")
        if sorted(other.extras) != sorted(first.extras):
            raise UserError(f"{other.name} has extras {sorted(other.extras)}, but {first.name} {sorted(first.extras)}")
        if other.rewarded != first.rewarded:
            raise UserError(f"of {first.name} and {other.name}, only one has known rewards")
    hosts = [_columns(dataset) for dataset in datasets]

    def shared(values):
        return values[0] if all(np.array_equal(value, values[0], equal_nan=True) for value in values) else math.nan

    return assemble(
        {key: np.concatenate([host[key] for host in hosts]) for key in hosts[0]},
        {key: np.concatenate([np.asarray(one.extras[key]) for one in datasets]) for key in first.extras},
        name="+".join(dict.fromkeys(one.name for one in datasets)) if name is None else name,
        score_random=shared([np.asarray(one.score_random) for one in datasets]),
        score_expert=shared([np.asarray(one.score_expert) for one in datasets]),
        rewarded=first.rewarded,
        discrete=first.discrete,
        action_bounds=first.action_bounds if len({one.action_bounds for one in datasets}) == 1 else None,
        notes=tuple(dict.fromkeys(note for one in datasets for note in one.notes)),
    )


def subset(dataset: Dataset, rows: Any) -> Dataset:
    """The given rows only: a boolean mask ``[N]`` or strictly increasing row numbers.

    Where a kept row's successor is left out, the episode is truncated there and counts as cut: ``last`` becomes 1;
    ``discount``, ``next_observation`` and ``next_action`` stay true. Episodes are renumbered and return ranks taken
    anew over the pieces.
    """
    rows = np.asarray(rows)
    if rows.dtype == bool:
        if rows.shape != (dataset.size,):
            raise UserError(f"{dataset.name}: a mask of shape {rows.shape} does not fit {dataset.size} rows")
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or rows.size == 0 or not np.issubdtype(rows.dtype, np.integer):
        raise UserError(f"{dataset.name}: a subset needs at least one row, as a mask or as increasing row numbers")
    if rows[0] < 0 or rows[-1] >= dataset.size or (np.diff(rows) <= 0).any():
        raise UserError(f"{dataset.name}: row numbers must increase within 0 and {dataset.size - 1}")
    columns = {key: value[rows] for key, value in _columns(dataset).items()}
    gap = np.append(np.diff(rows) != 1, True) & ~(columns["terminated"] | columns["truncated"])
    columns |= {"truncated": columns["truncated"] | gap, "cut": columns["cut"] | gap}
    return assemble(columns, {key: np.asarray(value)[rows] for key, value in dataset.extras.items()}, **_about(dataset))


def limited(dataset: Dataset, steps: int) -> Dataset:
    """Episodes of more than ``steps`` rows ended there by a time-out, as often as it takes; the notes say how many.

    Raises UserError if ``steps`` is below 1.
    """
    if steps < 1:
        raise UserError(f"an episode needs at least 1 step, got max_episode_steps={steps}")
    columns = _columns(dataset)
    ends = ((np.asarray(dataset.step) + 1) % steps == 0) & ~(columns["terminated"] | columns["truncated"])
    if not ends.any():
        return dataset
    columns["truncated"] = columns["truncated"] | ends
    about = _about(dataset)
    longer = np.unique(np.asarray(dataset.episode)[ends]).size
    about["notes"] += (f"{longer:,} episodes of more than {steps} steps are ended there by a time-out",)
    return assemble(columns, {key: np.asarray(value) for key, value in dataset.extras.items()}, **about)


def head(dataset: Dataset, rows: int) -> Dataset:
    """The first ``rows`` rows; the episode that is cut is truncated there."""
    return subset(dataset, np.arange(min(rows, dataset.size)))


def first_episodes(dataset: Dataset, episodes: int) -> Dataset:
    """The first whole episodes."""
    return subset(dataset, np.asarray(dataset.episode) < episodes)


def top_fraction(dataset: Dataset, fraction: float) -> Dataset:
    """The best ``fraction`` of the episodes by undiscounted return, in their old order, for %BC.

    ``floor(fraction * episodes)`` episodes, at least one, as in CORL's ``any_percent_bc``; among equals the earlier.
    """
    if not 0.0 < fraction <= 1.0:
        raise UserError(f"fraction must lie in (0, 1], got {fraction:g}")
    returns = episode_returns(dataset)
    count = max(1, math.floor(fraction * len(returns) + 1e-9))
    best = np.argsort(-returns, kind="stable")[:count]
    return subset(dataset, np.isin(np.asarray(dataset.episode), best))


def _columns(dataset: Dataset) -> dict[str, np.ndarray]:
    """What a data set is made from, on the host: the first argument of ``assemble``."""
    host = jax.device_get(dataset)
    terminated = host.discount == 0
    nothing = np.full(dataset.size, np.nan, np.float32)
    return {
        "observation": host.observation,
        "action": host.action,
        "reward": host.reward,
        "terminated": terminated,
        "truncated": (host.last == 1) & ~terminated,
        "next_observation": host.next_observation,
        "next_action": host.next_action,
        "cut": np.zeros(dataset.size, bool) if host.cut is None else host.cut == 1,
        "dropped_reward": nothing if host.dropped_reward is None else host.dropped_reward,
    }


def _about(dataset: Dataset) -> dict[str, Any]:
    keys = ("name", "score_random", "score_expert", "rewarded", "discrete", "action_bounds", "notes")
    return {key: getattr(dataset, key) for key in keys}

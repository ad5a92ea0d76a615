"""OGBench's npz files (arXiv 2410.20092), read without OGBench.

A file holds states, not transitions: a trajectory of ``T`` transitions has ``T + 1`` rows, and ``terminals`` is 1 on
its last row, whose action was taken but leads to nothing that the file holds::

    observations  s0 s1 s2 s3 | s0 s1 ...      row t < T gives (s_t, a_t, s_{t+1})
    actions       a0 a1 a2 a3 | a0 a1 ...
    terminals      0  0  0  1 |  0  0 ...      the end of a trajectory, not of a task

The dictionaries that OGBench's own loader returns are understood too: compact ones by their ``valids`` (0 on the row
that has no successor), regular ones by their ``next_observations``.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_reg.data import columns as check
from jaxrl_reg.data.columns import Source
from jaxrl_reg.data.dataset import from_arrays
from jaxrl_reg.data.readers.npz import load_npz
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Dataset


def read(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    action_low: Any = None,
    action_high: Any = None,
    clip_actions: bool = False,
    actions: int | None = None,
    extras: Sequence[str] = (),
) -> Dataset:
    """A data set from one OGBench file; ``extras`` names further arrays to keep, such as ``qpos``.

    The raw files have goals instead of ``rewards``, which then are not known (``Dataset.rewarded``). A trajectory's end
    is a truncation; the action in its last row is the ``next_action`` of the row before. Where the file has ``masks``,
    a 0 means that the task is complete and nothing may be bootstrapped: that is a termination, so the episode ends
    there and the rest of the trajectory becomes further episodes.
    """
    path = Path(path)
    optional = ("rewards", "masks", "valids", "next_observations")
    arrays = load_npz(path, ("observations", "actions", "terminals", *extras), optional)
    rows = len(arrays["observations"]) if arrays["observations"].ndim else 0
    if rows == 0:
        raise UserError(f"{path}: observations has no rows")
    for key, value in arrays.items():
        if value.ndim == 0 or len(value) != rows:
            found = len(value) if value.ndim else "no"
            raise UserError(f"{path}: {key} has {found} rows, but observations has {rows}")
        if key in ("observations", "actions", "next_observations") and value.ndim != 2:
            raise UserError(f"{path}: {key} has shape {value.shape}, expected [rows, size]: states and actions only")
    if "rewards" in arrays and arrays["rewards"].shape == (rows, 1):
        arrays["rewards"] = arrays["rewards"][:, 0]
    for key in ("terminals", "masks", "valids"):
        if key in arrays:
            if arrays[key].size != rows:
                raise UserError(f"{path}: {key} has shape {arrays[key].shape}, expected [rows]")
            value = arrays[key].reshape(rows)
            wrong = np.flatnonzero((value != 0) & (value != 1))
            if wrong.size:
                raise UserError(f"{path}: {key} row {wrong[0]} is {value[wrong[0]]:g}, expected 0 or 1")
            arrays[key] = value != 0
    if "next_observations" in arrays:
        keep = np.arange(rows)
        following, ends, after = arrays["next_observations"], arrays["terminals"], None
    else:
        final = ~arrays["valids"] if "valids" in arrays else arrays["terminals"]
        if not final.any():
            raise UserError(f"{path}: terminals mark no trajectory end; is the file complete?")
        keep = np.flatnonzero(~final[:-1])
        if keep.size == 0:
            raise UserError(f"{path}: observations has no row with a successor")
        following, ends, after = arrays["observations"][keep + 1], final[keep + 1], keep + 1
    done = ~arrays["masks"][keep] if "masks" in arrays else np.zeros(len(keep), bool)
    keys = {
        "observation": "observations",
        "action": "actions",
        "reward": "rewards",
        "terminated": "masks",
        "truncated": "terminals",
        "next_observation": "observations (next)",
    }
    acted = check.actions(Source(str(path), keys), arrays["actions"], action_low, action_high, clip_actions, actions)
    made = from_arrays(
        arrays["observations"][keep],
        acted.values[keep],
        arrays["rewards"][keep] if "rewards" in arrays else None,
        done,
        ends,
        following,
        name=path.stem if name is None else name,
        extras={key: arrays[key][keep] for key in extras},
        next_action=None if after is None else acted.values[after],
        notes=acted.notes,
        source=Source(str(path), keys, lambda row: f"row {keep[row]}"),
    )
    return dataclasses.replace(made, discrete=acted.discrete, action_bounds=acted.bounds)

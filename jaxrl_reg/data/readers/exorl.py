"""ExORL's original episodes (arXiv 2201.13425): a directory of ``episode_<index>_<length>.npz``.

Row 0 of an episode is the reset and row ``t + 1`` what the environment returned next, together with the action that
led there, so the arrays are offset against each other::

    observation   s0  s1  s2  s3        transition t:  (s_t, action[t + 1], reward[t + 1], discount[t + 1], s_{t+1})
    action        --  a0  a1  a2
    reward        --  r0  r1  r2
    physics       p0  p1  p2  p3        the simulator's state at s_t
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_reg.data.columns import Source
from jaxrl_reg.data.dataset import from_arrays
from jaxrl_reg.data.readers.npz import load_npz
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Dataset

EXTRAS = ("physics", "next_physics")


def read(
    directory: str | os.PathLike[str],
    *,
    name: str | None = None,
    action_low: Any = None,
    action_high: Any = None,
    clip_actions: bool = False,
    actions: int | None = None,
    episodes: int | None = None,
    extras: Sequence[str] = EXTRAS,
) -> Dataset:
    """A data set from a directory of episodes, in the order of their names; ``episodes`` reads only the first ones.

    ``extras`` may name ``physics`` (the simulator's state at the observation) and ``next_physics`` (at the next one,
    where ExORL computes its rewards); pass ``()`` to save memory. An episode whose last ``discount`` is 0 terminated,
    every other one was cut by its time limit. All transitions are kept; the last one's ``next_action`` is its own.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory")
    unknown = [key for key in extras if key not in EXTRAS]
    if unknown:
        raise UserError(f"{directory}: unknown extra {unknown[0]!r}; known: {', '.join(EXTRAS)}")
    paths = sorted(directory.glob("*.npz"))[:episodes]
    if not paths:
        raise UserError(f"{directory}: no .npz episodes to read")
    required = ("observation", "action", "reward", "discount", *(["physics"] if extras else []))
    parts: list[dict[str, np.ndarray]] = []
    for path in paths:
        parts.append(_transitions(path, load_npz(path, required)))
        for key, value in parts[-1].items():
            if value.shape[1:] != parts[0][key].shape[1:]:
                wanted = parts[0][key].shape[1:]
                raise UserError(f"{path}: {key} has rows of shape {value.shape[1:]}, but {paths[0].name} {wanted}")
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    starts = np.cumsum([0] + [len(part["reward"]) for part in parts])

    def row(index: int) -> str:
        episode = int(np.searchsorted(starts, index, side="right")) - 1
        step = index - starts[episode]
        return f"of {paths[episode].name}, transition {step} (its observation is row {step}, all else row {step + 1}),"

    return from_arrays(
        columns["observation"],
        columns["action"],
        columns["reward"],
        columns["discount"] == 0,
        columns["truncated"],
        columns["next_observation"],
        name=directory.name if name is None else name,
        extras={key: columns[key] for key in extras},
        action_low=action_low,
        action_high=action_high,
        clip_actions=clip_actions,
        actions=actions,
        source=Source(str(directory), {"terminated": "discount", "truncated": "discount"}, row),
    )


def _transitions(path: Path, episode: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The transitions of one episode, aligned and checked."""
    rows = len(episode["observation"]) if episode["observation"].ndim else 0
    if rows < 2:
        raise UserError(f"{path}: observation has shape {episode['observation'].shape}, expected at least two rows")
    for key, value in episode.items():
        if value.ndim == 0 or len(value) != rows:
            raise UserError(f"{path}: {key} has {len(value) if value.ndim else 'no'} rows, but observation has {rows}")
        if key in ("reward", "discount"):
            if value.size != rows:
                raise UserError(f"{path}: {key} has shape {value.shape}, expected one number per row")
            episode[key] = value.reshape(rows)
    discount = episode["discount"]
    wrong = np.flatnonzero((discount[1:] != 0) & (discount[1:] != 1)) + 1
    if wrong.size:
        raise UserError(f"{path}: discount row {wrong[0]} is {discount[wrong[0]]:g}, expected 0 or 1")
    truncated = np.zeros(rows - 1, bool)
    truncated[-1] = True
    columns = {
        "observation": episode["observation"][:-1],
        "next_observation": episode["observation"][1:],
        "action": episode["action"][1:],
        "reward": episode["reward"][1:],
        "discount": discount[1:],
        "truncated": truncated,
    }
    if "physics" in episode:
        columns["physics"], columns["next_physics"] = episode["physics"][:-1], episode["physics"][1:]
    return columns

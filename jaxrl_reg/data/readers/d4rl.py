"""D4RL's HDF5 layout (arXiv 2004.07219), which is also our own: read without D4RL, gym or mujoco-py.

Arrays: ``observations`` [N, O], ``actions`` [N, A], ``rewards`` [N], ``terminals`` [N] (true terminations only),
``timeouts`` [N], and optionally ``next_observations`` [N, O] and ``infos/...``. Files that we write also carry root
attributes: ``name``, ``score_random``, ``score_expert``, ``extras`` and whatever the writer was given.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_reg.data.dataset import Source, from_arrays, validate
from jaxrl_reg.errors import UserError, need
from jaxrl_reg.types import Dataset

KEYS = {
    "observation": "observations",
    "action": "actions",
    "reward": "rewards",
    "terminated": "terminals",
    "truncated": "timeouts",
    "next_observation": "next_observations",
}
RESERVED = ("name", "score_random", "score_expert", "extras", "format")

# Returns of a random and of an expert policy in D4RL's own MuJoCo environments (its d4rl/infos.py).
REFERENCE_SCORES = {
    r"halfcheetah-[a-z-]+-v[012]": (-280.178953, 12135.0),
    r"hopper-[a-z-]+-v[012]": (-20.272305, 3234.3),
    r"walker2d-[a-z-]+-v[012]": (1.629008, 4592.3),
    r"ant-[a-z-]+-v[012]": (-325.6, 3879.7),
    r"antmaze-[a-z-]+-v[02]": (0.0, 1.0),
    r"kitchen-[a-z]+-v0": (0.0, 4.0),
    r"pen-[a-z]+-v[01]": (96.262799, 3076.8331017826877),
    r"door-[a-z]+-v[01]": (-56.512833, 2880.5693087298737),
    r"hammer-[a-z]+-v[01]": (-274.856578, 12794.134825156867),
    r"relocate-[a-z]+-v[01]": (-6.425911, 4233.877797728884),
    r"maze2d-open-v0": (0.01, 20.66),
    r"maze2d-umaze-v1": (23.85, 161.86),
    r"maze2d-medium-v1": (13.13, 277.39),
    r"maze2d-large-v1": (6.7, 273.99),
}


def reference_scores(name: str) -> tuple[float, float]:
    """D4RL's (random, expert) returns for one of its data sets such as ``hopper-medium-v2``, else (NaN, NaN)."""
    for pattern, scores in REFERENCE_SCORES.items():
        if re.fullmatch(pattern, name.replace("_", "-")):
            return scores
    return math.nan, math.nan


def scored_task(score_random: float, score_expert: float) -> str:
    """The task of D4RL, such as ``hopper``, whose reference scores these are; "" for any others.

    Scores of 0 and a whole number, as AntMaze and Kitchen have them, say nothing about where they come from.
    """
    for pattern, scores in REFERENCE_SCORES.items():
        if scores[0] != 0 and np.array_equal(
            np.array(scores, np.float32), np.array((score_random, score_expert), np.float32)
        ):
            return pattern.split("-")[0]
    return ""


def read(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    action_low: Any = None,
    action_high: Any = None,
    extras: Sequence[str] | None = None,
    max_episode_steps: int | None = None,
) -> Dataset:
    """A data set from an HDF5 file in D4RL's layout.

    Rows without a successor are dropped if the file has no ``next_observations`` (see ``data.from_arrays``). ``extras``
    names arrays under ``infos/`` to keep; by default those that ``write`` put there, and none of D4RL's own. Old files
    (``-v0``) have no ``timeouts``: give ``max_episode_steps``, the time limit of their environment. Reference scores
    come from the file; an original D4RL file, which has none, gets D4RL's published ones if its name is D4RL's.
    """
    path = Path(path)
    with _open(path) as file:
        attributes = _attributes(file)
        keys = dict(KEYS)
        present = [key for key in file if hasattr(file[key], "shape")]
        optional = {"next_observation"} | ({"truncated"} if max_episode_steps else set())
        columns = {}
        for ours, theirs in keys.items():
            if theirs in present:
                columns[ours] = _array(path, file, theirs)
            elif ours not in optional:
                hint = " or give max_episode_steps" if ours == "truncated" else ""
                raise UserError(f"{path}: missing key {theirs!r}; it has {', '.join(sorted(present))}{hint}")
        kept = {}
        for key in _names(path, attributes) if extras is None else extras:
            if f"infos/{key}" not in file:
                raise UserError(f"{path}: missing key 'infos/{key}'; it has {', '.join(sorted(file.get('infos', [])))}")
            kept[key] = _array(path, file, f"infos/{key}")
            keys[key] = f"infos/{key}"
    for key in ("reward", "terminated", "truncated"):  # some files store columns [N, 1]
        if key in columns and columns[key].ndim == 2 and columns[key].shape[1] == 1:
            columns[key] = columns[key][:, 0]
    if "truncated" not in columns:
        terminals = columns["terminated"]  # of a wrong rank, it is refused below
        columns["truncated"] = _timeouts(terminals, int(max_episode_steps or 0)) if terminals.ndim == 1 else terminals
    if name is None:
        name = str(attributes.get("name", path.stem))
    if "score_random" in attributes or "score_expert" in attributes:
        low, high = (float(attributes.get(key, math.nan)) for key in ("score_random", "score_expert"))
    else:
        low, high = reference_scores(path.stem)
    return from_arrays(
        **columns,
        name=name,
        score_random=low,
        score_expert=high,
        extras=kept,
        action_low=action_low,
        action_high=action_high,
        source=Source(str(path), keys),
    )


def write(dataset: Dataset, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
    """Write a data set so that :func:`read` gives the same arrays bit for bit; the file appears whole or not at all.

    ``metadata``: numbers and strings, stored as root attributes. Raises UserError if the data set breaks its own
    invariants (``data.validate``), so that no file is written that could not be read.
    """
    need("h5py")
    import h5py

    path = Path(path)
    metadata = dict(metadata or {})
    for key, value in metadata.items():
        if key in RESERVED:
            raise UserError(f"{path}: metadata {key!r} is reserved; it comes from the data set")
        if not isinstance(value, str | bool | int | float | np.generic):
            raise UserError(f"{path}: metadata {key!r} is a {type(value).__name__}, expected a number or a string")
    validate(dataset)
    host = jax.device_get(dataset)
    terminated = host.discount == 0
    columns = {
        "observation": host.observation,
        "action": host.action,
        "reward": host.reward,
        "terminated": terminated,
        "truncated": (host.last == 1) & ~terminated,
        "next_observation": host.next_observation,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w") as file:
            for key, value in columns.items():
                file.create_dataset(KEYS[key], data=value)
            for key, value in host.extras.items():
                file.create_dataset(f"infos/{key}", data=value)
            file.attrs.update(metadata)
            file.attrs["format"] = "d4rl"
            file.attrs["name"] = host.name
            file.attrs["score_random"] = host.score_random
            file.attrs["score_expert"] = host.score_expert
            file.attrs["extras"] = json.dumps(sorted(host.extras))
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The root attributes of the file, as plain Python values."""
    with _open(Path(path)) as file:
        return _attributes(file)


def _open(path: Path) -> Any:
    need("h5py")
    import h5py

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: not a readable HDF5 file ({str(error).splitlines()[0]})") from None


def _array(path: Path, file: Any, key: str) -> np.ndarray:
    try:
        return file[key][()]
    except (OSError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: cannot read {key} ({(str(error).splitlines() or ['damaged'])[0]})") from None


def _attributes(file: Any) -> dict[str, Any]:
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()}


def _names(path: Path, attributes: Mapping[str, Any]) -> list[str]:
    try:
        return list(json.loads(attributes.get("extras", "[]")))
    except (TypeError, ValueError):
        raise UserError(f"{path}: attribute 'extras' is not a JSON list of names") from None


def _timeouts(terminals: np.ndarray, limit: int) -> np.ndarray:
    """1 wherever an episode has run for ``limit`` rows without terminating, counting on from there."""
    rows = np.arange(len(terminals))
    ends = np.asarray(terminals) != 0
    start = np.maximum.accumulate(np.where(np.append(True, ends[:-1]), rows, 0)) if len(rows) else rows
    return ((rows - start + 1) % limit == 0) & ~ends

"""Minari data sets: a directory of the HDF5 format is read directly, an id through the ``minari`` package.

An episode of ``T`` steps holds ``T + 1`` observations, so the true next observation is always known.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_reg.data.columns import Source
from jaxrl_reg.data.dataset import from_arrays, validate
from jaxrl_reg.data.readers.d4rl import choose_keys
from jaxrl_reg.errors import UserError, need
from jaxrl_reg.types import Dataset


class _Episode(NamedTuple):
    index: int
    observations: Any  # an array [T + 1, O], or a mapping of them
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray


class _Info(NamedTuple):
    path: str  # for messages
    name: str
    low: Any
    high: Any
    score_random: float
    score_expert: float
    actions: int | None = None  # of a discrete task, whose numbers begin with ``first``
    first: int = 0


def read(
    spec: str | os.PathLike[str],
    *,
    name: str | None = None,
    action_low: Any = None,
    action_high: Any = None,
    clip_actions: bool = False,
    actions: int | None = None,
    observation_keys: Sequence[str] | None = None,
) -> Dataset:
    """A data set from a Minari id such as ``D4RL/pen/human-v2``, which must be on this machine, or from a directory.

    Actions are rescaled from the finite bounds of the action space, unless ``action_low`` and ``action_high`` are
    given. Where an observation is a dictionary, ``observation_keys`` says which entries to put side by side. An
    episode without a flag at its end counts as truncated, and as cut. ``infos`` are not read.
    """
    path = Path(spec)
    data = next((path / inner for inner in ("data", ".") if (path / inner / "metadata.json").is_file()), None)
    if data is not None and (data / "main_data.hdf5").is_file():
        info, episodes = _from_directory(data)
    else:
        info, episodes = _from_library(os.fspath(spec), data)
    low, high = (info.low, info.high) if action_low is None and action_high is None else (action_low, action_high)
    parts: list[list[np.ndarray]] = []
    indices = []
    with contextlib.closing(episodes):  # an error must not leave the file open
        for episode in episodes:
            parts.append(_transitions(info.path, episode, observation_keys))
            indices.append(episode.index)
            for key, value, first in zip(_COLUMNS, parts[-1], parts[0], strict=False):
                if value.shape[1:] != first.shape[1:]:
                    raise UserError(
                        f"{info.path}: {key} of episode {episode.index} has rows of shape {value.shape[1:]}, "
                        f"but those of episode {indices[0]} {first.shape[1:]}"
                    )
    if not parts:
        raise UserError(f"{info.path}: observations has no rows: there is no episode")
    observation, action, reward, terminated, truncated, following, cut = map(np.concatenate, zip(*parts, strict=True))
    starts = np.cumsum([0] + [len(part[2]) for part in parts])

    def row(index: int) -> str:
        part = int(np.searchsorted(starts, index, side="right")) - 1
        return f"of episode {indices[part]} row {index - starts[part]}"

    notes = _inner_flags(terminated, truncated, starts)
    if low is None and action.dtype.kind in "iu":
        action = action - info.first
    return from_arrays(
        observation,
        action,
        reward,
        terminated,
        truncated,
        following,
        name=info.name if name is None else name,
        score_random=info.score_random,
        score_expert=info.score_expert,
        action_low=low,
        action_high=high,
        clip_actions=clip_actions,
        actions=info.actions if actions is None else actions,
        cut=cut,
        notes=notes,
        source=Source(info.path, _KEYS, row),
    )


def write(dataset: Dataset, dataset_id: str, metadata: Mapping[str, Any] | None = None) -> None:
    """Write under Minari's own root (``MINARI_DATASETS_PATH``) so that ``minari.load_dataset(dataset_id)`` reads it.

    ``metadata`` may hold ``algorithm_name``, ``author``, ``author_email``, ``code_permalink`` and ``description``.
    Minari keeps one observation between two steps, so each ``next_observation`` must be the next row's observation.
    Extras are not written. Raises UserError if the id is malformed or taken.
    """
    minari = _library()
    need("gymnasium", "minari")
    import gymnasium
    from minari.data_collector import EpisodeBuffer
    from minari.storage.datasets_root_dir import get_dataset_path

    metadata = dict(metadata or {})
    known = ("algorithm_name", "author", "author_email", "code_permalink", "description")
    for key in metadata:
        if key not in known:
            raise UserError(f"minari:{dataset_id}: unknown metadata {key!r}; known: {', '.join(known)}")
    try:
        minari.dataset.minari_dataset.parse_dataset_id(dataset_id)
    except (ValueError, TypeError):
        raise UserError(f"minari:{dataset_id}: malformed id; use (namespace/)name-v0") from None
    target = get_dataset_path(dataset_id)
    if target.exists():
        raise UserError(f"minari:{dataset_id}: exists already at {target}; choose another version")
    validate(dataset)
    host = jax.device_get(dataset)
    inner = np.flatnonzero(host.last == 0)
    broken = inner[(host.next_observation[inner] != host.observation[inner + 1]).any(axis=1)]
    if broken.size:
        raise UserError(
            f"data set {host.name!r}: next_observation row {broken[0]} is not the next row's observation, "
            "which Minari cannot store; save as .hdf5 instead"
        )
    terminated = host.discount == 0
    buffers: list[Any] = []
    episode_buffer: Any = EpisodeBuffer  # annotated for lists, but it stores arrays
    for start in np.flatnonzero(host.step == 0):
        rows = slice(int(start), int(host.end[start]))
        buffers.append(
            episode_buffer(
                observations=np.concatenate([host.observation[rows], host.next_observation[rows][-1:]]),
                actions=host.action[rows],
                rewards=host.reward[rows],
                terminations=terminated[rows],
                truncations=((host.last == 1) & ~terminated)[rows],
            )
        )
    scores = {"ref_min_score": float(host.score_random), "ref_max_score": float(host.score_expert)}
    sizes = dataset.spec
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari warns for every piece of metadata that is left out
            written = minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (sizes.observation_dim,), np.float32),
                action_space=gymnasium.spaces.Box(-1.0, 1.0, (sizes.action_dim,), np.float32),
                **metadata,
            )
        # Without an environment the call above would leave the scores out.
        written.storage.update_metadata({key: score for key, score in scores.items() if math.isfinite(score)})
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


_COLUMNS = ("observations", "actions", "rewards", "terminations", "truncations", "observations")
_KEYS = {
    "observation": "observations",
    "action": "actions",
    "reward": "rewards",
    "terminated": "terminations",
    "truncated": "truncations",
    "next_observation": "observations (next)",
}


def _transitions(path: str, episode: _Episode, keys: Sequence[str] | None) -> list[np.ndarray]:
    where = f"episode {episode.index}"
    observations = episode.observations
    if isinstance(observations, Mapping):
        known = ", ".join(sorted(observations))
        if keys is None:
            raise UserError(f"{path}: observations of {where} is a dictionary; {choose_keys(sorted(observations))}")
        missing = [key for key in keys if key not in observations]
        if missing:
            raise UserError(f"{path}: missing key {missing[0]!r} in observations of {where}; it has {known}")
        entries = [np.asarray(observations[key]) for key in keys]
        observations = np.concatenate([entry.reshape(len(entry), -1) for entry in entries], axis=-1)
    observations = np.asarray(observations)
    steps = len(episode.rewards)
    if observations.ndim == 0 or len(observations) != steps + 1:
        found = len(observations) if observations.ndim else "no"
        raise UserError(f"{path}: observations of {where} has {found} rows, expected one more than its {steps} rewards")
    columns = [np.asarray(column) for column in episode[2:]]
    for key, column in zip(_COLUMNS[1:], columns, strict=False):
        if column.ndim == 0 or len(column) != steps:
            found = len(column) if column.ndim else "no"
            raise UserError(f"{path}: {key} of {where} has {found} rows, but rewards has {steps}")
    cut = np.zeros(steps, bool)
    if steps and not columns[2][-1]:
        cut[-1] = not columns[3][-1]
        columns[3] = np.append(columns[3][:-1], True)
    return [observations[:-1], *columns, observations[1:], cut]


def _inner_flags(terminated: np.ndarray, truncated: np.ndarray, starts: np.ndarray) -> tuple[str, ...]:
    """A sentence where a flag is set before an episode of the file ends."""
    inner = np.asarray(terminated != 0) | np.asarray(truncated != 0)
    inner[starts[1:] - 1] = False
    if not inner.any():
        return ()
    return (f"{inner.sum():,} flags stand before the end of an episode of the file, which is ended there as well",)


def _from_directory(data: Path) -> tuple[_Info, Generator[_Episode, None, None]]:
    need("h5py")
    import h5py

    path = data / "main_data.hdf5"
    try:
        metadata = json.loads((data / "metadata.json").read_text(encoding="utf-8"))
        space = metadata.get("action_space", {})
        space = json.loads(space) if isinstance(space, str) else space
    except ValueError:
        raise UserError(f"{data / 'metadata.json'}: not readable as JSON") from None
    parent = data.parent if data.name == "data" else data
    scores = (metadata.get(key) for key in ("ref_min_score", "ref_max_score"))
    random, expert = (math.nan if score is None else float(score) for score in scores)
    low, high = _bounds(space.get("low"), space.get("high"))
    count = int(space["n"]) if space.get("type") == "Discrete" else None
    first = int(space.get("start", 0))
    info = _Info(str(path), str(metadata.get("dataset_id", parent.name)), low, high, random, expert, count, first)

    def episodes() -> Generator[_Episode, None, None]:
        try:
            file: Any = h5py.File(path, "r")
        except OSError as error:
            raise UserError(f"{path}: not a readable HDF5 file ({str(error).splitlines()[0]})") from None
        with file:
            indices = sorted(int(key.removeprefix("episode_")) for key in file if key.startswith("episode_"))
            for index in indices:
                group = file[f"episode_{index}"]
                missing = [key for key in _Episode._fields[1:] if key not in group]
                if missing:
                    has = ", ".join(sorted(group))
                    raise UserError(f"{path}: missing key {missing[0]!r} in episode {index}; it has {has}")
                yield _Episode(index, *(_values(group[key]) for key in _Episode._fields[1:]))

    return info, episodes()


def _values(item: Any) -> Any:
    return item[()] if hasattr(item, "shape") else {key: _values(item[key]) for key in item}


def _from_library(spec: str, data: Path | None) -> tuple[_Info, Generator[_Episode, None, None]]:
    minari = _library()
    try:
        dataset = minari.MinariDataset(data) if data is not None else minari.load_dataset(spec)
    except FileNotFoundError:
        known = sorted(minari.list_local_datasets())
        here = ", ".join(known) if known else "none"
        raise UserError(f"minari:{spec}: not on this machine (`minari download {spec}`); here: {here}") from None
    except (ValueError, TypeError, AssertionError) as error:
        raise UserError(f"minari:{spec}: cannot be read ({(str(error).splitlines() or ['damaged'])[0]})") from None
    metadata = dataset.storage.metadata
    scores = (metadata.get(key) for key in ("ref_min_score", "ref_max_score"))
    random, expert = (math.nan if score is None else float(score) for score in scores)
    space = dataset.action_space
    low, high = _bounds(getattr(space, "low", None), getattr(space, "high", None))
    count, first = (int(space.n), int(space.start)) if hasattr(space, "n") and hasattr(space, "start") else (None, 0)
    info = _Info(f"minari:{spec}", dataset.id, low, high, random, expert, count, first)
    episodes = (
        _Episode(int(e.id), e.observations, e.actions, e.rewards, e.terminations, e.truncations)
        for e in dataset.iterate_episodes()
    )
    return info, episodes


def _bounds(low: Any, high: Any) -> tuple[Any, Any]:
    """The bounds to rescale from, or (None, None) where there are none or they are [-1, 1] already."""
    if low is None or high is None:
        return None, None
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()) or ((low == -1).all() and (high == 1).all()):
        return None, None
    return low, high


def _library() -> Any:
    try:
        import minari
    except ImportError:
        raise UserError("Minari ids need the minari package; install jaxrl-reg[minari], or give a directory") from None
    return minari

"""D4RL's HDF5 layout (arXiv 2004.07219), which is also our own: read without D4RL, gym or mujoco-py.

Arrays: ``observations`` [N, O], ``actions`` [N, A], ``rewards`` [N], ``terminals`` [N] (true terminations only),
``timeouts`` [N], and optionally ``next_observations`` [N, O] and ``infos/...``. The dictionary that D4RL's
``get_dataset`` returns has the same ones, and is read from an ``.npz`` alike. Files that we write also carry root
attributes: ``name``, ``score_random``, ``score_expert``, ``extras`` and whatever the writer was given; and, where they
say anything, the arrays ``cut``, ``dropped_rewards`` and ``next_actions`` (see ``types.Dataset``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_reg.data.columns import Source
from jaxrl_reg.data.dataset import from_arrays, validate
from jaxrl_reg.data.readers.npz import opened_npz, read_npz
from jaxrl_reg.errors import UserError, need
from jaxrl_reg.io.files import write_bytes
from jaxrl_reg.types import Dataset

KEYS = {
    "observation": "observations",
    "action": "actions",
    "reward": "rewards",
    "terminated": "terminals",
    "truncated": "timeouts",
    "next_observation": "next_observations",
}
OURS = {"cut": "cut", "dropped_reward": "dropped_rewards", "next_action": "next_actions"}
RESERVED = ("name", "score_random", "score_expert", "extras", "format", "ends", "rewarded", "discrete")
DONE = ("done", "dones", "is_terminal", "terminated", "terminations")  # what other files call an end of either kind

# Returns of a random and of an expert policy in D4RL's own environments (its d4rl/infos.py), by the name of a data set
# or of its file. Not there, and so without scores: the eval mazes, carla-town-full and kitchen's new tasks.
REFERENCE_SCORES = {
    r"halfcheetah-[a-z-]+-v[012]": (-280.178953, 12135.0),
    r"hopper-[a-z-]+-v[012]": (-20.272305, 3234.3),
    r"walker2d-[a-z-]+-v[012]": (1.629008, 4592.3),
    r"ant-[a-z-]+-v[012]": (-325.6, 3879.7),
    r"(antmaze-[a-z-]+-v[02]|Ant-maze-[a-zA-Z-]+)": (0.0, 1.0),
    r"kitchen-(complete|partial|mixed)-v0": (0.0, 4.0),
    r"pen-[a-z]+-v[01]": (96.262799, 3076.8331017826877),
    r"door-[a-z]+-v[01]": (-56.512833, 2880.5693087298737),
    r"hammer-[a-z]+-v[01]": (-274.856578, 12794.134825156867),
    r"relocate-[a-z]+-v[01]": (-6.425911, 4233.877797728884),
    r"maze2d-open(-v0|-sparse)": (0.01, 20.66),
    r"maze2d-umaze(-sparse)?-v1": (23.85, 161.86),
    r"maze2d-medium(-sparse)?-v1": (13.13, 277.39),
    r"maze2d-large(-sparse)?-v1": (6.7, 273.99),
    r"maze2d-open-dense(-v0)?": (11.17817, 27.166538620695782),
    r"maze2d-umaze-dense-v1": (68.537689, 193.66285642381482),
    r"maze2d-medium-dense-v1": (44.264742, 297.4552547777125),
    r"maze2d-large-dense-v1": (30.569041, 303.4857382709002),
    r"minigrid-fourrooms(-random)?-v0": (0.01442, 2.89685),
    r"flow-ring-[a-z]+-v0": (-165.22, 24.42),
    r"flow-merge-[a-z]+-v0": (118.67993, 330.03179),
    r"carla-lane-v0": (-0.8503839912088142, 1023.5784385429523),
    r"carla-town-v0": (-114.81579500772153, 2440.1772022247314),
    r"bullet-halfcheetah-[a-z-]+-v0": (-1275.766996, 2381.6725),
    r"bullet-hopper-[a-z-]+-v0": (20.058972, 1441.8059623430963),
    r"bullet-ant-[a-z-]+-v0": (373.705955, 2650.495),
    r"bullet-walker2d-[a-z-]+-v0": (16.523877, 1623.6476303317536),
    r"bullet-maze2d-open(-v0|-sparse)": (8.75, 64.15),
    r"bullet-maze2d-umaze(-v0|-sparse)": (32.46, 153.99),
    r"bullet-maze2d-medium(-v0|-sparse)": (14.87, 238.05),
    r"bullet-maze2d-large(-v0|-sparse)": (1.82, 285.92),
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
            return re.split(r"[-(]+[\[(v]|\(", pattern)[0]
    return ""


def read(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    action_low: Any = None,
    action_high: Any = None,
    clip_actions: bool = False,
    actions: int | None = None,
    observation_keys: Sequence[str] | None = None,
    extras: Sequence[str] | None = None,
    max_episode_steps: int | None = None,
    time_limit: int | None = None,
) -> Dataset:
    """A data set from an HDF5 file in D4RL's layout, or an ``.npz`` of the same arrays.

    Rows without a successor are dropped if the file has no ``next_observations`` (see ``data.from_arrays``). ``extras``
    names arrays under ``infos/`` to keep; by default those that ``write`` put there, and none of D4RL's own. Where
    ``observations`` is a group, ``observation_keys`` says which of its arrays to put side by side.

    Old files (``-v0``) have no ``timeouts``. Episodes then end where ``next_observations`` break off, if there are any,
    and after ``max_episode_steps`` steps, or else after ``time_limit`` of them, the environment's own; the notes say
    so. Reference scores come from the file; an original D4RL file, which has none, gets D4RL's published ones if its
    name is D4RL's.
    """
    path = Path(path)
    with _stored(path) as store:
        keys = {**KEYS, **OURS}
        columns = {ours: store.get(theirs) for ours, theirs in keys.items() if theirs in store.keys}
        for ours in ("observation", "next_observation"):
            if ours not in columns and (found := joined(store, path, KEYS[ours], observation_keys)) is not None:
                columns[ours] = found
        unknown = [ours for ours in ("reward",) if not store.attributes.get("rewarded", True)]
        for ours in ("observation", "action", "reward", "terminated"):
            if ours not in columns and ours not in unknown:
                raise _missing(path, KEYS[ours], store.keys)
        kept = {}
        for key in _names(path, store.attributes) if extras is None else extras:
            if f"infos/{key}" not in store.keys:
                infos = sorted(name.removeprefix("infos/") for name in store.keys if name.startswith("infos/"))
                raise UserError(f"{path}: missing key 'infos/{key}'; it has {', '.join(infos) or 'no infos'}")
            kept[key] = store.get(f"infos/{key}")
            keys[key] = f"infos/{key}"
        attributes, present = store.attributes, store.keys
    if observation_keys is not None and not any(key.startswith("observations/") for key in present):
        raise UserError(f"{path}: observations is one array, with no entries to choose; leave out --observation-keys")
    for key in ("reward", "terminated", "truncated", "cut", "dropped_reward"):  # some files store columns [N, 1]
        if key in columns and columns[key].ndim == 2 and columns[key].shape[1] == 1:
            columns[key] = columns[key][:, 0]
    for key in unknown:
        columns[key] = None
    notes: tuple[str, ...] = ()
    if "truncated" not in columns:
        columns["truncated"], notes = _timeouts(path, columns, present, max_episode_steps, time_limit)
    ours = attributes.get("format") == "d4rl"
    if ours and "ends" not in attributes:  # written before we kept apart what timed out and what was cut
        columns["cut"] = columns["truncated"]
    if not ours:
        columns = {key: value for key, value in columns.items() if key in KEYS}
    if name is None:
        name = str(attributes.get("name", path.stem))
    if "score_random" in attributes or "score_expert" in attributes:
        low, high = (float(attributes.get(key, math.nan)) for key in ("score_random", "score_expert"))
    else:
        low, high = reference_scores(path.stem)
    made = from_arrays(
        **columns,
        name=name,
        score_random=low,
        score_expert=high,
        extras=kept,
        action_low=action_low,
        action_high=action_high,
        clip_actions=clip_actions,
        actions=actions,
        notes=notes,
        source=Source(str(path), keys),
    )
    return dataclasses.replace(made, discrete=True) if attributes.get("discrete", False) else made


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
    # Made in memory: a disk that fills up under the HDF5 library ends the process.
    held = (*columns.values(), *host.extras.values(), *_further(host).values())
    size = sum(np.asarray(value).nbytes for value in held) + 2**16
    with h5py.File(path.name, "w", driver="core", backing_store=False, block_size=size) as file:
        for key, value in columns.items():
            file.create_dataset(KEYS[key], data=value)
        for key, value in host.extras.items():
            file.create_dataset(f"infos/{key}", data=value)
        for key, value in _further(host).items():
            file.create_dataset(OURS[key], data=value)
        file.attrs.update(metadata)
        file.attrs["format"] = "d4rl"
        file.attrs["ends"] = "time-outs and cuts apart"
        file.attrs["rewarded"] = host.rewarded
        file.attrs["discrete"] = host.discrete
        file.attrs["name"] = host.name
        file.attrs["score_random"] = host.score_random
        file.attrs["score_expert"] = host.score_expert
        file.attrs["extras"] = json.dumps(sorted(host.extras))
        file.flush()
        image = file.id.get_file_image()
    write_bytes(path, image)


def metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The root attributes of the file, as plain Python values."""
    with _open(Path(path)) as file:
        return _attributes(file)


class Store(NamedTuple):
    """The arrays of a file, ``infos/...`` and other groups included, by name; its attributes."""

    keys: list[str]
    get: Callable[[str], np.ndarray]
    attributes: dict[str, Any]


def joined(store: Store, path: Path, group: str, wanted: Sequence[str] | None) -> np.ndarray | None:
    """Arrays of a group side by side, ``[N, O]``; None where there is no such group.

    Raises UserError if ``wanted`` is None or has a name that the group lacks.
    """
    known = [key.removeprefix(f"{group}/") for key in store.keys if key.startswith(f"{group}/")]
    if not known:
        return None
    if wanted is None:
        raise UserError(f"{path}: {group} is a group of arrays; {choose_keys(known)}")
    for key in wanted:
        if key not in known:
            raise UserError(f"{path}: missing key {group}/{key}; it has {', '.join(sorted(known))}")
    arrays = [store.get(f"{group}/{key}") for key in wanted]
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)


def choose_keys(known: Sequence[str]) -> str:
    """What to do about observations of several parts."""
    keys = sorted(known)
    return (
        f"it has {', '.join(keys)}; say which to put side by side: --observation-keys {','.join(keys)} "
        "(observation_keys in Python)"
    )


@contextlib.contextmanager
def _stored(path: Path) -> Iterator[Store]:
    if path.suffix == ".npz":
        with opened_npz(path) as archive:
            yield Store(archive.files, lambda key: read_npz(path, archive, key), {})
        return
    with _open(path) as file:
        found: list[str] = []
        file.visititems(lambda key, item: found.append(key) if hasattr(item, "shape") else None)
        yield Store(found, lambda key: _array(path, file, key), _attributes(file))


def _missing(path: Path, key: str, present: Sequence[str]) -> UserError:
    has = ", ".join(sorted(name for name in present if "/" not in name))
    ends = [name for name in DONE if name in present] if key == "terminals" else []
    hint = f"; {ends[0]!r} does not tell the ends of the task (terminals) from time-outs (timeouts)" if ends else ""
    return UserError(f"{path}: missing key {key!r}; it has {has}{hint}")


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


def _further(host: Dataset) -> dict[str, np.ndarray]:
    """What does not follow from D4RL's own arrays, where it says anything; ``host`` holds NumPy arrays."""
    found = {key: getattr(host, key) for key in ("cut", "dropped_reward") if getattr(host, key) is not None}
    final = (host.last == 1) & (host.next_action != host.action).any(axis=1)
    return {**found, "next_action": host.next_action} if final.any() else found


def _names(path: Path, attributes: Mapping[str, Any]) -> list[str]:
    try:
        return list(json.loads(attributes.get("extras", "[]")))
    except (TypeError, ValueError):
        raise UserError(f"{path}: attribute 'extras' is not a JSON list of names") from None


def _timeouts(
    path: Path, columns: dict[str, Any], present: Sequence[str], limit: int | None, known: int | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Time-outs of a file that has none, and in a sentence where they come from."""
    terminals = columns["terminated"]
    if terminals.ndim != 1:
        return terminals, ()  # refused for its shape later
    said, steps = [], limit if limit is not None else known
    torn = _torn(columns) if columns.get("next_observation") is not None else np.zeros(len(terminals), bool)
    trusted = torn.mean() <= 0.5 if len(torn) else False
    if steps is None and (not trusted or "next_observation" not in columns):
        raise UserError(
            f"{_missing(path, 'timeouts', present)}; give the time limit of the environment: --max-episode-steps N "
            "(max_episode_steps in Python)"
        )
    if trusted and torn.any():
        said.append(f"where next_observations break off ({torn.sum():,} times)")
    truncated = torn if trusted else np.zeros(len(terminals), bool)
    if steps is not None:
        if steps < 1:
            raise UserError(f"{path}: an episode needs at least 1 step, got max_episode_steps={steps}")
        truncated = truncated | _every(terminals.astype(bool) | truncated, steps)
        said.append(f"after {steps:,} steps, " + ("as asked" if limit is not None else "the environment's time limit"))
    if not truncated.any() and len(truncated) and not np.any(terminals):
        truncated = np.arange(len(truncated)) == len(truncated) - 1  # one long episode
    where = " and ".join(said) or "nowhere but at terminals"
    return truncated, (f"it has no timeouts: episodes that do not terminate end {where}",)


def _torn(columns: Mapping[str, Any]) -> np.ndarray:
    """Rows ``[N]`` that do not lead to the next one, terminations and the last one apart."""
    here, following = columns["observation"], columns["next_observation"]
    torn = np.zeros(len(columns["terminated"]), bool)
    if here.shape == following.shape and here.ndim == 2 and len(here) == len(torn) and len(here):
        torn[:-1] = (following[:-1] != here[1:]).any(axis=1) & (columns["terminated"][:-1] == 0)
    return torn


def _every(ends: np.ndarray, limit: int) -> np.ndarray:
    """1 wherever an episode has run for ``limit`` rows without ending, counting on from there."""
    rows = np.arange(len(ends))
    start = np.maximum.accumulate(np.where(np.append(True, ends[:-1]), rows, 0)) if len(rows) else rows
    return ((rows - start + 1) % limit == 0) & ~ends

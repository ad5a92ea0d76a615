"""One ``load`` for every format, by path, by prefixed name or by the bare name of a file in a directory."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrl_reg.data.pieces import limited
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import Dataset

SUFFIXES = {".hdf5": "d4rl", ".h5": "d4rl", ".npz": "ogbench"}
PREFIXES = ("minari", "ogbench", "exorl", "d4rl")


def load(
    spec: str | os.PathLike[str],
    directory: str | os.PathLike[str] = "datasets",
    *,
    max_episode_steps: int | None = None,
    time_limit: int | None = None,
    **options: Any,
) -> Dataset:
    """A data set from ``spec``, which is one of:

    - a file: ``.hdf5`` or ``.h5`` (D4RL's layout, and ours), ``.npz`` (OGBench's, or D4RL's where it has ``timeouts``);
    - a directory: a Minari data set, or ExORL episodes;
    - ``minari:<id or path>``, ``ogbench:<path>``, ``exorl:<directory>``, ``d4rl:<path>``;
    - a name such as ``hopper-medium`` or ``brax-hopper-spring/medium``: a file or folder of that name in ``directory``,
      else in the current one, with or without its suffix.

    ``max_episode_steps`` ends longer episodes there, by a time-out; ``time_limit`` is the environment's own, taken only
    for files that do not say where their time-outs are. ``options`` go to the reader in :mod:`jaxrl_reg.data.readers`:
    all take ``name``, ``action_low``, ``action_high``, ``clip_actions`` and ``actions``. ``Dataset.notes`` says in
    words what was done. Raises UserError in one line if there is no such data set or if it is damaged.
    """
    text = os.fspath(spec)
    prefix, colon, rest = text.partition(":")
    if colon and prefix in PREFIXES:
        path, kind = rest, prefix
    else:
        path = Path(text) if Path(text).is_absolute() else _find(text, Path(directory))
        if not path.exists():
            raise UserError(f"{path}: no such file or directory")
        kind = _format(path)
    reader = _reader(kind).read
    known = inspect.signature(reader).parameters
    limits = {"max_episode_steps": max_episode_steps, "time_limit": time_limit}
    given = {**options, **{key: value for key, value in limits.items() if key in known}}
    if options.get("observation_keys") is None:
        given.pop("observation_keys", None)
    for option in given:
        if option not in known:
            raise UserError(f"{path}: there is no {option} to choose in this format ({kind})")
    dataset = reader(path, **given)
    return dataset if max_episode_steps is None else limited(dataset, max_episode_steps)


def save(dataset: Dataset, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
    """Write to ``path``, ending in ``.hdf5`` or ``.h5``, in D4RL's layout, or to ``minari:<id>``.

    ``metadata`` holds numbers and strings to keep with the data, such as ``env_id``. What :func:`load` reads back has
    bit-identical arrays (Minari stores no extras). An HDF5 file appears whole or not at all.
    """
    text = os.fspath(path)
    if text.startswith("minari:"):
        _reader("minari").write(dataset, text.removeprefix("minari:"), metadata)
    elif SUFFIXES.get(Path(text).suffix) == "d4rl":
        _reader("d4rl").write(dataset, text, metadata)
    else:
        raise UserError(f"{text}: cannot tell the format; end the name in .hdf5, or use minari:<id>")


def metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What an HDF5 file says about itself: name, reference scores and whatever ``save`` was given."""
    return _reader("d4rl").metadata(path)


def names(directory: str | os.PathLike[str] = "datasets") -> list[str]:
    """The bare names that ``load`` finds in ``directory``, sorted; empty if there is no such directory."""
    root = Path(directory)
    if not root.is_dir():
        return []
    found = set()
    for path in root.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_file() and path.suffix in SUFFIXES:
            found.add(path.stem)
        elif path.is_dir() and _directory_format(path):
            found.add(path.name)
    return sorted(found)


def found(name: str, directory: str | os.PathLike[str] = "datasets") -> Path | None:
    """The file or folder that ``load`` takes for a name, None where there is none."""
    try:
        path = _find(name, Path(directory))
    except UserError:
        return None
    return path if path.exists() else None


def _find(name: str, directory: Path) -> Path:
    for suffix in ("", *SUFFIXES):
        if (path := directory / f"{name}{suffix}").exists():
            return path
    for suffix in ("", *SUFFIXES):
        if (path := Path(f"{name}{suffix}")).exists():
            return path
    if Path(name).suffix in SUFFIXES:
        return Path(name)
    parent = directory / Path(name).parent
    known = [str(Path(name).parent / one) for one in names(parent)] if Path(name).name != name else names(directory)
    if not known:
        raise UserError(f"unknown data set {name!r}: {parent}/ holds no data sets; give a path, or directory=...")
    message = str(unknown("data set", name, known))
    if "known:" not in message:
        shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
        message += f" In {directory}/: {shown}"
    raise UserError(message)


def _format(path: Path) -> str:
    if path.is_dir():
        if found := _directory_format(path):
            return found
        raise UserError(f"{path}: neither a Minari data set (data/metadata.json) nor ExORL episodes (*_0_1000.npz)")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown format {path.suffix!r}; known: {', '.join(SUFFIXES)}")
    return _archive_format(path) if path.suffix == ".npz" else SUFFIXES[path.suffix]


def _archive_format(path: Path) -> str:
    """Whose ``terminals`` an archive has: D4RL's (ends of the task) or OGBench's (ends of trajectories)."""
    with _reader("npz").opened_npz(path) as archive:
        found = set(archive.files)
    if "timeouts" in found:
        return "d4rl"
    if "rewards" in found and not found & {"masks", "valids"}:
        raise UserError(
            f"{path}: has rewards, but neither timeouts nor masks, so terminals may be ends of the task (D4RL) or of "
            f"trajectories (OGBench); say which: d4rl:{path} or ogbench:{path}"
        )
    return "ogbench"


def _directory_format(path: Path) -> str | None:
    if any((path / inner / "metadata.json").is_file() for inner in ("data", ".")):
        return "minari"
    return "exorl" if next(path.glob("*_[0-9]*_[0-9]*.npz"), None) else None


def _reader(name: str) -> Any:
    return importlib.import_module(f"jaxrl_reg.data.readers.{name}")
